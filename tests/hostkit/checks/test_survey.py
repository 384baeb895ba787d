"""What job "survey" says of a host before there is a plan: of this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from hostkit.agent import jobs
from omnikit.config import config
from omnikit.engine import tiny_model
from omnikit.propose import look


def surveyed(**more: Any) -> dict[str, Any]:
    asked = look._parameters(config.load("local", environ={}).settings)
    return jobs.find("survey")({**asked, "container_engine": "docker", **more})


def test_weights_are_found_by_their_folders_name_where_they_lie(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "big" / "Qwen3-8B"
    folder.mkdir(parents=True)
    for name, data in tiny_model.build(0).items():
        (folder / name).write_bytes(data)
    weights = {"paths": ["/no/such"], "names": ["Qwen3-8B"], "roots": [str(tmp_path)]}
    found = surveyed(weights=weights, work_dir=str(tmp_path / "not" / "yet"))
    assert list(found["weights"]) == [str(folder)] and found["changed"] is False
    assert found["weights"][str(folder)]["bytes"] > 0
    assert [str(tmp_path / "not" / "yet"), True] in [[one[0], one[2]] for one in found["disks"]]


def test_ports_that_are_taken_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in surveyed()["ports"]


def test_a_look_that_breaks_is_named_and_the_others_are_made() -> None:
    found = surveyed(device_kind="npu", ranktable={"npu_smi": "/no/npu-smi", "ip": "/no/ip"})
    assert {"network", "devices"} <= {one["of"] for one in found["problems"]}
    assert found["devices"] is None and found["system"]["memory_mib"] > 0
    assert "there is no /no/npu-smi" in str(found["problems"])
