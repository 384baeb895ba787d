"""Which NPUs and addresses a host has, and rank tables: made, read, checked.

Called by scripts/gen_ranktable.py, checks and omnikit. May call base.
"""
