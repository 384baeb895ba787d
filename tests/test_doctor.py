"""scripts/doctor.py on logs and on what was never deployed; more in
test_logs_over_ssh."""

from __future__ import annotations

import io
import json
from pathlib import Path

import doctor
import pytest

LOGS = Path(__file__).parent / "facts" / "logs"


def test_a_recorded_log_is_explained(capsys) -> None:
    code = doctor.main(["--log", str(LOGS / "no-space.log"), "--json"])
    [first, *_] = json.loads(capsys.readouterr().out)
    assert code == 1 and first["name"] == "no-space"
    assert "no-space.log:" in first["evidence"][0] and first["remedy"]


def test_a_healthy_log_has_no_finding(capsys) -> None:
    path = next((LOGS / "healthy").iterdir())
    assert doctor.main(["--log", str(path)]) == 0
    assert "no known failure" in capsys.readouterr().out


def test_standard_input_is_read(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("OSError: [Errno 98] Address already in use\n"))
    assert doctor.main(["--log", "-"]) == 1
    assert "what to do:" in capsys.readouterr().out


def test_what_was_never_deployed_does_not_run(tmp_path: Path, capsys) -> None:
    text = (Path(__file__).parent / "environments" / "breadth.yaml").read_text()
    environment = tmp_path / "never.yaml"
    environment.write_text(text.replace("build/test-breadth", str(tmp_path / "work")))
    assert doctor.main(["-e", str(environment), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found["findings"]} == {"not-running"}
    assert "nothing was deployed on this host" in found["findings"][0]["evidence"][0]
    assert any("no request was sent" in note for note in found["notes"])


def test_a_log_that_is_not_there(capsys) -> None:
    assert doctor.main(["--log", "/no/such.log"]) == 2
    assert "the log cannot be read" in capsys.readouterr().err
