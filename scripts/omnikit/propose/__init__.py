"""What invoke init does: looks at hosts, proposes a layout with reasons, writes an environment.

Called by scripts/init.py alone. May call checks and below, and hostkit.
"""
