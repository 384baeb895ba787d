"""The script download_weights.py against real servers, and everything that can go wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
import small_deepseek as small
from image_cases import mount_small_disk
from needs import needs
from weights_server import REPOSITORY, TOKEN, Publisher, publish

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "scripts" / "download_weights.py")
SHARD = "model-00002-of-000003.safetensors"
QUICK = ("--set=weights.download.delay_s=0.05", "--set=weights.download.attempts=3")
pytestmark = pytest.mark.slow


def words(origin: object, target: Path, *more: str) -> list[str]:
    return [sys.executable, SCRIPT, f"--origin={origin}", f"--target={target}", *QUICK, *more]


def download(
    origin: object, target: Path, *more: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words(origin, target, *more), capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.make().write(tmp_path / "published")


@pytest.fixture
def site(folder: Path) -> Iterator[Publisher]:
    with publish(folder) as found:
        yield found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def same(folder: Path, target: Path) -> bool:
    found = {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    return found == {path.name: path.read_bytes() for path in folder.iterdir()}


def write_sums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def hub(site: Publisher, kind: str) -> list[str]:
    return [f"{kind}:{REPOSITORY}", f"--set=weights.download.endpoint={site.url}"]


@pytest.mark.parametrize("kind", ["web", "folder", "file", "hf", "modelscope"])
def test_every_kind_of_origin_gives_the_same_files(
    site: Publisher, folder: Path, target: Path, kind: str
) -> None:
    more: list[str] = []
    origin: object = {"web": site.url, "folder": folder, "file": f"file://{folder}"}.get(kind)
    if origin is None:
        origin, *more = hub(site, kind)
    would = json.loads(download(origin, target, *more, "--dry-run", "--json").stdout)
    assert set(would["names"]) == {path.name for path in folder.iterdir()}
    assert would["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert not target.exists()
    done = download(origin, target, *more)
    assert done.stdout == f"{target}: downloaded, all 3 files of its index\n"
    assert same(folder, target) and not list((target / ".download").glob("*.part*"))
    times = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    asked = len(site.gets(SHARD))
    assert "unchanged" in download(origin, target, *more).stdout
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == times
    assert len(site.gets(SHARD)) == asked


@pytest.mark.parametrize("kind", ["hf", "modelscope"])
def test_a_small_file_that_changed_at_equal_length_is_fetched(
    site: Publisher, folder: Path, target: Path, kind: str
) -> None:
    origin, *more = hub(site, kind)
    download(origin, target, *more)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text.replace("deepseek_v3", "deepseek_v4"))
    assert config.stat().st_size == len(text)
    assert "downloaded" in download(origin, target, *more).stdout
    assert same(folder, target)


@pytest.mark.parametrize("fault", ["cut", 503, 429, 500])
def test_a_fault_that_passes_is_waited_out(
    site: Publisher, folder: Path, target: Path, fault: object
) -> None:
    site.faults[SHARD] = [fault, fault]
    done = download(site.url, target)
    assert same(folder, target) and "again in 0.05 s" in done.stderr
    ranges = site.gets(SHARD)
    assert len(ranges) == 3
    if fault == "cut":  # it went on where it was cut
        starts = [int(one[len("bytes=") : -1]) for one in ranges[1:]]
        assert 0 < starts[0] < starts[1] and ranges[0] == ""


def test_a_fault_that_stays_is_told_and_what_came_is_used_later(
    site: Publisher, folder: Path, target: Path
) -> None:
    site.faults[SHARD] = [503] * 3
    done = download(site.url, target, code=1)
    assert f"{SHARD}: the server answers 503" in done.stderr
    assert "another mirror" in done.stderr and not (target / SHARD).exists()
    download(site.url, target)
    assert same(folder, target)


def test_killed_in_the_middle_the_next_run_goes_on_there(
    site: Publisher, folder: Path, target: Path
) -> None:
    site.faults[SHARD] = ["hold"]
    running = subprocess.Popen(words(site.url, target), stderr=subprocess.DEVNULL, cwd=ROOT)
    part = target / ".download" / f"{SHARD}.part"
    assert site.held.wait(60)
    half = (folder / SHARD).stat().st_size // 2
    while not (part.exists() and part.stat().st_size > half - (1 << 16)):
        assert running.poll() is None
    there = part.stat().st_size
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (target / SHARD).exists()
    download(site.url, target)
    assert same(folder, target) and site.gets(SHARD)[-1] == f"bytes={there}-"


def test_a_file_that_changed_meanwhile_is_not_patched_together(
    site: Publisher, folder: Path, target: Path
) -> None:
    site.faults[SHARD] = ["cut", 503, 503, 503]
    download(site.url, target, code=1)
    assert (target / ".download" / f"{SHARD}.part").stat().st_size
    shutil.rmtree(folder)
    small.make(seed=9).write(folder)
    download(site.url, target)
    assert same(folder, target)


@pytest.mark.parametrize("kind", ["hf", "modelscope", "sums"])
def test_bytes_that_are_not_those_published_are_not_taken(
    site: Publisher, folder: Path, target: Path, kind: str
) -> None:
    if kind == "sums":
        write_sums(folder)
        origin, more = site.url, []
    else:
        origin, *more = hub(site, kind)
    site.faults[SHARD] = ["wrong"] * 3
    done = download(origin, target, *more, code=1)
    assert f"{SHARD}: has SHA-256" in done.stderr and "not taken" in done.stderr
    assert not (target / SHARD).exists()
    site.faults[SHARD] = ["wrong"]
    download(origin, target, *more)
    assert (target / SHARD).read_bytes() == (folder / SHARD).read_bytes()


def test_a_file_that_was_damaged_here_is_found_and_fetched_again(
    site: Publisher, folder: Path, target: Path
) -> None:
    origin, *more = hub(site, "modelscope")
    download(origin, target, *more)
    told = (target / SHARD).stat()
    data = bytearray((target / SHARD).read_bytes())
    data[-1] ^= 1
    (target / SHARD).write_bytes(data)
    import os

    os.utime(target / SHARD, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert "unchanged" in download(origin, target, *more).stdout  # nothing shows from outside
    found = json.loads(download(origin, target, *more, "--verify", "--json").stdout)
    assert (found["fetched"], found["result"]) == (1, "downloaded") and same(folder, target)
    (target / SHARD).unlink()
    assert json.loads(download(origin, target, *more, "--json").stdout)["fetched"] == 1


def test_files_that_came_otherwise_are_taken_when_they_are_right(
    site: Publisher, folder: Path, target: Path
) -> None:
    shutil.copytree(folder, target)
    (target / SHARD).write_bytes(b"not that")
    origin, *more = hub(site, "modelscope")
    assert json.loads(download(origin, target, *more, "--json").stdout)["fetched"] == 1
    assert same(folder, target)


@pytest.mark.parametrize("kind", ["web", "hf", "modelscope"])
def test_a_token_opens_what_is_private_and_shows_nowhere(
    folder: Path, target: Path, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    token = f"--set=weights.download.token={{file: {tmp_path / 'token'}}}"
    with publish(folder, TOKEN) as site:
        origin, *more = [site.url] if kind == "web" else hub(site, kind)
        done = download(origin, target, *more, code=2)
        assert "weights.download.token" in done.stderr and "401" in done.stderr
        download(origin, target, *more, token)
    assert same(folder, target)
    kept = (target / ".download").rglob("*")
    assert not [path for path in kept if path.is_file() and TOKEN in path.read_text()]


def test_two_at_once_into_one_folder_are_refused(
    site: Publisher, folder: Path, target: Path
) -> None:
    site.faults[SHARD] = ["hold"]
    with subprocess.Popen(words(site.url, target), stderr=subprocess.DEVNULL, cwd=ROOT) as first:
        assert site.held.wait(60)
        done = download(site.url, target, code=1)
        assert "is under way" in done.stderr and f"pid {first.pid}" in done.stderr
        site.go.set()
    assert first.returncode == 0 and same(folder, target)


def test_patterns_choose_files(site: Publisher, target: Path) -> None:
    download(site.url, target, "--include=*.json", "--exclude=tokenizer*")
    names = {path.name for path in target.iterdir() if path.is_file()}
    assert names == {"config.json", "model.safetensors.index.json"}


def test_hashes_may_come_in_a_file(site: Publisher, folder: Path, target: Path) -> None:
    write_sums(folder)
    sums = folder.with_name("sums")
    (folder / "SHA256SUMS").rename(sums)
    assert "7 with a published hash" in download(site.url, target, f"--checksums={sums}").stderr
    sums.write_text(sums.read_text().replace("0", "1"))
    shutil.rmtree(target)
    assert "has SHA-256" in download(folder, target, f"--checksums={sums}", code=1).stderr


def test_an_index_that_names_what_is_not_published_is_said(
    site: Publisher, folder: Path, target: Path
) -> None:
    (folder / SHARD).unlink()
    done = download(site.url, target, code=2)
    assert f"/{SHARD}: is not there (404)" in done.stderr
    done = download(folder, target, code=2)
    assert f"{SHARD}: is missing" in done.stderr


def test_a_page_instead_of_a_shard_is_not_taken(
    site: Publisher, folder: Path, target: Path
) -> None:
    (folder / SHARD).write_bytes(b"<html>please log in</html>")
    done = download(site.url, target, code=2)
    assert "no safetensors file" in done.stderr and not (target / SHARD).exists()


def test_space_is_looked_at_first_and_a_full_disk_is_told(
    site: Publisher, folder: Path, tmp_path: Path
) -> None:
    needs("mount")
    disk = tmp_path / "disk"
    mount_small_disk(disk, 4)
    try:
        done = download(site.url, disk / "m", code=2)
        assert "needs 6.6 MiB more, 4.0 MiB are free" in done.stderr and not list(disk.iterdir())
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        (disk / "other").write_bytes(b"x" * (2 << 20))
        site.faults[SHARD] = ["hold"]
        running = subprocess.Popen(
            words(site.url, disk / "m", "--set=weights.download.workers=1"),
            *(-1, None, None, None, subprocess.PIPE),
            cwd=ROOT,
            text=True,
        )
        with running:
            assert site.held.wait(60)
            (disk / "more").write_bytes(b"x" * (2 << 20))
            site.go.set()
            _, said = running.communicate(timeout=60)
        assert running.returncode == 1 and "No space left on device; what came is kept" in said
        (disk / "other").unlink()
        (disk / "more").unlink()
        download(site.url, disk / "m")
        assert same(folder, disk / "m")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("origin", "more", "what"),
    [
        ("/no/such/folder", (), "there is no such folder"),
        ("hf:only-a-name", (), "no repository, expected ORGANISATION/NAME"),
        ("modelscope:a/b; rm -rf /", (), "no repository"),
        ("{url}/nothing", (), "is not there (404)"),
        ("hf:no/such", ("--set=weights.download.endpoint={url}",), "is not there (404)"),
        ("modelscope:no/such", ("--set=weights.download.endpoint={url}",), "no/such"),
        ("{folder}", ("--include=*.gguf",), "none of 7 published files is chosen"),
        ("{folder}", ("--checksums=/no/sums",), "/no/sums: cannot be read"),
        ("{folder}", ("--workers=0",), "expected 1 to 64"),
        ("{folder}", ("--set=weights.download.token={{variable: NO_SUCH}}",), "NO_SUCH"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(
    site: Publisher, folder: Path, target: Path, origin: str, more: tuple[str, ...], what: str
) -> None:
    places = {"url": site.url, "folder": folder}
    given = [word.format(**places) for word in more]
    assert what in download(origin.format(**places), target, *given, code=2).stderr
    assert not target.exists()


def test_a_server_that_is_not_there_is_told(target: Path) -> None:
    done = download("http://127.0.0.1:9", target, code=1)
    assert "no answer" in done.stderr and "weights.download.endpoint" in done.stderr
    assert not target.exists()


def test_an_origin_is_needed(target: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "weights.download.origin: no origin is named" in done.stderr
