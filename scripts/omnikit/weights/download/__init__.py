"""Download of a checkpoint from a hub, a web address or a folder; every file verified.

The hubs' own clients list and authenticate; one transfer fetches from all sources: it goes on at
the byte where it was cut, hashes what passes, and is seen to move. Called by download_weights.py,
which needs job and source.expanded. May call weights.checkpoint.
"""
