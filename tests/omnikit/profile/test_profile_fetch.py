"""Traces on this machine as a host: room for them, waiting, and having them in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, load, plan

from hostkit.base.errors import ActionError, InputError
from omnikit.plan.types import NodePlan
from omnikit.profile.recording import Traces, Unread, coming
from omnikit.timeline.progress import Progress
from omnikit.topology.topology import make_plan

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
    assert made.clear() == []
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
    assert made.clear() == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_servers_that_will_not_write_are_not_waited_for(tmp_path: Path) -> None:
    nodes = plan(tmp_path, FLEET).nodes
    assert coming(nodes, ()) == dict.fromkeys(("p0", "p1", "d0", "d1"), 16)
    assert coming(nodes, ["p1", "d0.0", "d0.3"]) == {"p0": 16, "p1": 0, "d0": 14, "d1": 16}
    made = traces(tmp_path)
    made.prepare()
    write(tmp_path / "work" / "profiles", "s1")
    assert made.wait(Progress(), ["s0"])


def test_a_host_that_lends_its_devices_writes_with_its_instance(tmp_path: Path) -> None:
    text = FLEET.replace("[{hosts: [p0]}, {hosts: [p1]}]", "[{hosts: [p0, p1]}]")
    nodes: tuple[NodePlan, ...] = plan(tmp_path, text).nodes
    assert coming(nodes, ["p0"])["p1"] == 0 == coming(nodes, ["p0"])["p0"]


def test_traces_that_cannot_be_looked_at_stay_and_their_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = traces(tmp_path)

    def do(_: str) -> None:
        raise ActionError("the traces cannot be read as user 7.", todo="read them as root")

    monkeypatch.setattr(made, "_do", do)
    with pytest.raises(
        Unread, match=f"stay where they are: here: {tmp_path}/work/profiles/s0"
    ) as e:
        made.wait(Progress())
    assert "as user 7" in str(e.value) and "as root" in str(e.value)


def test_a_folder_here_that_takes_no_traces_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = traces(tmp_path)
    monkeypatch.setattr(made, "_do", lambda *_: {"here": {"path": "/x", "sha256": "0"}})
    (tmp_path / "file").write_text("")
    with pytest.raises(ActionError, match="host here: Not a directory") as raised:
        made.bring(tmp_path / "file" / "traces")
    assert "still on the hosts" in str(raised.value) and "df -h" in str(raised.value)


def test_an_archive_of_traces_that_cannot_be_unpacked_is_not_called_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = traces(tmp_path)
    monkeypatch.setattr(made, "_do", lambda *_: {"here": {"path": "/x", "sha256": "0"}})
    monkeypatch.setattr("omnikit.logs.fetch.bring", lambda *_: {})
    archive = tmp_path / "into" / "here.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"damaged")
    with pytest.raises(ActionError, match="host here: the archive cannot be unpacked") as raised:
        made.bring(archive.parent)
    assert "fetch-logs" not in str(raised.value) and not archive.exists()
    assert "still on the hosts" in str(raised.value)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="traces of s0 cannot be written"):
        traces(tmp_path, f"profiling.dir={tmp_path}/file").prepare()
