"""What a command leaves behind when it ends well, fails, or is interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omnikit import deploy_record, timeline_records, who
from omnikit.deploy import Options
from omnikit.errors import ActionError


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control folder of the test's own."""
    for module in (deploy_record, timeline_records, who):
        monkeypatch.setattr(module, "control_folder", lambda name: tmp_path / name)


def files() -> list[str]:
    return sorted(path.suffix for path in timeline_records.folder("site").iterdir())


def test_lines_text_and_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with deploy_record.recorded("site", "deploy", Options()) as progress:
        with progress.timeline.step("set up"):
            progress.say("hello")
        progress.timeline.write("result", ready=True)
    record = timeline_records.find("site")
    assert (record.result, record.spans[0].step) == ("ok", "set up")
    assert files() == [".json", ".jsonl", ".log"]
    trace = json.loads(record.path.with_suffix(".trace.json").read_text())
    assert [e["name"] for e in trace["traceEvents"] if e["ph"] == "X"] == ["set up"]


@pytest.mark.parametrize(
    ("error", "said"), [(ActionError("p0 died"), "p0 died"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_failure_is_kept_with_its_trace(error: BaseException, said: str) -> None:
    with pytest.raises(type(error)), deploy_record.recorded("site", "deploy", Options()):
        raise error
    record = timeline_records.find("site")
    assert (record.result, record.error) == ("failed", said)
    assert files() == [".json", ".jsonl", ".log"]
