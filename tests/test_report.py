"""scripts/report.py on environments of this machine and behind a closed port."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report as write_report
import report_cases

from omnikit.checks import report
from omnikit.report import data

HERE = """
profile: {engine: cpu, model: tiny-qwen2}
paths: {work_dir: WORK}
engine: {venv: null, requirements: null}
server: {command: [python3, x], args: {api-key: {variable: REPORT_KEY}}}
checks: {write_mib_s: 0, free_mib: {log: 1, code: 1}}
hosts: {HOST}
topology: {prefill: [{hosts: [here]}], decode: [{hosts: [here]}], proxy: here}
"""
LOCAL = "here: {address: 127.0.0.1, connection: local}"
AWAY = "here: {address: 127.0.0.1, port: 1}"


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_cases.redirect(monkeypatch, tmp_path)
    monkeypatch.setenv("REPORT_KEY", "topsecret1")


def environment(folder: Path, host: str = LOCAL) -> list[str]:
    path = folder / "site.yaml"
    work = folder / "work"
    path.write_text(HERE.replace("WORK", str(work)).replace("HOST", host))
    if host == AWAY:
        path.write_text(path.read_text() + "model: {path: /nowhere}\n")
    return ["-e", str(path), "--out", str(folder / "out" / "r.html")]


def test_a_report_is_written_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_report.main(environment(tmp_path)) == 0
    said = capsys.readouterr()
    assert "report of site: " in said.out and "r.html" in said.out and "KiB" in said.out
    assert "note: Nothing was deployed from this machine" in said.err
    assert "asking the hosts" not in said.err
    text = (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    assert "<h1>Report of site</h1>" in text and "topsecret1" not in text
    assert write_report.main([*environment(tmp_path), "--language", "zh"]) == 0
    assert "site 环境报告" in (tmp_path / "out" / "r.html").read_text(encoding="utf-8")


@pytest.mark.needs("ssh")
def test_a_host_that_is_away_is_a_note_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = environment(tmp_path, AWAY)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "inventory.json").write_text("{}")
    assert write_report.main(words) == 0
    assert "note: site does not serve now" in (said := capsys.readouterr().err)
    assert "note: host here: " in said and "asking the hosts" in said
    assert "unreachable" in (tmp_path / "out" / "r.html").read_text(encoding="utf-8")


def test_fresh_checks_are_in_it_and_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_report.main([*environment(tmp_path), "--check"]) == 0
    assert "checking 1 host of site" in capsys.readouterr().err
    assert len(report.last("site")["here"]["checks"]) > 10
    assert "What is not ok" in (tmp_path / "out" / "r.html").read_text(encoding="utf-8")


def test_a_dry_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_report.main([*environment(tmp_path), "--dry-run", "--check"]) == 0
    said = capsys.readouterr().out
    assert "would ask here" in said and "would check here" in said and "would write " in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "site").exists()


def test_the_data_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = environment(tmp_path)
    assert write_report.main([*words[:2], "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["environment"] == "site" and "topsecret1" not in said
    assert write_report.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) and (tmp_path / "out" / "r.html").is_file()


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_report.main(["-e", "no-such"]) == 2
    assert "there is no environment named 'no-such'" in capsys.readouterr().err
    (tmp_path / "out").write_text("a file")
    assert write_report.main(environment(tmp_path)) == 2
    assert "out is a file, no folder" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["", ".", "/", "/dev/stdout"])
def test_a_wrong_target_is_named_before_any_host_is_asked(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "collect", None)
    assert write_report.main([*environment(tmp_path)[:2], f"--out={out}"]) == 2
    assert "What to do: name a file" in capsys.readouterr().err
    assert Path("/dev/stdout").is_symlink()


def test_no_secret_of_the_environment_is_in_page_or_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("vllm_api_key", "db_password", "my_token", "API_KEYS", "DB_CREDENTIAL", "MYSQL_PWD")
    given = [word for name in names for word in ("--set", f"server.env.{name}={{variable: OURS}}")]
    monkeypatch.setenv("OURS", "LEAK")
    assert write_report.main([*environment(tmp_path), *given, "--json"]) == 0
    page = (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, page):
        assert "LEAK" not in text and "server.env.vllm_api_key" in text
