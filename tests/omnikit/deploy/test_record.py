"""What a command leaves behind when it ends well, fails, or is interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.deploy import record as deploy_record
from omnikit.deploy.deploy import Options
from omnikit.fleet import identity
from omnikit.timeline import records


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control folder of the test's own."""
    for module in (deploy_record, records, identity):
        monkeypatch.setattr(module, "control_folder", lambda name: tmp_path / name)


def files() -> list[str]:
    return sorted(path.suffix for path in records.folder("site").iterdir())


def test_lines_text_and_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with deploy_record.recorded("site", "deploy", Options()) as progress:
        with progress.timeline.step("set up"):
            progress.say("hello")
        progress.timeline.write("result", ready=True)
    record = records.find("site")
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
    record = records.find("site")
    assert (record.result, record.error) == ("failed", said)
    assert files() == [".json", ".jsonl", ".log"]


def audit(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "site" / "audit.jsonl").read_text().splitlines()
    return [json.loads(line)["result"] for line in lines]


def test_who_is_refused_by_the_lock_leaves_only_a_line_in_the_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with deploy_record.recorded("site", "deploy", Options()) as progress:
        capsys.readouterr()
        second = deploy_record.recorded("site", "rollback", Options(as_json=True))
        with pytest.raises(ActionError, match="is under way"), second:
            pytest.fail("it has no lock")
        progress.timeline.write("result", ready=True)
    [record] = records.all_of("site")[0]
    assert (record.what, record.result) == ("deploy", "ok")
    assert files() == [".json", ".jsonl", ".log"]
    kinds = [json.loads(line)["kind"] for line in record.path.read_text().splitlines()]
    assert kinds == ["command", "result"]  # also where both began within one second
    refused, done = audit(tmp_path)
    assert refused.startswith("failed: deploy of site is under way") and done == "ok"
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["kind"] for one in told] == ["command", "failed"] and told[1]["exit_code"] == 1


def test_the_lock_of_a_host_refuses_too_and_does_not_hide_the_last_deployment() -> None:
    with deploy_record.recorded("site", "deploy", Options()) as progress:
        progress.timeline.write("result", ready=True)
    good = records.find("site").name
    with pytest.raises(InputError), deploy_record.recorded("site", "deploy", Options()):
        raise deploy_record.Refused("bob@other:/opt is changing this host.")
    assert records.find("site").name == good
    assert [one.result for one in records.all_of("site")[0]] == ["refused", "ok"]


def test_commands_of_one_second_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy_record.time, "strftime", lambda *_: "20261124T000640Z")
    for number in (1, 2, 3):
        with deploy_record.recorded("site", f"deploy {number}", Options()) as progress:
            progress.timeline.write("result", ready=True)
    found = [(one.name, one.what) for one in records.all_of("site")[0]]
    assert found == [
        ("20261124T000640Z_03", "deploy 3"),
        ("20261124T000640Z_02", "deploy 2"),
        ("20261124T000640Z", "deploy 1"),
    ]
    assert records.find("site", "20261124T000640Z").what == "deploy 1"


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("a bug"), "RuntimeError: a bug"), (SystemExit(3), "SystemExit: 3")],
)
def test_an_error_that_is_none_of_ours_is_a_failure_with_its_kind(
    error: BaseException, said: str
) -> None:
    with pytest.raises(type(error)), deploy_record.recorded("site", "deploy", Options()):
        raise error
    record = records.find("site")
    assert (record.result, record.error) == ("failed", said)
    assert f"error: {said}\n" in record.path.with_suffix(".log").read_text()


def test_a_full_disk_does_not_hide_why_the_command_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write_beside", full)
    monkeypatch.setattr(identity.lock, "audit", full)
    run = deploy_record.recorded("site", "deploy", Options())
    with pytest.raises(ActionError, match="p0 died"), run as progress:
        monkeypatch.setattr(progress.timeline, "write", lambda *_, **__: full())
        raise ActionError("p0 died")
    said = capsys.readouterr().err
    assert "warning: how it ended could not be written down: [Errno 28] No space" in said
    assert "warning: the trace could not be written down" in said
    assert "warning: the audit in " in said
