"""The catalogue of known failures, each entry against a log with that failure."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.loader import FilesystemLoader

from omnikit.fleet import causes

LOGS = Path(__file__).resolve().parents[2] / "facts" / "logs"
NAMES = [entry.name for entry in causes.catalogue()]


def lines_of(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_first_match_of_each_log_is_its_own_entry(name: str) -> None:
    path = LOGS / f"{name}.log"
    assert path.is_file(), f"record a log with this failure: {path}"
    found = causes.matches(lines_of(path))
    assert [match.cause.name for match in found][:1] == [name]
    assert re.search(causes.entry(name).pattern, found[0].line)
    assert lines_of(path)[found[0].index] == found[0].line


def test_every_log_belongs_to_an_entry_and_is_told_of_in_the_readme() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(NAMES)
    told = re.findall(r"[a-z][a-z-]+[a-z]", (LOGS / "README.md").read_text())
    assert [name for name in NAMES if told.count(name) != 1] == []


def test_entries_are_unique_and_complete() -> None:
    assert len(NAMES) == len(set(NAMES))
    for entry in causes.catalogue():
        assert entry.cause.endswith("."), entry.name
        assert entry.remedy and "\n" not in entry.remedy, entry.name
        assert set(entry.where) <= set(causes.SOURCES), entry.name


@pytest.mark.parametrize("path", sorted((LOGS / "healthy").iterdir()), ids=lambda p: p.name)
def test_a_healthy_log_has_no_cause(path: Path) -> None:
    assert causes.matches(lines_of(path)) == []


def test_tasks_named_in_remedies_exist() -> None:
    root = Path(__file__).resolve().parents[3]
    known = Collection.from_module(FilesystemLoader(start=str(root)).load("tasks")[0]).tasks
    for entry in causes.catalogue():
        for task in re.findall(r"\binvoke ([a-z-]+)", entry.remedy):
            assert task in known, f"{entry.name}: invoke {task}"


def test_where_rules_out_other_sources() -> None:
    line = "p1 is planned but does not run"
    assert causes.likely_cause([line], "server") is None
    found = causes.likely_cause([line], "status")
    assert found is not None and found.name == "not-running"
    assert causes.of_line(line) == found
    assert causes.of_line(line, "proxy") is None


def test_ordinary_lines_have_no_cause() -> None:
    assert causes.likely_cause(["INFO: Started server process", "INFO: 200 OK"]) is None


def test_describe_shows_the_dying_servers_lines_cause_and_remedy() -> None:
    said = "api_server.py: error: unrecognized arguments: --no-such-flag"
    node = {
        "node": "p0",
        "reason": None,
        "servers": [{"name": "p0", "state": "failed", "exit": 2, "log": "/l", "tail": [said]}],
    }
    text = causes.describe(node, 15)
    assert "p0 ended with exit status 2" in text
    assert "--no-such-flag" in text
    assert "Likely cause: The engine does not accept one of its flags." in text
    assert "What to do: correct server.args" in text


def test_describe_of_a_missed_deadline() -> None:
    node = {
        "node": "d0",
        "reason": "not ready within 3 s",
        "servers": [
            {"name": "d0", "state": "failed", "exit": -15, "log": "/l", "tail": ["INFO loading"]}
        ],
    }
    text = causes.describe(node, 15)
    assert "d0 not ready within 3 s" in text and "readiness.deadline_s" in text


def test_describe_of_a_killed_server() -> None:
    server = {"name": "d0", "state": "failed", "exit": -9, "log": "/l", "tail": []}
    text = causes.describe({"node": "d0", "reason": None, "servers": [server]}, 15)
    assert "memory ran out" in text


LATEST = datetime(2026, 11, 23, 12, 0, 0)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ERROR 11-23 09:58:33 [core.py:12] Request cmpl-12ab failed", "Request ID failed"),
        ("2026/11/23 09:59:22 [error] 12#12: *3 no idea of 10.0.0.1:80", "no idea of ADDRESS"),
        (
            "(EngineCore pid=77) vllm.StrangeError: block 17 is gone",
            "StrangeError: block N is gone",
        ),
        ("ValueError", "ValueError"),
    ],
)
def test_an_unknown_error_has_its_words_without_what_varies(line: str, kind: str) -> None:
    assert causes.kind_of(line, "server") == (kind, "")


@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-23 09:58:33 [core.py:12] no error here: ValueError is a word",
        '  File "x.py", line 3, in f',
        "Traceback (most recent call last):",
        "",
    ],
)
def test_ordinary_lines_are_no_errors(line: str) -> None:
    assert causes.kind_of(line, "server") is None


def test_a_known_error_has_its_name() -> None:
    line = "OSError: [Errno 28] No space left on device"
    assert causes.kind_of(line, "server") == ("no-space", "no-space")


def test_lines_without_a_time_have_that_of_the_line_before() -> None:
    lines = ["INFO 11-23 09:00:00 [a.py:1] x", "ValueError: y", "INFO 11-23 10:00:00 [a.py:1] z"]
    seen, first, last = causes.scan(lines, "server", LATEST)
    assert [(one.line, one.time) for one in seen] == [(2, "2026-11-23T09:00:00")]
    assert (first, last) == ("2026-11-23T09:00:00", "2026-11-23T10:00:00")
    assert causes.scan(lines, "server", LATEST, "2026-11-23T09:30:00")[0] == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("c0/error.log", "proxy"),
        ("c0/nginx_error.log", "proxy"),
        ("p0/launcher.log", "launcher"),
        ("p0/server_1.log", "server"),
    ],
)
def test_a_file_tells_whose_log_it_is(file: str, source: str) -> None:
    assert causes.source_of(file) == source
