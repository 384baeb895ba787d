"""The status table."""

from __future__ import annotations

import pytest
from omnikit import config, status


def server(**more):
    base = {"name": "p0", "state": "ready", "port": 9000, "pid": 7, "uptime_s": 125.0}
    return {**base, "model": "tiny", "running": 1.0, "waiting": 0.0, "kv_usage": 0.25, **more}


def shown(state: str, completion, **more) -> str:
    node = {"node": "p0", "role": "prefill", "host": "h", "state": state}
    node["servers"] = [server(state=state, **more)]
    return status.as_text({"nodes": [node], "url": "http://x:1", "completion": completion})


def test_a_ready_server_has_its_figures() -> None:
    text = shown("ready", {"passed": True, "found": "'abc'"})
    for word in ("p0", "prefill", "9000", "2 min 5 s", "25.0%", "answered 'abc'"):
        assert word in text


def test_a_failed_server_says_why_and_where_its_log_is() -> None:
    text = shown("failed", None, tail=["last words"], log="/l/p0.log")
    assert "p0 failed: last words" in text and "/l/p0.log" in text
    assert "no completion was tried" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (59, "59 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_spans(seconds, text) -> None:
    assert status.span(seconds) == text


def test_what_was_never_deployed_is_stopped(tmp_path) -> None:
    loaded = config.load(
        "tests/environments/single.yaml", assignments=[f"paths.work_dir={tmp_path}"], environ={}
    )
    object.__setattr__(loaded, "environment", "never-deployed")
    found = status.collect(loaded)
    assert not found["ok"] and found["completion"] is None
    assert [node["state"] for node in found["nodes"]] == ["stopped"]
