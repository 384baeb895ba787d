"""Model checkpoints: download, conversion FP8 to W8A8 INT8, verification."""
