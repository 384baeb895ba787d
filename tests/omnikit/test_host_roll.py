"""The jobs of a rolling restart where nothing is deployed; with servers in test_roll_prefill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omnikit import host_roll
from omnikit.errors import InputError


def deployed(tmp_path: Path, **node: Any) -> dict[str, Any]:
    """Parameters for a host that has one node."""
    (tmp_path / "bundle").mkdir()
    host = {
        "work_dir": str(tmp_path),
        "poll_interval_s": 0.01,
        "grace_s": 1,
        "nodes": [{"name": "c0", "role": "proxy", "servers": [], **node}],
    }
    (tmp_path / "bundle" / "host.json").write_text(json.dumps(host))
    return {"work_dir": str(tmp_path), "node": "c0", "out": ["192.0.2.1:9000"], "seconds": 5}


def test_nothing_deployed_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is deployed here") as caught:
        host_roll.leave_out({"work_dir": str(tmp_path), "node": "c0", "out": []})
    assert "invoke deploy" in str(caught.value.todo)


def test_a_proxy_that_does_not_run_or_cannot_reload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not run here, or is of a kind that cannot reload"):
        host_roll.leave_out(deployed(tmp_path))


def test_servers_that_are_gone_have_no_work(tmp_path: Path) -> None:
    assert host_roll.drain(deployed(tmp_path)) == {"changed": False, "drained": True, "loads": {}}
