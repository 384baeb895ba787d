"""omni-infer and vLLM from source on a host: cloned, patched, built, installed.

Called as jobs, by versions, and by omnikit.source. May call base, containers and copy.
"""
