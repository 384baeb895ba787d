"""What a deployment consists of, as plain data, and what its parts look like. No I/O.

Called by topology, which makes plans, and by all that reads one. May call config and yaml.
"""
