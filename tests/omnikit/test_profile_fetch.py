"""Traces on this machine as a host: room for them, waiting, and having them in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from omnikit.errors import InputError
from omnikit.profile_fetch import Traces
from omnikit.progress import Progress
from omnikit.topology import make_plan
from settings_file import load

SITE = """
profile: {engine: cpu, model: tiny-qwen2}
hosts: {here: {address: 127.0.0.1, connection: local}}
topology: {colocated: [{hosts: [here]}, {hosts: [here]}]}
profiling: {free_mib: 1, timeout_s: 0.3}
readiness: {poll_interval_s: 0.05}
"""


def traces(folder: Path, *sets: str) -> Traces:
    config = load(folder, SITE, [f"paths.work_dir={folder}/work", *sets])
    plan = make_plan(config)
    return Traces(config, plan, plan.nodes)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name / "rank0.1.pt.trace.json.gz").write_text(name)


def test_waits_until_every_worker_has_written(tmp_path: Path) -> None:
    made = traces(tmp_path)
    made.prepare()
    folder = tmp_path / "work" / "profiles"
    write(folder, "s0")
    assert not made.wait(Progress())
    write(folder, "s1")
    assert made.wait(Progress())
    made.clear()
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_all_traces_come_into_one_folder(tmp_path: Path) -> None:
    made = traces(tmp_path, f"profiling.dir={tmp_path}/elsewhere")
    made.prepare()
    write(tmp_path / "elsewhere", "s0", "s1")
    into = tmp_path / "into"
    into.mkdir()
    made.bring(into)
    found = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    assert found == {f"{name}/rank0.1.pt.trace.json.gz" for name in ("s0", "s1")}
    assert list((tmp_path / "work" / "jobs").glob("omnikit-profile-*")) == []
    made.clear(into)
    assert not into.exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="traces of s0 cannot be written"):
        traces(tmp_path, f"profiling.dir={tmp_path}/file").prepare()
