"""The conversion itself: msmodelslim as a child, its words on the terminal and in a log; why it
ended, and whether what it left is a whole result, before that gets its name.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Optional, Sequence

from hostkit.base import log, run
from hostkit.base.errors import ActionError
from hostkit.files import regular
from omnikit.engine.progress import Progress
from omnikit.weights.checkpoint import headers, whole
from omnikit.weights.checkpoint.headers import Tensor
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.tool import Tool

Say = Callable[[str], None]
_BAR = re.compile(r"\d+%\|.*\|")
_BAR_EVERY_S = 10.0
_SIGN_EVERY_S = 60.0
_KEPT = 200
_SHOWN = 15
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


class Cause(NamedTuple):
    """What a line means, and what to do. configs/failures.yaml is about servers: the same line has
    another remedy there.
    """

    pattern: str
    cause: str
    todo: str


_CAUSES = (
    Cause(
        r"NPU out of memory|EL0004",
        "an NPU has too little free memory (64 GiB a device are needed, nothing else on them)",
        "npu-smi info shows who uses it; give more devices: --set"
        " weights.msmodelslim.env.ASCEND_RT_VISIBLE_DEVICES=0,1,2,3,4,5,6,7",
    ),
    Cause(
        r"No space left on device|Disk quota exceeded",
        "the disk is full",
        "free some space (df -h), or choose another --target",
    ),
    Cause(
        r"Cannot allocate memory|MemoryError|can't allocate memory|Unable to allocate",
        "this machine has too little free memory",
        "free -g; end what else runs here",
    ),
    Cause(
        r"flash_attn",
        "a modeling file still wants flash_attn, which Ascend does not have",
        "invoke prepare-checkpoint, and remove transformers' copy:"
        " ~/.cache/huggingface/modules/transformers_modules",
    ),
    Cause(
        r"cannot import name '\w+' from 'transformers|'NoneType' object has no attribute 'get'"
        r"|DynamicCache' object has no attribute",
        "this version of transformers does not fit the checkpoint's code",
        "install the one of weights.msmodelslim.transformers",
    ),
    Cause(
        r"No module named 'torch_npu'|lib(ascendcl|hccl|c10_npu|torch_npu)\.so|undefined symbol",
        "torch-npu does not fit torch or CANN",
        "install torch-npu of torch's version, and see that weights.msmodelslim.set_env is CANN's",
    ),
    Cause(
        r"No module named '(\w|\.)*'",
        "a package is missing in the tool's Python",
        "install it there, or run install.sh of msmodelslim again",
    ),
    Cause(
        r"unrecognized arguments|expected one argument|invalid choice|arguments are required",
        "this checkout's script knows other options",
        "take msit's branch 8.0.RC1_ZS2.0_20251230, or set weights.msmodelslim.flags",
    ),
    Cause(
        r"trust_remote_code",
        "this checkout loads a checkpoint's own code only when told to",
        'add "--trust_remote_code, True" to weights.msmodelslim.flags, if you trust that code',
    ),
    Cause(
        r"Safetensor(s_rust|Error)|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
        "a weight file of the source is damaged",
        "compare the checksums of the download, fetch that file again",
    ),
    Cause(
        r"\b507\d{3}\b|\b107\d{3}\b|EZ\d{4}|EE9999|device.*(lost|heartbeat)",
        "an NPU or its runtime failed",
        "npu-smi info; try again, with other devices if one stays ill",
    ),
    Cause(
        r"Permission denied",
        "a folder or file may not be written or read",
        "ls -ld on the path in the line above",
    ),
)
_KILLED = Cause(
    "",
    "it was killed, most likely by the kernel because this machine ran out of memory",
    "dmesg | grep -i 'killed process'; free -g; end what else runs here",
)


def convert(
    tool: Tool, source: Path, folder: Path, environment: Mapping[str, str], log_file: Path
) -> None:
    """Fill an empty folder. Raises ActionError with the last lines and the likely cause."""
    words = msmodelslim_tool.command(tool, source, folder)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    lines: deque[str] = deque(maxlen=_KEPT)

    def heard(line: str) -> None:
        if line.strip():
            lines.append(line)
            if bars.show(line):
                log.say(line)

    def size() -> str:
        count, written = whole.written(folder)
        return f"{count} weight files, {written / 2**30:.1f} GiB written"

    bars = Bars(_BAR_EVERY_S)
    with log.recording(log_file):
        progress = Progress(log.say, _SIGN_EVERY_S, name="msmodelslim")
        progress.step(f"converting; all it says is in {log_file}")
        log.say(msmodelslim_tool.shown(tool, source, folder, environment))
        with progress.watched(size):
            code = run.stream(words, heard, env=environment, cwd=tool.script.parent, redrawn=True)
        log.say(f"msmodelslim: ended with status {code} after {progress.elapsed:.0f} s, {size()}")
    if code:
        raise failure(list(lines), code, log_file)
    wrong = problems(source, folder)
    if wrong:
        raise ActionError(
            f"msmodelslim ended well, but its result is not whole: {'; '.join(wrong)}.",
            where=str(folder),
            todo=f"read {log_file}; the same command again starts the conversion anew",
        )


class Bars:
    """Which lines to show: all, but of a progress bar that is redrawn only now and then."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._shown = float("-inf")

    def show(self, line: str) -> bool:
        """Whether to show this line now. A full bar is always shown."""
        if not _BAR.search(line) or "100%|" in line:
            return True
        if time.monotonic() - self._shown < self._every_s:
            return False
        self._shown = time.monotonic()
        return True


