"""How the toolkit addresses the proxy and the servers, and proves who it is: address, TLS, key.

Called by prepare, deploy, load and whoever asks a service. May call plan and below; what is used on
hosts too is hostkit.access.
"""
