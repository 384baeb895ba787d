"""Container images: built here, pulled, shipped to hosts without internet.

Called by prepare, deploy and source. May call engine, fleet and below.
"""
