"""The twin of vLLM with an NPU plug-in, as tests install it: omni-infer's or vllm-ascend's.

It computes nothing. What it does do as the real one does: it reads the same words and variables,
refuses what the real one refuses, with the same text, binds the same ports, meets the other ranks
and answers the same requests. Each rule names its source. Standard library only, for 34 of them
run on a test's machine; Python 3.9.
"""

from vllm.twin.release import RELEASE

__version__ = RELEASE["version"]
