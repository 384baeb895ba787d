"""Whether an engine can load what the conversion makes: tried with small random models.

Called by verify_weights.py --loadable; small_deepseek also by tests. May call weights.checkpoint
and weights.convert.
"""
