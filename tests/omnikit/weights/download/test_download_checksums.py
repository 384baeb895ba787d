"""Lists of checksums as tools write them, and hashes of files."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint.hashes import of_file
from omnikit.weights.download import source


def test_what_sha256sum_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "a b.json").write_text("one")
    (tmp_path / "c.bin").write_bytes(bytes(range(256)))
    wanted = {
        path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in tmp_path.iterdir()
    }
    for option in ("--text", "--binary", "--tag"):
        argv = ["sha256sum", option, "a b.json", "./c.bin"]
        made = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert source.parse_sums(f"# list\n\n{made.stdout}", "SUMS") == wanted


def test_a_line_that_is_none_is_named() -> None:
    text = f"{'a' * 64}  good\n{'a' * 63}  short\n"
    with pytest.raises(InputError, match=r"SUMS:2: found 'aaa"):
        source.parse_sums(text, "SUMS")


def test_a_mark_of_windows_is_no_part_of_the_first_line() -> None:
    assert source.parse_sums(f"\ufeff{'a' * 64}  x\r\n", "SUMS") == {"x": f"sha256:{'a' * 64}"}


@pytest.mark.parametrize("text", ["", "\ufeff", "# only\n\n"])
def test_a_list_without_checksums_verifies_nothing_and_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="SUMS: found no checksum in it"):
        source.parse_sums(text, "SUMS")


def test_files_that_only_the_checksums_name_are_told_with_what_is_known() -> None:
    sums = dict.fromkeys(("a", "b", "c", "SHA256SUMS"), "sha256:0")
    source.all_there(sums, {"a", "b", "c"}, "hub", {})
    with pytest.raises(ActionError, match=r"hub: lacks 2 files .*: b \(HTTP 403\), c\."):
        source.all_there(sums, {"a"}, "hub", {"b": "HTTP 403"})


def test_the_hash_of_a_git_blob_is_gits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some text\n" * 300_000)
    argv = ["git", "hash-object", str(path)]
    wanted = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    read: list[int] = []
    assert of_file(path, "git:", read.append) == f"git:{wanted}"
    assert sum(read) == path.stat().st_size
