"""Profiles of servers: switched on, recorded under load, switched off, fetched and summed up.

Called by profile_serving.py. May call deploy, roll and load; summaries are read by reports.
"""
