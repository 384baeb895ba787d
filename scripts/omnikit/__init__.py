"""The control host: from settings to a plan, to files, to what is done on hosts.

Rooms import downwards only; the contracts in pyproject.toml are the order, make lint holds it.
"""
