"""Whether an engine loads what a conversion makes: a small model of the same architecture, through
the same converter, in the engine itself, its log probabilities against those of the source.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

import numpy as np

from omnikit import host_command, run
from omnikit.errors import ActionError, InputError
from omnikit.weights import checkpoint, convert_plan, convert_run, small_deepseek
from omnikit.weights.meter import Meter

# Mean difference of log probabilities, in their standard deviations. Rounding to int8 gives 0.06
# with random weights; one wrong scale in the whole model gives 0.5 (tests).
BOUND = 0.15
_IMPORT_S = 300.0
_SILENCE_S = 600.0
_DENSE = 99  # first_k_dense_replace: more layers than there are
# What the architecture does; sizes are the small model's.
_KEPT = (
    *("architectures", "model_type", "hidden_act", "scoring_func", "topk_method"),
    *("norm_topk_prob", "routed_scaling_factor", "rms_norm_eps", "rope_theta"),
)


def check(
    config: Mapping[str, Any], python: str, threads: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """config: of the checkpoint whose architecture is meant. python: the engine's.

    Returns engine, bound, ok, dense and experts: each with difference (None: not loaded) and error;
    and read_back: of the experts' weights as the library of the form reads them, which decides
    where the engine has no int8 experts. Raises InputError: no vLLM there. Raises ActionError: it
    ended.
    """
    kept = {name: config[name] for name in _KEPT if name in config}
    with tempfile.TemporaryDirectory(prefix="omnikit-loadable-") as text:
        folder = Path(text)
        for kind, more in (("dense", {"first_k_dense_replace": _DENSE}), ("experts", {})):
            small = small_deepseek.make(**kept, **more)
            source = small.write(folder / f"{kind}-fp8")
            small_deepseek.opened(small).write(folder / kind)
            plan = convert_plan.plan(checkpoint.read(source))
            convert_run.run(plan, folder / f"{kind}-int8", threads, Meter(1, say))
        # What may fail comes last: what an engine leaves behind then disturbs nothing.
        read_back = f"{folder}/experts-int8={folder}/read-back"
        names = [f"{folder}/{name}" for name in ("dense", "dense-int8", "experts")]
        say("loading small models with the engine")
        told = logits(python, [*names, read_back, f"{folder}/experts-int8"], folder / "out.json")
        found = told["folders"]
        dense = compared(found[names[0]], found[names[1]])
        experts = compared(found[names[2]], found[f"{folder}/experts-int8"])
        library = compared(found[names[2]], found[read_back])
    decides = experts if experts["difference"] is not None else library
    ok = all(
        one["difference"] is not None and one["difference"] < BOUND for one in (dense, decides)
    )
    about = {"engine": told["engine"], "bound": BOUND, "ok": ok}
    return {**about, "dense": dense, "experts": experts, "read_back": library}


def logits(python: str, folders: list[str], out: Path) -> dict[str, Any]:
    """What engine_logits.py says of folders. Raises InputError, ActionError."""
    script = Path(__file__).with_name("engine_logits.py")
    try:
        run.run([python, "-c", "import vllm"], timeout=_IMPORT_S)
    except (ActionError, InputError) as error:
        raise InputError(
            "this Python cannot import vllm.",
            where=python,
            todo="name the engine's with --python, or make one: invoke install-engine",
        ) from error
    words = [python, str(script), str(out), *folders]
    ended = host_command.watch(words, "engine", stall_s=_SILENCE_S)
    if ended.code or not out.exists():
        how = f"said nothing for {_SILENCE_S:g} s" if ended.stalled else "ended"
        raise ActionError(
            f"the engine {how} while it loaded small models:\n{ended.tail}", where=python
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
