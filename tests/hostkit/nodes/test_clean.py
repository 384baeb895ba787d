"""Cleaning a host takes away what deployments wrote there, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_cases import a_host, a_node, processes, reaches, record_of

from hostkit.base.errors import InputError
from hostkit.nodes import clean, start_stop


def test_servers_end_and_our_files_go_but_logs_and_other_files_stay(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    (tmp_path / "mine.txt").write_text("mine")
    try:
        start_stop.up(host, {"prefill"})
        assert reaches(host, "p0", "ready")
        record = record_of(host, "p0")
        seen = clean.clean({"work_dir": str(tmp_path), "dry_run": True})
        assert seen["changed"] is False and str(tmp_path / "state") in seen["removed"]
        assert processes(record)
        done = clean.clean({"work_dir": str(tmp_path)})
    finally:
        start_stop.stop(host)
    assert done["stopped"] == {"p0": "stopped"}
    assert not processes(record)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "mine.txt"]


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    a_host(work_dir)
    clean.clean({"work_dir": str(work_dir), "logs": True})
    assert not work_dir.exists()
    assert clean.clean({"work_dir": str(work_dir)})["changed"] is False


def test_a_folder_that_no_deployment_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(InputError, match="left alone"):
        clean.clean({"work_dir": str(tmp_path)})
    assert (tmp_path / "state").is_dir()
