"""What is wrong with a deployment, with evidence and remedy.

Called by scripts/doctor.py. May call deploy, logs and below.
"""
