"""The one configuration: layers merged, checked against the schema, each value with its origin.

Called by everything above. May call yaml and foreign.
"""
