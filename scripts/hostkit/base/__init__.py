"""What everything else stands on: errors, output, processes, waiting, locks, records.

Called by all rooms of hostkit and omnikit and by the scripts; calls none of them.
"""
