"""The conversion by llm-compressor's model_free_ptq, as its examples have it for FP8 by blocks: to
bf16 first, then W8A8 with dynamic tokens. For bench_weights.py; runs in an environment that has it.
"""

from __future__ import annotations

import sys

from compressed_tensors.entrypoints.convert import FP8BlockDequantizer
from llmcompressor import model_free_ptq

# What stays as it is, as in our own conversion.
IGNORED = ["re:.*norm.*", "re:.*mlp.gate$", "lm_head", "re:.*embed_tokens$", "re:.*kv_b_proj$"]


def main() -> None:
    """SOURCE TARGET WORKERS."""
    source, target, workers = sys.argv[1:]
    model_free_ptq(
        source,
        target,
        scheme="W8A8",
        ignore=IGNORED,
        max_workers=int(workers),
        device="cpu",
        converter=FP8BlockDequantizer.from_pretrained(source),
    )


if __name__ == "__main__":
    main()
