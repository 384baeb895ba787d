"""What the tool's last lines mean."""

from __future__ import annotations

import pytest

from omnikit.weights.msmodelslim.run import likely

LINES = {
    "RuntimeError: NPU out of memory. Tried to allocate 3.50 GiB": "too little free memory (64",
    "OSError: [Errno 28] No space left on device": "the disk is full",
    "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory": "this machine",
    "ImportError: This modeling file requires the following packages that were not found in your"
    " environment: flash_attn. Run `pip install flash_attn`": "still wants flash_attn",
    "AttributeError: 'NoneType' object has no attribute 'get'": "this version of transformers",
    "ImportError: libascendcl.so: cannot open shared object file": "does not fit torch or CANN",
    "ModuleNotFoundError: No module named 'torch_npu'": "does not fit torch or CANN",
    "ModuleNotFoundError: No module named 'msmodelslim.pytorch'": "a package is missing",
    "quant.py: error: unrecognized arguments: --cloud_vllm": "knows other options",
    "ValueError: Please pass the argument `trust_remote_code=True`": "only when told to",
    "safetensors_rust.SafetensorError: Error while deserializing header": "is damaged",
    "RuntimeError: ACL stream synchronize failed, error code:507018": "an NPU or its runtime",
    "PermissionError: [Errno 13] Permission denied: '/data/x'": "may not be written or read",
}


@pytest.mark.parametrize("line, said", LINES.items(), ids=LINES.values())
def test_each_known_line_has_a_cause_and_a_remedy(line: str, said: str) -> None:
    cause = likely(["Traceback (most recent call last):", line, "  "], 1)
    assert cause is not None and said in cause.cause and cause.todo


def test_the_last_line_counts_and_the_exit_status_where_no_line_does() -> None:
    cause = likely(["No space left on device", "NPU out of memory"], 1)
    assert cause is not None and "NPU" in cause.cause
    killed = likely(["all is well"], -9)
    assert killed is not None and "dmesg" in killed.todo
    assert likely(["all is well"], 1) is None
