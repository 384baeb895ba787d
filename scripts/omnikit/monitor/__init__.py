"""Files for Prometheus and Grafana from a plan: what is read, alert rules, a dashboard.

Called by write_metrics_config.py alone. Pure but for the writing; asks no host.
"""
