"""Load tests: vLLM's own load generator against the proxy or a server, and what came of it.

Called by benchmark_serving.py. May ask what deploy knows (status); results are read by reports.
"""
