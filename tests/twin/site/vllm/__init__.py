"""The twin of vLLM 0.9.0 with omni-infer's plug-ins, as tests install it into the twin image.

It computes nothing. What it does do as the real one does: it reads the same words and variables,
refuses what the real one refuses, with the same text, binds the same ports, meets the other ranks
and answers the same requests. Each rule names its source. Standard library only, for 34 of them
run on a test's machine; Python 3.9.
"""

__version__ = "0.9.0"
