"""Conversion with Ascend's own tool: the edits of a checkpoint that it needs, checks, and its run.

Called by prepare_checkpoint.py, finish_checkpoint.py, run_msmodelslim.py and convert_weights.py.
May call weights.checkpoint.
"""
