"""The CPU engine: its pins, its installation, and the tiny model that it serves in tests.

Called by images, prepare and scripts/install_engine.py. May call fleet (packages) and hostkit.base.
"""
