"""Logs, symptoms and traces of a host, packed for the control host without the secrets in them.

Called as jobs, and by omnikit.logs, profile and doctor. May call base and nodes.
"""
