"""The status table."""

from __future__ import annotations

import pytest

from omnikit.config import config
from omnikit.deploy import status


def server(**more):
    base = {"name": "p0", "state": "ready", "port": 9000, "pid": 7, "uptime_s": 125.0}
    return {**base, "model": "tiny", "running": 1.0, "waiting": 0.0, "kv_usage": 0.25, **more}


def shown(state: str, completion, node=None, **more) -> str:
    node = {"node": "p0", "role": "prefill", "host": "h", "state": state, **(node or {})}
    node["servers"] = [server(state=state, **more)]
    found = {"nodes": [node], "url": "http://x:1", "completion": completion, "asked": True}
    return status.as_text(found)


def test_a_ready_server_has_its_figures() -> None:
    text = shown("ready", {"passed": True, "found": "'abc'"})
    for word in ("p0", "prefill", "9000", "2 min 5 s", "25.0%", "answered 'abc'"):
        assert word in text


def test_a_failed_server_says_why_and_where_its_log_is() -> None:
    text = shown("failed", None, tail=["last words"], log="/l/p0.log")
    assert "p0 failed: last words" in text and "/l/p0.log" in text
    assert "no completion was tried" in text


def test_what_was_started_again_or_waits_for_it_is_said() -> None:
    again = {"count": 1, "at": 0.0, "why": "p0 ended with exit status -9"}
    text = shown("ready", {"passed": True, "found": ""}, {"restarts": again})
    assert "p0 was started again once by itself" in text and "exit status -9" in text
    text = shown("failed", None, {"reason": "crash loop: p0 ended"}, tail=["x"], log="/l")
    assert "p0 failed: crash loop: p0 ended" in text


def test_kv_that_an_idle_server_keeps_is_said() -> None:
    assert status.keeps_kv(server(running=0.0), 0.01)
    assert not status.keeps_kv(server(running=0.0, kv_usage=0.0), 0.01)
    assert not status.keeps_kv(server(running=0.0, waiting=1.0), 0.01)
    assert not status.keeps_kv(server(running=None), 0.01)  # it does not tell
    text = shown("ready", {"passed": True, "found": ""}, running=0.0, keeps_kv=True)
    assert "p0 keeps KV (25.0%) and has no request." in text and "invoke doctor" in text
    assert "keeps KV" not in shown("ready", {"passed": True, "found": ""}, keeps_kv=False)


def test_a_node_of_which_no_server_is_known_says_why() -> None:
    node = {"node": "p0", "role": "prefill", "host": "h", "state": "failed", "servers": []}
    node["reason"] = "the record of p0 cannot be read: it is no record"
    found = {"nodes": [node], "url": "http://x:1", "completion": None, "asked": True}
    text = status.as_text(found)
    assert "p0 failed: the record of p0 cannot be read" in text


def test_a_server_that_the_proxy_does_without_is_said() -> None:
    text = shown("ready", {"passed": True, "found": ""}, in_pool=False)
    assert "ready, not in the pool" in text
    assert "p0 gets no requests: the proxy took it out of its pool." in text
    assert "pool" not in shown("ready", {"passed": True, "found": ""}, in_pool=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (59, "59 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_spans(seconds, text) -> None:
    assert status.span(seconds) == text


def never_deployed(tmp_path):
    loaded = config.load(
        "tests/environments/single.yaml", assignments=[f"paths.work_dir={tmp_path}"], environ={}
    )
    object.__setattr__(loaded, "environment", "never-deployed")
    return loaded


def test_where_nothing_was_deployed_from_here_nothing_is_known(tmp_path) -> None:
    found = status.collect(never_deployed(tmp_path))
    assert not found["ok"] and not found["asked"] and found["completion"] is None
    assert [node["state"] for node in found["nodes"]] == [status.NOT_DEPLOYED]
    text = status.as_text(found)
    assert "no host was asked" in text and "stopped" not in text
    assert "invoke deploy -e never-deployed" in text


def test_a_host_without_anything_is_stopped(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(status.layers, "control_folder", lambda _: tmp_path)
    (tmp_path / "inventory.json").write_text("{}")
    found = status.collect(never_deployed(tmp_path))
    assert found["asked"] and [node["state"] for node in found["nodes"]] == ["stopped"]
