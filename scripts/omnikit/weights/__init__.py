"""Model weights: downloading, converting to W8A8 INT8 and verifying checkpoints.

Called by the scripts of the weights (download_weights.py, convert_weights.py, …),
on the machine that has the files. Each package may call those before it: checkpoint, then download
and msmodelslim, verify, convert, loadable. meter counts bytes for all of them.
"""
