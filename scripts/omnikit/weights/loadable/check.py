"""Whether an engine loads what a conversion makes: a small model of the same architecture, through
the same converter, in the engine itself, its log probabilities against those of the source.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

import numpy as np

from hostkit.base import command, run
from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import run as convert_run
from omnikit.weights.loadable import small_deepseek
from omnikit.weights.meter import Meter

# Mean difference of log probabilities, in their standard deviations. Measured with vLLM 0.32 on CPU
# and this module's small model: 0.05 for dense layers (to 0.06 with other seeds, the same with one
# thread or two), a third of the bound. One matrix with wrong scales in the whole model gives 0.5
# and more, where no norm comes after it.
BOUND = 0.15
# Of the rows' sizes. With rows as different as trained ones (0.2 to 3) not the weights decide, but
# the activations' outliers: with these, quantised per token, it is 0.12 to 0.17.
ROWS = (0.5, 1.5)
VLLM, TRANSFORMERS = "vLLM", "transformers"
_READERS = {
    VLLM: "import vllm",
    TRANSFORMERS: "import torch, compressed_tensors, transformers as t; t.DeepseekV3ForCausalLM",
}
_IMPORT_S = 300.0
_SILENCE_S = 600.0
_DENSE = 99  # first_k_dense_replace: more layers than there are
# What the architecture does; sizes are the small model's.
_KEPT = (
    *("architectures", "model_type", "hidden_act", "scoring_func", "topk_method"),
    *("norm_topk_prob", "routed_scaling_factor", "rms_norm_eps", "rope_theta"),
)


@dataclass(frozen=True)
class Reader:
    """A Python and what it loads the form with: VLLM or TRANSFORMERS."""

    python: str
    by: str


def check(
    config: Mapping[str, Any], reader: Reader, threads: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """config: of the checkpoint whose architecture is meant.

    Returns engine, bound, ok, dense and experts: each with difference (None: not loaded) and error;
    and read_back: of the experts' weights as the library of the form reads them, which decides
    where the engine has no int8 experts. Raises ActionError: it ended.
    """
    by_vllm = reader.by == VLLM
    kept = {name: config[name] for name in _KEPT if name in config}
    with tempfile.TemporaryDirectory(prefix="omnikit-loadable-") as text:
        folder = Path(text)
        for kind in ("dense", "experts"):
            layers = {"first_k_dense_replace": _DENSE} if kind == "dense" else {}
            small = small_deepseek.make(rows=ROWS, **{**kept, **layers})
            source = small.write(folder / f"{kind}-fp8")
            small_deepseek.opened(small).write(folder / kind)
            plan = w8a8.plan(headers.read(source))
            # Over in a moment: no progress.
            convert_run.run(plan, folder / f"{kind}-int8", threads, Meter(0, lambda _: None))
        read_back = {
            kind: f"{folder}/{kind}-int8={folder}/{kind}-back" for kind in ("dense", "experts")
        }
        int8 = f"{folder}/dense-int8" if by_vllm else read_back["dense"]
        names = [f"{folder}/dense", int8, f"{folder}/experts", read_back["experts"]]
        # What may fail comes last: what an engine leaves behind then disturbs nothing.
        more = [f"{folder}/experts-int8"] if by_vllm else []
        say("loading small models with the engine")
        told = logits(reader.python, [*names, *more], folder / "out.json")
        found = told["folders"]
        dense = compared(found[names[0]], found[int8])
        library = compared(found[names[2]], found[names[3]])
        experts = compared(found[names[2]], found[more[0]] if more else "it has no int8 experts")
    decides = experts if experts["difference"] is not None else library
    ok = all(
        one["difference"] is not None and one["difference"] < BOUND for one in (dense, decides)
    )
    about = {"engine": told["engine"], "bound": BOUND, "ok": ok}
    return {**about, "dense": dense, "experts": experts, "read_back": library}


def reader(python: str) -> Reader:
    """Raises InputError: this Python has nothing that can load the form."""
    for name, modules in _READERS.items():
        try:
            run.run([python, "-c", modules], timeout=_IMPORT_S)
        except (ActionError, InputError):
            continue
        return Reader(python, name)
    raise InputError(
        "this Python cannot import vllm, nor torch, transformers with DeepSeek-V3 and"
        " compressed_tensors.",
        where=python,
        todo="name one that can with --python, or make one: invoke install-engine",
    )


def logits(python: str, folders: list[str], out: Path) -> dict[str, Any]:
    """What engine_logits.py says of folders. Raises ActionError."""
    script = Path(__file__).with_name("engine_logits.py")
    words = [python, str(script), str(out), *folders]
    ended = command.watch(words, "engine", stall_s=_SILENCE_S)
    if ended.code or not out.exists():
        how = f"said nothing for {_SILENCE_S:g} s" if ended.stalled else "ended"
        raise ActionError(
            f"the engine {how} while it loaded small models:\n{ended.tail}",
            where=python,
            todo="try another engine (--python), or verify without --loadable",
        )
    told: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return told


def compared(expected: Any, found: Any) -> dict[str, Optional[Any]]:
    """difference: of log probabilities, None where one could not be had; error: why."""
    for one in (expected, found):
        if isinstance(one, str):
            return {"difference": None, "error": one}
    a, b = np.array(expected), np.array(found)
    return {"difference": float(np.abs(a - b).mean() / a.std()), "error": None}


def as_lines(result: Mapping[str, Any]) -> list[str]:
    """The result for a person."""
    lines = []
    kinds = {"dense": "dense layers", "experts": "experts", "read_back": "experts, read back"}
    for kind, name in kinds.items():
        one = result[kind]
        said = one["error"] or f"{one['difference']:.3f} from the source's (below {BOUND})"
        by = "compressed-tensors" if kind == "read_back" else result["engine"]
        lines.append(f"small model, {name}, by {by}: {said}")
    return lines
