"""What the checks of all hosts come to: parameters for each, comparison between hosts, a report.

Called by scripts/check_env.py, deploy and report. May call versions and below, and hostkit.checks.
"""
