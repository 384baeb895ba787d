"""What a client sends, it cannot make the proxy's log grow by more than a few kB a request."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from running_proxy import backend, nginx, start

# Real processes, seconds together.
pytestmark = pytest.mark.slow

__all__ = ["backend", "nginx", "start"]
LONG = "a" * 60_000


@pytest.mark.parametrize(
    "head",
    [
        f"POST /v1/completions HTTP/1.1\r\nX-Request-Id: {LONG}",
        f"POST /v1/{LONG} HTTP/1.1\r\nX-Other: 1",
        f"{LONG.upper()} /v1/completions HTTP/1.1\r\nX-Other: 1",
        f"POST /v1/completions?{LONG} HTTP/1.1\r\nUser-Agent: {LONG}\r\nReferer: {LONG}",
        f"POST /v1/{'%1b' * 20_000} HTTP/1.1\r\nX-Other: 1",
    ],
    ids=["request id", "path", "method", "query and agent", "encoded path"],
)
def test_a_line_of_the_log_stays_short(start, backend, head: str) -> None:
    running = start([backend("prefill")], [backend("decode")])
    body = json.dumps({"prompt": "x"})
    sent = (
        f"{head}\r\nHost: proxy\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    with socket.create_connection(("127.0.0.1", running.spec.listen_port), timeout=60) as client:
        client.sendall(sent.encode())
        while client.recv(65536):
            pass
    running.access(1)
    logs = list(Path(running.spec.log_dir).iterdir())
    lines = [line for log in logs for line in log.read_bytes().splitlines()]
    assert any(b"/v1/" in line for line in lines)
    assert max(map(len, lines)) < 10_000
