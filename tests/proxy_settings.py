"""The section "proxy" of the configuration as the tests of the proxy use it."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "kv_params": "nixl",
    "prefill_balance": "least_conn",
    "decode_balance": "least_conn",
    "worker_processes": 1,
    "worker_connections": 512,
    "keepalive": 16,
    "max_fails": 3,
    "fail_timeout": "10s",
    "connect_timeout": "5s",
    "read_timeout": "60s",
    "client_max_body_size": "1m",
    "client_body_buffer_size": "1m",
    "subrequest_output_buffer_size": "64k",
    "large_client_header_buffers": "4 64k",
    "log_level": "warn",
    "nginx": None,
    "modules_dir": None,
    "venv": None,
    "metrics": True,
}
