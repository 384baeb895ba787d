"""Files for Prometheus and Grafana from a plan: what is read, alert rules, a dashboard.

Called by metrics.py alone. Pure but for the writing; asks no host.
"""
