"""The summary of fetched logs."""

from __future__ import annotations

from omnikit.fleet import causes
from omnikit.fleet.causes import Seen
from omnikit.logs.fetch import Errors, as_text, size

FILE = {
    "path": "p0/server_0.log",
    "bytes": 2048,
    "cut_bytes": 1 << 20,
    "redacted_lines": 2,
    "first": "2026-11-23T09:00:00",
    "last": None,
}


def index(errors: Errors) -> dict[str, object]:
    hosts = {
        "h0": {"files": [FILE], "left_out": [{"path": "/l/core", "why": "not text"}]},
        "h1": {"error": "host h1: cannot be reached", "files": [], "left_out": []},
    }
    about = {"environment": "2p1d", "fetched_at": "now", "since": "2h"}
    return {**about, "hosts": hosts, "errors": errors.as_data()}


def test_errors_are_counted_by_kind_and_host_the_known_ones_first() -> None:
    errors = Errors()
    errors.add("h0", "p0/a.log", [Seen("odd N", "", 3, "odd 7", "2026-11-23T08:00:00")])
    full = [
        Seen("no-space", "no-space", n, "No space left", f"2026-11-23T09:0{n}:00") for n in (2, 1)
    ]
    errors.add("h0", "p0/a.log", full)
    errors.add("h1", "d0/b.log", full[:1])
    kinds = [(one["kind"], one["host"], one["count"]) for one in errors.as_data()]
    assert kinds == [("no-space", "h0", 2), ("no-space", "h1", 1), ("odd N", "h0", 1)]
    assert errors.as_data()[0]["example"]["line"] == 1  # the first in time
    text = as_text(index(errors))
    assert "errors by kind (2)" in text
    assert f"no-space: {causes.entry('no-space').cause}" in text and "what to do: " in text
    assert "p0/a.log:1: No space left" in text


def test_the_text_names_hosts_that_failed_and_what_was_left_out() -> None:
    text = as_text(index(Errors()))
    assert text.startswith("logs of 2p1d, fetched now, of the last 2h")
    assert "NOT FETCHED from h1: host h1: cannot be reached" in text
    assert "its first 1.0 MiB were left out; 2 lines with secrets redacted" in text
    assert "left out on h0 (not text): /l/core" in text
    assert "no errors were found" in text


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
