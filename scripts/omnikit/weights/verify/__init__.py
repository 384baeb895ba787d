"""Whether a converted checkpoint is what its source gives: tensors, configuration, hashes, numbers.

Called by verify_weights.py, check_checkpoint.py, and by weights.convert before a result gets its
name. May call weights.checkpoint. Changes nothing.
"""
