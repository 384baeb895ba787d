"""Keys and certificates where they are used: asked for by servers, tried by who asks a service.

Called by nodes, checks and omnikit (smoke test, load, status). May call base and files.
"""
