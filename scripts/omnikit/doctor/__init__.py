"""What is wrong with a deployment, with evidence and remedy.

Called by scripts/diagnose_deployment.py. May call deploy, logs and below.
"""
