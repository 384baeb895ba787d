"""What an engine makes of checkpoints. Runs in a Python that has vLLM, or else torch, transformers
and the compressed-tensors library:

    engine_logits.py OUT FOLDER...

writes {"engine": version, "folders": {FOLDER: [[log probability of each token] of each position] or
"why it cannot be loaded"}} into OUT. Of a folder "A=B", B is first made of A: its int8 matrices
read by the compressed-tensors library, as bf16.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Callable

PROMPT = [1, 5, 7, 9, 100, 200, 33, 250, 301, 77, 64, 18]


def by_vllm(folder: str) -> list[list[float]]:
    """Of the tokens that may follow each token of the prompt. Raises whatever the engine raises."""
    from vllm import LLM, EngineArgs, SamplingParams

    words: dict[str, Any] = {"max_model_len": 64, "max_num_seqs": 1, "enforce_eager": True}
    if "kv_cache_memory_bytes" in EngineArgs.__dataclass_fields__:  # not in 0.9
        words["kv_cache_memory_bytes"] = 1 << 26
    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    model = LLM(
        model=folder,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_logprobs=vocabulary,
        **words,
    )
    wanted = SamplingParams(
        max_tokens=1, temperature=0, prompt_logprobs=vocabulary, detokenize=False
    )
    prompt: Any = {"prompt_token_ids": PROMPT}
    (found,) = model.generate([prompt], wanted, use_tqdm=False)
    rows = [one for one in found.prompt_logprobs or [] if one is not None]
    return [[row[token].logprob for token in sorted(row)] for row in rows]


def by_transformers(folder: str) -> list[list[float]]:
    """The same of a bf16 checkpoint, in float32. Raises ValueError: a weight was not found."""
    import torch
    from transformers import DeepseekV3ForCausalLM

    model, told = DeepseekV3ForCausalLM.from_pretrained(folder, output_loading_info=True)
    if told["missing_keys"]:  # it would go on with random numbers in their place
        raise ValueError(f"transformers finds no {sorted(told['missing_keys'])[0]}")
    with torch.no_grad():
        found = model.float()(torch.tensor([PROMPT])).logits[0, :-1]
    rows: list[list[float]] = torch.log_softmax(found, dim=-1).tolist()
    return rows


def read_back(folder: Path, made: Path) -> None:
    """The same checkpoint in bf16, its int8 matrices opened by the library of their form."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    told = config.pop("quantization_config")
    scheme = QuantizationConfig.model_validate(told).config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry(told["format"])
    state: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(load_file(file))
    for name in [name for name, one in state.items() if one.dtype == torch.int8]:
        parts = {"weight": state[name], "weight_scale": state.pop(f"{name}_scale")}
        state[name] = compressor.decompress(parts, scheme)["weight"].to(torch.bfloat16)
    made.mkdir()
    save_file({name: one.contiguous() for name, one in state.items()}, made / "model.safetensors")
    (made / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer_config.json", "configuration_deepseek.py"):
        shutil.copyfile(folder / name, made / name)


def attempt(folder: str, logits: Callable[[str], list[list[float]]]) -> Any:
    """Log probabilities of a folder, or what stands against it in one line."""
    try:
        source, _, made = folder.partition("=")
        if made:
            read_back(Path(source), Path(made))
        return logits(made or source)
    except Exception as error:  # the engine has many kinds; the caller decides what they mean
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def engine() -> tuple[str, Callable[[str], list[list[float]]]]:
    """Its name with version, and what asks it."""
    try:
        import vllm

        return f"vLLM {vllm.__version__}", by_vllm
    except Exception:  # an extension that does not load raises others than ImportError
        import transformers

        return f"transformers {transformers.__version__}", by_transformers


def main(out: str, folders: list[str]) -> None:
    """See the module's docstring."""
    # Python looks first beside this file, where modules have the names of others' packages.
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.update({"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"})
    name, logits = engine()
    found = {}
    for folder in folders:
        found[folder] = attempt(folder, logits)
        gc.collect()
    Path(out).write_text(json.dumps({"engine": name, "folders": found}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
