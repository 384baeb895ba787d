"""Why msmodelslim ended, from its last lines and its exit status. Pure.

configs/failures.yaml is about servers: the same line has another remedy there.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Sequence


class Cause(NamedTuple):
    """What a line means, and what to do."""

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


def likely(lines: Sequence[str], code: int) -> Optional[Cause]:
    """The likely cause: the last line that says something known, else what the exit status says."""
    for line in reversed(lines):
        for cause in _CAUSES:
            if re.search(cause.pattern, line):
                return cause
    return _KILLED if code in (-9, 137) else None
