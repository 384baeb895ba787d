"""The data of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
import report_cases
from settings_file import FLEET, load

from omnikit.config import config
from omnikit.prepare import ranktables
from omnikit.report import data as report_data
from omnikit.report import page
from omnikit.report import words as report_notes
from omnikit.report.words import Words
from omnikit.topology.topology import make_plan

pytestmark = pytest.mark.slow

AWAY = """
profile: {engine: cpu, model: tiny-qwen2}
paths: {work_dir: /nowhere}
engine: {venv: null, requirements: null}
model: {path: /nowhere/model}
server: {command: [/bin/true], env: {HF_TOKEN: {variable: OUR_TOKEN}}}
hosts: {away: {address: 127.0.0.1, port: 1}}
topology: {colocated: [{hosts: [away]}]}
"""


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_cases.redirect(monkeypatch, tmp_path)


def said(data: Any) -> list[str]:
    return [report_notes.said(note, Words("en")) for note in data["notes"]]


def test_an_environment_that_was_never_deployed() -> None:
    data = report_data.collect(config.load("2p1d", environ={}), False)
    assert {node["state"] for node in data["status"]["nodes"]} == {"not deployed from here"}
    [note] = said(data)
    assert note == "Nothing was deployed from this machine; no host was asked for its state."
    assert data["timeline"] is None and data["releases"] == [] and data["checks"] == {}
    assert data["ranktable"] == {"hosts": 0, "files": 0, "groups": []}
    json.dumps(data)


def test_one_that_was(tmp_path: Path) -> None:
    loaded = config.load("2p1d", environ={})
    report_cases.fill(loaded, tmp_path)
    data = report_data.collect(loaded, False)
    assert data["timeline"]["seconds"] == 290.0 and data["releases"][0]["number"] == 3
    assert list(data["checks"]) == ["p0", "p1", "d0", "d1"]
    versions = {(one["name"], one["version"]): one["where"] for one in data["versions"]}
    assert versions["NPU driver", "24.1.rc3"] == "check-env: p1, d0, d1"
    assert versions["source", "0123abcd (dirty)"] == "release 3"
    assert versions["omni-infer", "v0.4.1"].startswith("configs/environments/2p1d.yaml:")
    assert "topsecret1" not in json.dumps(data)


def test_the_timeline_is_of_the_last_deployment_and_not_of_a_profile_after_it(
    tmp_path: Path,
) -> None:
    loaded = config.load("2p1d", environ={})
    report_cases.fill(loaded, tmp_path)
    [deployed] = tmp_path.rglob("timelines/*.jsonl")
    later = deployed.with_name("20261125T000000Z.jsonl")
    later.write_text(json.dumps({"kind": "command", "time": 1.0, "what": "profile"}) + "\n")
    assert report_data.collect(loaded, False)["timeline"]["seconds"] == 290.0
    deployed.unlink()
    assert report_data.collect(loaded, False)["timeline"]["command"] == "profile"


@pytest.mark.needs("ssh")
def test_a_host_that_cannot_be_reached_is_a_note(tmp_path: Path) -> None:
    loaded = load(tmp_path, AWAY)
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "inventory.json").write_text("{}")
    data = report_data.collect(loaded, False)
    assert [node["state"] for node in data["status"]["nodes"]] == ["unreachable"]
    first, second = said(data)
    assert first == "case does not serve now: see the state of its servers."
    assert second.startswith("host away: ")


def test_hosts_that_are_away_for_the_same_reason_are_one_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_cases.serving(monkeypatch, mixed=True)
    first, second = said(report_data.collect(config.load("18p1d", environ={}), False))
    assert first.startswith("18p1d does not serve now")
    assert second.startswith("6 hosts cannot be reached: p5, p11, p17, d5, d11, d17. p5: ")


def test_settings_have_default_and_origin_and_no_secret(tmp_path: Path) -> None:
    rows = {one["name"]: one for one in report_data.settings(load(tmp_path, AWAY))}
    assert rows["server.env.HF_TOKEN.variable"]["value"] == "OUR_TOKEN"
    assert rows["profile.engine"]["value"] == "cpu"
    assert rows["paths.work_dir"]["origin"].endswith("case.yaml:3")
    command = AWAY.replace("[/bin/true]", "[/bin/true, --api-key, topsecret1]")
    rows = {one["name"]: one for one in report_data.settings(load(tmp_path, command))}
    assert rows["server.command"]["value"] == "[/bin/true, --api-key, '[redacted]']"
    assert "topsecret1" not in str(rows)


SECRETS = (
    *("vllm_api_key", "db_password", "my_token", "API_KEYS", "DB_CREDENTIAL", "DB_PASS"),
    *("SSL_KEY_PASSPHRASE", "MYSQL_PWD", "SIGNING_KEY", "s3_secret_key"),
)


def test_no_secret_of_the_environment_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "LEAK")
    env = ", ".join(f"{name}: {{variable: OURS}}" for name in SECRETS)
    loaded = load(tmp_path, AWAY.replace("HF_TOKEN: {variable: OUR_TOKEN}", env))
    rows = {one["name"]: one["value"] for one in report_data.settings(loaded)}
    assert [rows[f"server.env.{name}.variable"] for name in SECRETS] == ["OURS"] * len(SECRETS)
    assert "LEAK" not in json.dumps(report_data.collect(loaded, False))


def test_the_rank_table_by_instance(tmp_path: Path) -> None:
    plan = make_plan(load(tmp_path, FLEET))
    ips = {
        host.name: {device: f"10.0.{n}.{device}" for device in range(16)}
        for n, host in enumerate(plan.hosts)
    }
    made = ranktables.planned(ranktables.table_instances(plan.nodes), ips)
    files = ranktables.planned_files(made, ranktables.GLOBAL)
    ranktables.write("case", {host: dict(own) for host, own in files.items()})
    notes: list[Any] = []
    found = report_data.rank_tables(load(tmp_path, FLEET), plan, notes)
    assert found is not None and notes == []
    assert [group["devices"] for group in found["groups"]] == [16, 16, 32]
    assert found["groups"][2]["servers"] == ["192.0.2.3", "192.0.2.4"]
    assert found["groups"][2]["ranks"] == "0-31" and found["hosts"] == 4
    for path in ranktables.folder("case").rglob("*.json"):
        path.write_text("{")
    assert report_data.rank_tables(load(tmp_path, FLEET), plan, notes)["groups"] == []
    assert len(notes) == 1


BENCHMARK = "benchmarks/2026-11-24_00-20-00"
ERROR = {"kind": "k", "name": None, "host": "p0", "count": 1, "first": None, "last": None}


def _text(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda control, _: (control / name).write_text(text) and None


def _folder(name: str) -> Callable[[Path, Path], None]:
    return lambda control, _: (control / name).mkdir()


def _link(name: str) -> Callable[[Path, Path], None]:
    return lambda control, _: (control / name).symlink_to("/nowhere/at/all")


def _log(error: Any) -> Callable[[Path, Path], None]:
    text = json.dumps({"environment": "2p1d", "hosts": {}, "errors": error})

    def damage(_: Path, folder: Path) -> None:
        next((folder / "logs").glob("*/index.json")).write_text(text)

    return damage


DAMAGE = {
    "release that is cut off": _text("releases/3/about.json", '{"time":'),
    "release of nothing": _text("releases/3/about.json", "[]"),
    "release without images": _text("releases/3/about.json", '{"time": "x"}'),
    "release without source": _text("releases/3/about.json", '{"images": {}, "source": null}'),
    "release without file": _folder("releases/4"),
    "checks cut off": _text("checks.json", '{"p0": {'),
    "checks of null": _text("checks.json", '{"p0": null}'),
    "checks of a list": _text("checks.json", '{"p0": [1]}'),
    "checks without facts": _text(
        "checks.json", '{"p0": {"time": "", "checks": [], "facts": null}}'
    ),
    "check without state": _text(
        "checks.json", '{"p0": {"time": "t", "checks": [{"id": "a"}], "facts": {}}}'
    ),
    "benchmark of bytes": _text(f"{BENCHMARK}/result.json", "\x00"),
    "picture that is a link to nothing": _link(f"{BENCHMARK}/x.svg"),
    "picture that is a folder": _folder(f"{BENCHMARK}/x.svg"),
    "result that is a folder": _folder("benchmarks/x.json"),
    "profile of nothing": _text("profiles/2026-11-24_00-30-00/summary.json", "[]"),
    "error without example": _log([{**ERROR, "example": None}]),
    "error with half an example": _log([{**ERROR, "example": {"file": "f"}}]),
    "errors of null": _log(None),
    "timeline cut off": _text("timelines/20261124T000640Z.jsonl", "{}\n{}\n"),
    "timeline with words for times": _text(
        "timelines/20261124T000640Z.jsonl", '{"kind": "command", "time": "x"}\n'
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_left_out_with_a_note(what: str, tmp_path: Path) -> None:
    loaded = config.load("2p1d", environ={})
    report_cases.fill(loaded, tmp_path)
    DAMAGE[what](tmp_path / "2p1d", tmp_path)
    data = report_data.collect(loaded, False)
    assert "<h1>" in page.page(data) and json.dumps(data, allow_nan=False)
    assert [note for note in said(data)[1:] if "left out" in note]


def test_the_newest_whole_timeline_is_shown_where_a_newer_one_is_damaged(tmp_path: Path) -> None:
    loaded = config.load("2p1d", environ={})
    report_cases.fill(loaded, tmp_path)
    (tmp_path / "2p1d" / "timelines" / "20261225T000000Z.jsonl").write_text("no\nno\n")
    data = report_data.collect(loaded, False)
    assert data["timeline"]["seconds"] == 290.0
    assert "20261225T000000Z.jsonl" in said(data)[1]
