"""A configuration made ready to act on: rendered files, archives, inventory, questions to hosts.

Called by versions, deploy and what observes a deployment. May call source, images, proxy and below.
"""
