"""Whether a host is fit to serve: one module per subject, each only looks and gives findings.

Called as the jobs "check" and "reach", and by omnikit.checks for the form of a finding.
May call all rooms of hostkit but logs and agent.
"""
