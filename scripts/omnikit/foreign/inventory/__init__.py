"""Ansible inventories for omni-infer: groups, variables, Jinja expressions, vaults, log-in.

Called by foreign alone.
"""
