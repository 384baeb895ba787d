"""Large files from host to host: BitTorrent by libtorrent, among named hosts that know each other
by certificates of this run.

Called by omnikit.spread through hostkit.agent. May call base and files. libtorrent itself is no
part of this: omnikit.spread ships its wheel.
"""
