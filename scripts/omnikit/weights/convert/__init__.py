"""The native conversion of a checkpoint to W8A8 INT8: bounded memory, all cores, goes on when cut.

Called by convert_weights.py and weights.loadable. May call weights.checkpoint and weights.verify.
"""
