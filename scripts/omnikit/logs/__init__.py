"""Logs of all hosts: shown, fetched, their errors counted.

Called by doctor, profile and their scripts. May call fleet and below.
"""
