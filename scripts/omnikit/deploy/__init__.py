"""Changing what runs: deploy, roll, roll back, stop; releases, records, proof by real requests.

Called by the scripts of these verbs, and by what observes. May call versions and below, timeline.
"""
