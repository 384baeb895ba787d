"""Where vLLM has its API server."""
