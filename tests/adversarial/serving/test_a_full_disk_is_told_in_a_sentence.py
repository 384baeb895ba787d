"""What a full disk does not take is said with its place and what to do, never by a traceback; and
what looks and stops works meanwhile, although its code cannot be laid down there.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from full_disk import Disk
from host_cases import a_host, a_node, processes, record_of, running

from hostkit.agent import receive, unpack
from hostkit.base.records import alive
from omnikit.fleet import bundle, direct_ssh

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def agent(at: Path, *words: str, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The agent on a host, as a deployment sends it."""
    sent = base64.b64encode(bundle.archive(files, bundle.host_code())).decode()
    code = Path(receive.__file__).read_text()
    argv = [sys.executable, "-c", code, str(at), str(len(sent)), "0600", *words]
    return subprocess.run(argv, input=sent, capture_output=True, text=True)


def job(at: Path, name: str, given: Any) -> subprocess.CompletedProcess[str]:
    sent = base64.b64encode(direct_ssh.host_code()).decode()
    code = Path(receive.__file__).read_text()
    argv = [sys.executable, "-c", code, str(at), str(len(sent)), name]
    text = sent + base64.b64encode(json.dumps(given).encode()).decode()
    return subprocess.run(argv, input=text, capture_output=True, text=True)


def test_stop_and_looks_work_though_their_code_cannot_be_laid_down(disk: Disk) -> None:
    host = a_host(disk.path, a_node(disk.path, "d0", ""))
    with running(host):
        record = record_of(host, "d0")
        disk.fill()
        left = set(os.listdir("/dev/shm"))  # noqa: PTH208
        at = disk.path / "jobs" / "new.pyz"
        done = job(
            at, "symptoms", {"work_dir": str(disk.path), "tail_bytes": 99, "ready_tail_bytes": 9}
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["nodes"][0]["state"] == "ready"
        done = agent(at, "stop", f"--host-file={disk.path}", "--what=stop", files={})
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == {"d0": "stopped"}
        assert "No space left" in done.stderr and "Traceback" not in done.stderr
        assert not alive(record["supervisor"]) and not processes(record)
        assert set(os.listdir("/dev/shm")) <= left  # noqa: PTH208


def test_a_deployment_that_finds_no_room_changes_nothing_and_says_where(disk: Disk) -> None:
    host = a_host(disk.path, a_node(disk.path, "d0", ""))
    with running(host):
        record = record_of(host, "d0")
        files = {"host.json": json.dumps(host), "d0/large.json": "x" * (1 << 20)}
        archive = disk.path.parent / "incoming.pyz"  # on a disk that has room
        disk.fill()
        done = agent(archive, "up", "--what=deploy", files=files)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-2].startswith(f"error: {disk.path}")
        assert "No space left on device" in done.stderr and "df -h" in done.stderr
        assert "Traceback" not in done.stderr
        assert record_of(host, "d0") == record and alive(record["supervisor"])
        assert len(processes(record)) == 1
        disk.free()
        with pytest.raises(OSError, match="No space left"):
            disk.fill()
            unpack.unpack(archive, disk.path)


def test_scripts_tell_it_too(disk: Disk) -> None:
    scripts = Path(bundle.SCRIPTS)
    disk.fill()
    out = disk.path / "made" / "tiny"
    for words in (
        ["make_tiny_model.py", "--out", str(out)],
        ["metrics.py", "--out", str(out)],
    ):
        done = subprocess.run(
            [sys.executable, str(scripts / words[0]), *words[1:]], capture_output=True, text=True
        )
        assert done.returncode in (1, 2), done
        assert done.stderr.startswith("error: ") and "No space" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
