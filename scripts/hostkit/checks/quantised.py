"""Whether a model's weights and what describes their quantisation belong together.

An engine that finds no description loads INT8 weights as if they were not quantised and runs out of
memory; one that cannot compute FP8 says so only after minutes. Both can be seen before the start.
Sources: compressed-tensors' formats, vLLM's model config (_verify_quantization), and vllm-ascend's
maintainers on FP8 (issue 1526: Ascend A2 and A3 have none).
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

from hostkit.checks.base import Group
from hostkit.files.tensor_header import Entry

NAME, TITLE = "model.quantisation", "weights as they are described"
# msmodelslim's own description, which vllm-ascend's method "ascend" reads.
_DESCRIPTIONS = "quant_model_description*.json"
_ASCEND = "ascend"
_SHOWN = {"I8": "INT8", "F8_E4M3": "FP8"}
# The type of a quantised matrix by what describes it; nothing is known here of other methods.
_BY_METHOD = {"fp8": "F8_E4M3"}
_BY_FORMAT = {"int-quantized": "I8", "float-quantized": "F8_E4M3"}


def look(group: Group, folder: Path, config: Mapping[str, Any], tensors: Iterable[Entry]) -> None:
    """The check. config: of config.json; tensors: all entries of the files' headers."""
    counts = dict.fromkeys(_SHOWN, 0)
    for tensor in tensors:
        if tensor.dtype in counts and len(tensor.shape) >= 2:
            counts[tensor.dtype] += 1
    described = config.get("quantization_config")
    described = described if isinstance(described, dict) else {}
    method = str(described.get("quant_method") or "")
    files = sorted(path.name for path in folder.glob(_DESCRIPTIONS))
    wanted = _BY_METHOD.get(method)
    if method == "compressed-tensors":
        wanted = _BY_FORMAT.get(str(described.get("format")))
    there = ", ".join(f"{n} {_SHOWN[dtype]} matrices" for dtype, n in counts.items() if n)
    says = method or (files[0] if files else "")
    problem = _problem(group, folder, there, says, wanted, counts) or _flag(group, method, files)
    if problem is None:
        found = f"{there or 'no INT8 or FP8 matrices'}; described as: {says or 'not quantised'}"
        group.add(NAME, TITLE, True, found=found)
        return
    what, todo, required = problem
    needed = "weights, their description and --quantization of the same kind"
    group.add(NAME, TITLE, False, found=what, needed=needed, todo=todo, required=required)


Problem = Optional[tuple[str, str, bool]]


def _problem(
    group: Group,
    folder: Path,
    there: str,
    says: str,
    wanted: Optional[str],
    counts: Mapping[str, int],
) -> Problem:
    """What is wrong in the folder itself: (what, todo, whether that is certain to fail)."""
    again = (
        "have config.json as it came with the weights (invoke convert-weights writes it), or the"
        f" weights of this config.json; look: grep -A3 quantization_config {folder}/config.json"
    )
    if there and not says:
        what = (
            f"{there}, but neither quantization_config in config.json nor {_DESCRIPTIONS} says so:"
            " they would be loaded as if they were not quantised"
        )
        return what, again, True
    if wanted and not counts[wanted]:
        return f"config.json says {says}, but no matrix is {_SHOWN[wanted]}", again, True
    if wanted == "F8_E4M3" and group.given["device_kind"] == "npu":
        made = f"{str(folder).rstrip('/')}-w8a8"
        todo = (
            f"of DeepSeek-V3's family: invoke convert-weights --source {folder} --target {made},"
            f" then model.path: {made}; of others take INT8 or BF16 weights"
        )
        return f"{there}: Ascend A2 and A3 do not compute FP8", todo, True
    return None


def _flag(group: Group, method: str, files: list[str]) -> Problem:
    """What the servers are told, against what the folder says. Engines may know more: a warning."""
    told = set(group.given["quantization"])
    if method and told - {method}:
        other = ", ".join(sorted(told - {method}))
        return (
            f"the servers are told --quantization {other}, config.json says {method}",
            "leave server.args.quantization away: the engine reads config.json",
            False,
        )
    if files and not method and _ASCEND not in told and group.given["device_kind"] == "npu":
        return (
            f"{files[0]} describes the weights, config.json does not, and no server is told"
            f" --quantization {_ASCEND}: they may be loaded as if they were not quantised",
            f"--set server.args.quantization={_ASCEND}, or have quantization_config in config.json",
            False,
        )
    return None
