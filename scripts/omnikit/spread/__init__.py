"""Large files to all hosts, which pass them on to each other: one copy enters the fleet.

Called by scripts/distribute_weights.py and by deploy. May call images and those below. What runs
on the hosts is hostkit.spread; the transfer itself is libtorrent's.
"""
