"""The copy of a source tree on a host: what differs, what a change asks for, its record.

Called by source and nodes here, and by omnikit.source for this side of the comparison.
May call base and files.
"""
