"""The nodes of a host: what they need, start, look, stop; the supervisor that runs their servers.

Called by scripts/host_agent.py and launch_servers.py, checks and logs.
May call base, containers and copy.
"""
