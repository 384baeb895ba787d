"""What a profile leaves: traces that come although something else failed, files whole or not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from needs import needs

from hostkit.base.errors import ActionError
from omnikit.profile import recording, summary
from omnikit.profile.recording import Traces
from omnikit.timeline.progress import Progress

SUMS = {"operators": [{"name": "mm", "self_ms": 1.0, "communication": False}]}
SUMMARY: dict[str, Any] = {"instances": [], "roles": {"prefill": SUMS}, "faults": []}


class Fetched(Traces):
    """Traces on a host."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.done: list[str] = []

    def bring(self, into: Path) -> None:
        self.done.append(into.name)
        if self.error:
            raise ActionError(self.error)

    def clear(self) -> list[str]:
        self.done.append("clear")
        return ["h0: /profiles/d0/x_ascend_pt"]


def test_traces_come_also_when_what_ran_before_is_not_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    not_back = ActionError("what ran before is not back: no", todo="invoke deploy")
    fine = Fetched()
    fine.have(tmp_path, not_back, Progress())
    assert fine.done == ["traces", "clear"]
    said = capsys.readouterr().err
    assert "is not back; the traces come all the same" in said
    assert "not removed from the hosts" in said and "h0: /profiles/d0/x_ascend_pt" in said
    bad = Fetched("the disk is full")
    with pytest.raises(ActionError, match="the disk is full\nwhat ran before is not back") as e:
        bad.have(tmp_path, not_back, Progress())
    assert "invoke deploy" in str(e.value) and bad.done == ["traces"]  # they stay on the hosts


def test_a_failed_recording_leaves_nothing_but_good_traces(tmp_path: Path) -> None:
    for keep, done in ((False, ["clear"]), (True, [])):
        into = tmp_path / "new"
        into.mkdir()
        traces = Fetched()
        recording.give_up(traces, into, Progress(), keep=keep)
        assert traces.done == done and not into.exists()


def test_summary_and_picture_are_kept(tmp_path: Path) -> None:
    summary.keep(tmp_path, SUMMARY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.json", "summary.svg"]


def test_a_full_disk_is_said_and_no_file_is_torn(tmp_path: Path) -> None:
    needs("mount", root=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "omnikit-test", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        with pytest.raises(ActionError, match="cannot be kept: No space left") as raised:
            summary.keep(tmp_path, SUMMARY)
        assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert f"df -h {tmp_path}" in str(raised.value) and "--out DIR" in str(raised.value)
