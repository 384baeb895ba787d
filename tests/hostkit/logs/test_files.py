"""Which log files there are, and what is copied of one."""

from __future__ import annotations

import io
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from hostkit.base.redact import Redactor
from hostkit.logs.files import copy, folders, listing, stamp


def copied(path: Path, since_s: float | None = None, max_bytes: int | None = None) -> str:
    [file] = listing({"p0": path.parent}, None)[0]
    into = io.BytesIO()
    copy(file, into, Redactor(), since_s, max_bytes)
    return into.getvalue().decode()


def test_folders_of_what_was_deployed_come_before_those_that_are_planned() -> None:
    deployed = {"nodes": [{"name": "p0", "log_dir": "/data/was"}]}
    planned = {"p0": "/data/new", "d0": "/data/d"}
    found = folders(deployed, planned, None)
    assert found == {"p0": Path("/data/was"), "d0": Path("/data/d")}
    assert list(folders(deployed, planned, ["d0"])) == ["d0"]


def test_links_pipes_and_what_is_no_text_are_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "server_0.log").write_text("hello\n")
    (tmp_path / "core").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "shadow").symlink_to("/etc/shadow")
    (tmp_path / "away").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    found, left = listing({"p0": tmp_path, "d0": tmp_path / "none"}, None)
    assert [file.inside for file in found] == ["server_0.log"]
    why = {Path(one["path"]).name: one["why"] for one in left}
    assert why == {
        "core": "not text",
        "shadow": "a link",
        "away": "a link",
        "pipe": "not a file",
        "none": "there is no such folder",
    }


def test_a_folder_in_another_belongs_to_its_own_instance(tmp_path: Path) -> None:
    (tmp_path / "p0").mkdir()
    (tmp_path / "p0" / "server_0.log").write_text("x\n")
    (tmp_path / "all.log").write_text("x\n")
    found, _ = listing({"c0": tmp_path, "p0": tmp_path / "p0"}, None)
    assert [(f.instance, f.inside) for f in found] == [("c0", "all.log"), ("p0", "server_0.log")]


def test_old_files_are_left_out_when_a_time_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "old.log"
    path.write_text("x\n")
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert listing({"p0": tmp_path}, 3600)[0] == []


def test_a_large_file_loses_its_front_at_a_line_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number:04}\n" for number in range(100)))
    lines = copied(path, max_bytes=25).splitlines()
    assert lines == [
        "[omnikit: the first 980 of 1000 bytes were left out]",
        "line 0098",
        "line 0099",
    ]


def test_lines_before_the_wanted_time_are_left_out(tmp_path: Path) -> None:
    now = time.localtime()
    path = tmp_path / "a.log"
    late = time.strftime("%Y-%m-%d %H:%M:%S", now)
    path.write_text(f"2020-01-01 00:00:00 old\n  more of it\n{late} new\n")
    assert copied(path, since_s=60).splitlines()[1:] == [f"{late} new"]


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("x" * (3 << 20) + "\nafter\n")
    text = copied(path)
    assert text.endswith("after\n") and len(text) < (1 << 20) + 200
    assert "2097153 more bytes of this line were left out" in text


LATEST = datetime(2026, 11, 23, 12, 0, 0)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("INFO 11-23 09:58:33 [model.py:733] x", "2026-11-23T09:58:33"),
        ("(EngineCore pid=7) ERROR 12-31 23:59:59 [core.py:1] x", "2025-12-31T23:59:59"),
        ("[W1123 09:58:52.434912737 utils.cpp:41] x", "2026-11-23T09:58:52"),
        ("2026/11/23 09:59:22 [error] 12#12: *3 x", "2026-11-23T09:59:22"),
        ('{"time":"2026-11-23T09:59:22+00:00"}', "2026-11-23T09:59:22"),
        ("1.2.3.4 - - [23/Nov/2026:09:59:22 +0000] x", "2026-11-23T09:59:22"),
        ("[ERROR] HCCL(1,python):2026-11-23-09:59:22.123.456 x", "2026-11-23T09:59:22"),
        ("Traceback (most recent call last):", None),
        ("INFO 13-45 99:00:00 nonsense", None),
    ],
)
def test_times(line: str, found: str) -> None:
    assert stamp(line, LATEST) == found
