"""Whether a host is fit to serve: one module per subject, each only looks and gives findings.

Called as the jobs "check", "reach" and "serving" (what it serves with now), and by omnikit.checks
and omnikit.deploy. May call all rooms of hostkit but logs.
"""
