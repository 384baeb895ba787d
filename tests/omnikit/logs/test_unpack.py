"""Archives that came from a host cannot write outside their folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError
from omnikit.logs import fetch


def archive(folder: Path, *members: tarfile.TarInfo) -> Path:
    path = folder / "logs.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        for member in members:
            made.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def plain(name: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.mode = 3, 0o4777
    return made


def test_plain_files_come_out_for_their_owner_alone(tmp_path: Path) -> None:
    path = archive(tmp_path, plain("p0/server_0.log"))
    assert fetch.unpack(path, tmp_path / "out") == ["p0/server_0.log"]
    found = tmp_path / "out" / "p0" / "server_0.log"
    assert found.read_text() == "xxx" and found.stat().st_mode & 0o7777 == 0o600


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, "/etc/passwd"
    return made


@pytest.mark.parametrize(
    "member",
    [
        plain("../out.log"),
        plain("/etc/cron.d/x"),
        plain("a/../../b"),
        link("a", tarfile.SYMTYPE),
        link("a", tarfile.LNKTYPE),
        link("a", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type!r}",
)
def test_what_would_leave_the_folder_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(ActionError, match="no plain file below it"):
        fetch.unpack(archive(tmp_path, member), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    path = archive(tmp_path, plain("a.log"))
    whole = fetch.check_sum(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert fetch.check_sum(path) != whole
    with pytest.raises(ActionError, match="cannot be unpacked"):
        fetch.unpack(path, tmp_path / "out")
