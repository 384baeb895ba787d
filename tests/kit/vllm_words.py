"""Command lines of vLLM, right and wrong, and what its parsers say of the wrong ones."""

from __future__ import annotations

import shlex

from recorded_servers import recorded

# Literally what omni-infer's install guide and its deployment templates run.
LITERAL = {
    "guide, co-located": """
        python3 -m vllm.entrypoints.openai.api_server --host 0.0.0.0 --port 8300
        --model /data/Qwen2.5-0.5B-Instruct --data-parallel-size 1 --tensor-parallel-size 1
        --dtype bfloat16 --max-model-len 4096 --trust_remote_code --gpu_memory_utilization 0.9
        --enforce-eager --block_size 128 --served-model-name qwen
        --distributed-executor-backend mp --max-num-batched-tokens 20000 --max-num-seqs 128""",
}
_RECORDED = recorded("omni-infer-v0.4.1-2p1d")
LITERAL_WORDS = {
    **{name: shlex.split(line) for name, line in LITERAL.items()},
    "recorded, prefill": list(_RECORDED["p0", 9000].argv),
    "recorded, decode": list(_RECORDED["d1", 9116].argv),
}

# Flags added to a good line, and what both parsers say of them.
WRONG = {
    "an unknown flag": (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    "a word for a number": (
        ["--tensor-parallel-size", "abc"],
        "--tensor-parallel-size/-tp: invalid int value: 'abc'",
    ),
    "a port that is none": (["--port", "http"], "argument --port: invalid int value: 'http'"),
    "a number type that is none": (["--dtype", "int9"], "argument --dtype: invalid choice: 'int9'"),
    "JSON cut short": (["--kv-transfer-config", '{"kv_connector":'], "--kv-transfer-config: "),
    "other JSON cut short": (["--speculative-config", '{"method":'], "argument --speculative-conf"),
    "a wrong key": (["--kv-transfer-config", '{"kv_rol": "kv_both"}'], "kv_rol"),
    "a wrong role": (
        ["--kv-transfer-config", '{"kv_connector": "X", "kv_role": "kv_prefill"}'],
        "--kv-transfer-config: ",
    ),
}
ONLY = {
    "ascend": [["--disable-log-requests"], ["--task", "generate"], ["--swap-space", "4"]],
    "cpu": [["--kv-cache-memory-bytes", "67108864"], ["--enable-log-requests"]],
}
