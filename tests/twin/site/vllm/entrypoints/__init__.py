"""Where vLLM has its programs."""
