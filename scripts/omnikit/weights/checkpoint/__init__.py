"""A checkpoint as it lies in a folder, and what the W8A8 conversion makes of each of its tensors.

Called by all other packages of weights, and calls none of them. Reads files, changes none.
"""
