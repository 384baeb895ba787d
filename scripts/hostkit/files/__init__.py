"""Files that a user or a setting names: read within bounds, written whole, never through a link.

Called by all rooms and by the scripts. May call base.
"""
