"""rsync: its command, how names get through it, and what its failures mean."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from code_cases import HOSTILE, listing, make_source

from hostkit.base.errors import ActionError, InputError
from hostkit.copy import tree
from omnikit.source import transfer as source_transfer
from omnikit.source.transfer import Transfer


def transfer(source: Path, target: Path, words: tuple[str, ...] = ()) -> Transfer:
    return Transfer(str(source), str(target), "root@192.0.2.1", words, {}, 60)


def test_the_command() -> None:
    ssh = ("ssh", "-o", 'UserKnownHostsFile="/a b/k"', "-i", "/it's")
    argv = source_transfer.argv(transfer(Path("/src"), Path("/data/omni x"), ssh), Path("/list"))
    assert argv == [
        *("rsync", "--links", "--perms", "--times", "--omit-dir-times", "--omit-link-times"),
        *("--ignore-times", "--protect-args", "--chmod=ug-s", "--delay-updates"),
        *("--from0", "--files-from=/list", "--stats", "--no-human-readable", "--out-format=%n"),
        *("--timeout=60", "-e"),
        """'ssh' '-o' 'UserKnownHostsFile="/a b/k"' '-i' '/it''s'""",
        *("--", "/src/", "root@192.0.2.1:/data/omni x/"),
    ]
    here = source_transfer.argv(transfer(Path("/src"), Path("/t")), Path("/list"), together=False)
    assert "-e" not in here and here[-1] == "/t/" and "--partial-dir=.~tmp~" in here


def test_addresses() -> None:
    assert source_transfer.bracketed("root@fe80::1") == "root@[fe80::1]"
    assert source_transfer.bracketed("10.0.0.1") == "10.0.0.1"


@pytest.mark.needs("rsync")
def test_rsync_takes_the_words_of_ssh_apart_as_they_were(tmp_path: Path) -> None:
    words = ["a b", "it's", 'say "x"', "", "''", "$HOME", "back\\slash", "' '"]
    record = tmp_path / "words"
    # Stands for ssh: writes down how it was called.
    program = tmp_path / "called like ssh"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(record)!r}, 'w').write('\\0'.join(sys.argv[1:]))\n"
    )
    program.chmod(0o755)
    shell = source_transfer.rsh([str(program), *words])
    subprocess.run(["rsync", "-e", shell, "x", "host:/y"], check=False, capture_output=True)
    assert record.read_text().split("\0")[: len(words)] == words


@pytest.mark.needs("rsync")
def test_files_of_any_name_arrive_and_links_stay_links(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / 'it\'s a "t"'
    target.mkdir()
    for name in HOSTILE:
        (source / os.fsdecode(name)).write_text("x")
    (source / "suid").write_text("")
    (source / "suid").chmod(0o4755)
    found = tree.walk(str(source), tree.Excludes([]))
    seen: list[int] = []
    sent = source_transfer.send(
        transfer(source, target), sorted(found.files), "p0", tmp_path / "c", seen.append
    )
    assert sent > 0 and len(seen) == 1
    assert listing(target) == listing(source)
    assert stat.S_IMODE((target / "suid").stat().st_mode) == 0o755
    assert "setup.py" in (tmp_path / "c" / "sync-p0.log").read_text()
    assert not (tmp_path / "c" / "sync-p0.list").exists()


@pytest.mark.needs("rsync")
def test_a_link_that_somebody_put_in_the_way_is_not_followed(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t"
    (tmp_path / "precious").mkdir()
    target.mkdir()
    (target / "omni").symlink_to(tmp_path / "precious")
    found = tree.walk(str(source), tree.Excludes([]))
    source_transfer.send(transfer(source, target), sorted(found.files), "p0", tmp_path / "c")
    assert not any((tmp_path / "precious").iterdir()) and not (target / "omni").is_symlink()


def test_without_rsync_it_says_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="rsync is not installed on this machine"):
        source_transfer.send(transfer(tmp_path, tmp_path), ["a"], "p0", tmp_path)
    assert source_transfer.send(transfer(tmp_path, tmp_path), [], "p0", tmp_path) == 0


@pytest.mark.needs("rsync", "mount", root=True)
def test_a_disk_that_fills_up_and_a_source_that_goes_away(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for number in range(400):
        (source / str(number)).write_text("x" * 4000)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    names = [path.name for path in source.iterdir()]
    try:
        with pytest.raises(ActionError) as caught:
            source_transfer.send(transfer(source, small), names, "p0", tmp_path / "c")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "the disk is full" in str(caught.value) and f"df -h {small}" in str(caught.value)
    shutil.rmtree(source)
    source.mkdir()
    with pytest.raises(ActionError):
        source_transfer.send(transfer(source, tmp_path / "t"), names, "p0", tmp_path / "c")


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (11, 'rsync: [receiver] write failed on "/d/a": No space left on device (28)', "full"),
        (127, "bash: line 1: rsync: command not found\nrsync error: x (code 127)", "not found on"),
        (12, "rsync: connection unexpectedly closed (0 bytes received so far)", "was cut"),
        (255, "client_loop: send disconnect: Broken pipe\nrsync error: unexplained (255)", "cut"),
        (30, "rsync error: timeout in data send/receive (code 30) at io.c", "was cut"),
        (-15, "", "was cut"),
        (24, "rsync warning: some files vanished (code 24)", "went away"),
        (23, 'rsync: [generator] mkdir "/d" failed: Permission denied (13)', "may not be written"),
        (5, "@ERROR: Unknown module", "status 5: @ERROR: Unknown module"),
    ],
)
def test_failures(code: int, said: str, expected: str) -> None:
    found = str(source_transfer.fault(code, said, transfer(Path("/s"), Path("/d"))))
    assert expected in found
    assert "What to do: " in found


def test_lines_are_fit_for_a_terminal() -> None:
    assert source_transfer.readable(r"a\#033[2Jb\#012c") == "a\\x1b[2Jb\\nc"
    assert source_transfer.readable("a\nb\\#377") == "a\nb\\xff"
