"""Command lines of the shell scripts: scripts/<name>.sh hands over to commands/<name>.py.

Called by these scripts alone. May call checks and below.
"""
