"""Nobody has to be root: an ordinary user deploys, serves, looks, stops, and leaves no root's file.

The user may read what root may, since this machine's Python perhaps is root's, and no more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[3]
USER = 4711
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
    *("--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search"),
    "--ambient-caps=+dac_read_search",
)

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua", "setpriv", root=True)]


@pytest.fixture
def project() -> Iterator[Path]:
    """A copy of the project that belongs to the user, in a place that they can get to."""
    folder = Path(tempfile.mkdtemp(prefix="omnikit-user-", dir="/var/tmp"))
    names = subprocess.run(
        ["git", "ls-files", "-z", "scripts", "configs", "templates", "tests", "pyproject.toml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, USER, USER)
    yield folder
    shutil.rmtree(folder)


def run(project: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script as the user, with ports that no other test has."""
    servers = f"server.command=[/usr/bin/python3, {project}/tests/kit/fleet_server.py]"
    ports = ("api_base=23000", "master_base=23200", "proxy=23300", "kv_side_channel=23400")
    settings = [servers, *(f"ports.{port}" for port in (*ports, "zmq=23500"))]
    script = [sys.executable, f"scripts/{name}", "-e", "tests/environments/breadth.yaml"]
    return subprocess.run(
        [*AS_USER, *script, *words, *(f"--set={setting}" for setting in settings)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "HOME": str(project)},
    )


def left() -> list[Path]:
    """What the user left in the places that everybody shares."""
    places = [Path(p) for p in ("/tmp", "/run", "/dev/shm", f"/run/user/{USER}")]
    found = (path for place in places if place.is_dir() for path in place.iterdir())
    return [path for path in found if not path.is_symlink() and path.stat().st_uid == USER]


def test_an_ordinary_user_deploys_looks_stops_and_cleans_up(project: Path) -> None:
    try:
        done = run(project, "deploy.py")
        assert done.returncode == 0, done.stderr
        assert "44 of 44 prompt tokens transferred" in done.stderr
        owners = set()
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                words, about = status.with_name("cmdline").read_bytes(), status.read_text()
            except OSError:
                continue  # it has ended
            if str(project).encode() in words:
                owners |= {line for line in about.splitlines() if line.startswith("Uid:")}
        assert owners == {f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}"}, "a process of another user"
        assert run(project, "status.py").returncode == 0
        again = run(project, "deploy.py")
        assert again.returncode == 0 and "nothing to change" in again.stderr, again.stderr
    finally:
        stopped = run(project, "stop.py")
        cleaned = run(project, "clean_up.py", "--yes", "--logs")
    assert stopped.returncode == 0, stopped.stderr
    assert cleaned.returncode == 0, cleaned.stderr
    assert [path for path in project.rglob("*") if path.lstat().st_uid != USER] == []
    assert left() == []
