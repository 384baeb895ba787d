"""Source trees from this machine's side: copied to hosts, built, their state compared.

Called by prepare and deploy. May call images, fleet and below.
"""