def failure(lines: list[str], code: int, log_file: Path) -> ActionError:
    """The error that says how the tool died."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    shown = "\n".join(f"    {line}" for line in lines[-_SHOWN:])
    cause = likely(lines, code)
    text = f"msmodelslim {how}. Its last lines:\n{shown}"
    if cause:
        text += f"\n  Likely cause: {cause.cause}."
    todo = f"{cause.todo}; then" if cause else f"read {log_file}; then"
    return ActionError(text, todo=f"{todo} the same command again, which starts this step anew")


def likely(lines: Sequence[str], code: int) -> Optional[Cause]:
    """The likely cause: the last line that says something known, else what the exit status says."""
    for line in reversed(lines):
        for cause in _CAUSES:
            if re.search(cause.pattern, line):
                return cause
    return _KILLED if code in (-9, 137) else None


def problems(source: Path, folder: Path) -> list[str]:
    """Why a folder is no conversion of this source; the source may be gone. Empty: it is one.

    Asks for what every result must have, from headers alone, and not for each name and dtype:
    nothing is published about those, and a guess must not refuse what took hours. Those are
    verify_weights.py's business.
    """
    found = whole.problems(folder)
    if found:
        return found
    tensors: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors.update(headers.read_header(shard)[0])
    return [*_scales(tensors), *_layers(tensors, max(layers(source), layers(folder)))]


def layers(folder: Path) -> int:
    """How many layers a checkpoint's config.json counts; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(regular.parsed(folder / "config.json")["num_hidden_layers"])
    return 0


def _scales(tensors: dict[str, Tensor]) -> list[str]:
    """Each int8 matrix needs a scale for each of its rows; and there must be some."""
    matrices = [one for one in tensors.values() if one.dtype == "I8" and len(one.shape) == 2]
    if not matrices:
        return ["no matrix is int8: nothing was quantised"]
    bare = [one.name for one in matrices if _rows(tensors, f"{one.name}_scale") != one.shape[0]]
    if not bare:
        return []
    return [f"{len(bare)} of {len(matrices)} int8 matrices have no scale for each row: {bare[0]}"]


def _rows(tensors: dict[str, Tensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors and tensors[name].shape else 0


def _layers(tensors: dict[str, Tensor], count: int) -> list[str]:
    there = {int(match[1]) for match in map(_LAYER.match, tensors) if match}
    lost = sorted(set(range(count)) - there)
    return [f"of {count} layers these have no tensor: {', '.join(map(str, lost))}"] if lost else []
