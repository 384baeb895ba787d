"""Errors in log lines: their kind, and that equal ones are equal."""

from __future__ import annotations

from datetime import datetime

import pytest

from omnikit.logs import errors

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
    assert errors.of_line(line, "server") == (kind, "")


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
    assert errors.of_line(line, "server") is None


def test_a_known_error_has_its_name() -> None:
    line = "OSError: [Errno 28] No space left on device"
    assert errors.of_line(line, "server") == ("no-space", "no-space")


def test_lines_without_a_time_have_that_of_the_line_before() -> None:
    lines = ["INFO 11-23 09:00:00 [a.py:1] x", "ValueError: y", "INFO 11-23 10:00:00 [a.py:1] z"]
    seen, first, last = errors.scan(lines, "server", LATEST)
    assert [(one.line, one.time) for one in seen] == [(2, "2026-11-23T09:00:00")]
    assert (first, last) == ("2026-11-23T09:00:00", "2026-11-23T10:00:00")
    assert errors.scan(lines, "server", LATEST, "2026-11-23T09:30:00")[0] == []


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
    assert errors.source_of(file) == source
