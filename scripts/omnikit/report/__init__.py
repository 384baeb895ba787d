"""One HTML page about an environment: what is planned, what runs, what was measured.

Called by report.py. Reads what everything else left, at the top of the import rule; nothing
but the script may call it.
"""
