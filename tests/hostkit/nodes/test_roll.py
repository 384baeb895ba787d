"""The jobs of a rolling restart where nothing is deployed; with servers in test_roll_prefill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hostkit.base import records
from hostkit.base.errors import InputError
from hostkit.nodes import roll

DRAIN = {"nodes": ["c0"], "keys": ["running", "waiting"], "seconds": 5}


def deployed(tmp_path: Path, **node: Any) -> dict[str, Any]:
    """Parameters for a host that has one node."""
    (tmp_path / "bundle").mkdir()
    host = {
        "work_dir": str(tmp_path),
        "poll_interval_s": 0.01,
        "grace_s": 1,
        "request_timeout_s": 1,
        "log_tail_lines": 1,
        "metrics": {"running": "vllm:running", "waiting": "vllm:waiting", "kv_usage": None},
        "nodes": [{"name": "c0", "role": "proxy", "servers": [], **node}],
    }
    (tmp_path / "bundle" / "host.json").write_text(json.dumps(host))
    return {"work_dir": str(tmp_path), "node": "c0", "out": ["192.0.2.1:9000"], **DRAIN}


def test_nothing_deployed_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is deployed here") as caught:
        roll.leave_out({"work_dir": str(tmp_path), "node": "c0", "out": []})
    assert "invoke deploy" in str(caught.value.todo)


def test_a_proxy_that_does_not_run_or_cannot_reload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not run here, or is of a kind that cannot reload"):
        roll.leave_out(deployed(tmp_path))


def test_servers_that_are_gone_have_no_work(tmp_path: Path) -> None:
    assert roll.drain(deployed(tmp_path)) == {"changed": False, "drained": True, "loads": {}}


def test_a_server_that_lives_but_does_not_answer_may_have_work(tmp_path: Path) -> None:
    server = {"name": "p0", "address": "127.0.0.1", "port": 9, "log": str(tmp_path / "log")}
    server.update(url="http://127.0.0.1:9", health="/health", model="tiny")
    parameters = deployed(tmp_path, servers=[server])
    me = records.identity(os.getpid())
    entry = {"process": me, "state": "ready", "healthy_at": 1.0, "started_at": 1.0, "exit": None}
    record = {"node": "c0", "phase": "ready", "role": "prefill", "supervisor": me}
    record.update(servers=[entry], started_at=1.0, ready_at=1.0)
    records.write_record(tmp_path / "state", record)
    found = roll.drain({**parameters, "seconds": 0.1})
    assert found == {
        "changed": False,
        "drained": False,
        "loads": {"p0": {"running": None, "waiting": None}},
    }
    entry["healthy_at"] = None  # still starting: it never had a request
    records.write_record(tmp_path / "state", record)
    assert roll.drain({**parameters, "seconds": 5})["drained"]
