"""The section "proxy" of the configuration, and proxies, as the tests of the proxy use them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omnikit import proxy

SETTINGS: dict[str, Any] = {
    "kv_params": "nixl",
    "prefill_balance": "least_conn",
    "decode_balance": "least_conn",
    "prefix_load": 1.25,
    "worker_processes": 1,
    "worker_connections": 512,
    "keepalive": 16,
    "retries": 1,
    "max_fails": 3,
    "fail_timeout": "10s",
    "probe_interval": "250ms",
    "probe_timeout": "10s",  # a busy machine is no sick server
    "silence": "10s",
    "stall": "300s",
    "stall_metric": "vllm:iteration_tokens_total_count",
    "kv_safe": "10s",
    "comeback": "answer",
    "connect_timeout": "5s",
    "read_timeout": "60s",
    "client_timeout": "60s",
    "client_connections": 8192,
    "client_requests": 10000,
    "client_half_sent": 512,
    "client_max_body_size": "1m",
    "client_body_buffer_size": "1m",
    "subrequest_output_buffer_size": "64k",
    "large_client_header_buffers": "4 64k",
    "log_level": "warn",
    "nginx": None,
    "modules_dir": None,
    "venv": None,
    "metrics": True,
    "metrics_from": None,
    "tls": {"certificate": None, "key": None, "ca": None, "name": None},
    "paths": {
        "/v1/models": True,
        "/v1/models/*": True,
        "/v1/completions": True,
        "/v1/chat/completions": True,
        "/v1/embeddings": True,
        "/v1/responses": True,
        "/v1/responses/*": True,
        "/v1/messages": True,
        "/v1/load_lora_adapter": False,
    },
}
MODULES = "/usr/lib/nginx/modules"
LOCAL = proxy.ProxySpec(
    kind="nginx-lua",
    listen_host="127.0.0.1",
    listen_port=7000,
    prefill=(("127.0.0.1", 9000), ("127.0.0.1", 9001)),
    decode=(("127.0.0.1", 9102),),
    run_dir="/work/run/c0",
    log_dir="/work/logs/c0",
    settings=SETTINGS,
)
LARGE = replace(
    LOCAL,
    listen_host="::",
    prefill=tuple((f"10.0.0.{i}", 9000 + i) for i in range(18)),
    decode=tuple((f"10.0.1.{host}", 9100 + i) for host in range(18) for i in range(16)),
    settings={
        **SETTINGS,
        "kv_params": "none",
        "prefill_balance": "round_robin",
        "worker_processes": "auto",
        "worker_connections": 102400,
        "keepalive": 2048,
        "read_timeout": "14400s",
        "client_max_body_size": "100m",
        "client_body_buffer_size": "100m",
    },
)
COLOCATED = replace(LOCAL, prefill=(), decode=(("fe80::1", 9200), ("model-host_1", 9201)))
