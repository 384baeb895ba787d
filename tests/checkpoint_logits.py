"""Load checkpoints with the real vLLM and print what it makes of a prompt. Runs in the engine's
Python: checkpoint_logits.py FOLDER..., prints {FOLDER: [[log probability of each token] of each
position]}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

PROMPT = [1, 5, 7, 9, 100, 200, 33, 250, 301, 77, 64, 18]


def logits(folder: str) -> list[list[float]]:
    """Of the tokens that may follow each token of the prompt."""
    from vllm import LLM, SamplingParams

    model = LLM(
        model=folder,
        skip_tokenizer_init=True,
        enforce_eager=True,
        dtype="bfloat16",
        max_model_len=64,
        max_num_seqs=1,
        max_logprobs=-1,
        kv_cache_memory_bytes=1 << 26,
    )
    wanted = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=-1, detokenize=False)
    prompt: Any = {"prompt_token_ids": PROMPT}
    (found,) = model.generate([prompt], wanted, use_tqdm=False)
    rows = [one for one in found.prompt_logprobs or [] if one is not None]
    return [[row[token].logprob for token in sorted(row)] for row in rows]


if __name__ == "__main__":
    os.environ.update(
        {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    )
    os.environ.update({"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"})
    result = {}
    for name in sys.argv[1:]:
        result[name] = logits(name)
        gc.collect()
    print(json.dumps(result))
