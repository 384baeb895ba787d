"""Container engines (docker, podman), images and containers of a host, jobs inside of them.

Called by source, nodes, checks and versions, and by omnikit.plan for names and words. May call
base and agent.
"""
