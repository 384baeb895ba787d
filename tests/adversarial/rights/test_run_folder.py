"""Another user of the machine cannot have root write, remove or serve anything by what he planted.

A second user (uid 65534) puts links, folders and pipes wherever he may and could foresee a name.
Then root deploys, stops and cleans up: real scripts, a real nginx, stand-in servers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from port_rooms import free_port

from omnikit.config.config import load
from omnikit.config.layers import control_folder
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua", "unshare", root=True)]


def as_nobody(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    argv = ["setpriv", *ids, "sh", "-c", script, "sh", *words]
    return subprocess.run(argv, capture_output=True, text=True)


class Case:
    """An environment of one co-located server and a proxy; a folder that must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work_dir = folder / "work"
        self.victim = folder / "victim"
        (self.victim / "p0").mkdir(parents=True)
        (self.victim / "c0").mkdir()
        for name in ("secret", "p0/kept", "c0/kept", "nginx.conf"):
            (self.victim / name).write_text("mine\n")
        self.file = folder / "planted.yaml"
        self.write()

    def write(self, **paths: str) -> None:
        shown = ", ".join(f"{k}: {v}" for k, v in {"work_dir": self.work_dir, **paths}.items())
        self.file.write_text(
            f"profile: {{engine: cpu, model: tiny-qwen2}}\npaths: {{{shown}}}\n"
            f"server: {{command: [python3, {ROOT}/tests/kit/fleet_server.py]}}\n"
            "engine: {venv: null, requirements: null}\n"
            "hosts: {local: {address: 127.0.0.1, connection: local}}\n"
            "topology: {colocated: [{hosts: [local]}], proxy: local}\n"
            f"ports: {{api_base: {free_port()}, proxy: {free_port()},"
            " offset: {colocated: 0}, ephemeral_low: 65536}\n"
            "proxy: {listen_host: 127.0.0.1, worker_processes: 1, worker_connections: 1024}\n"
        )

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, f"scripts/{name}", "-e", str(self.file), *words]
        return subprocess.run(
            argv, cwd=ROOT, capture_output=True, text=True, timeout=300, start_new_session=True
        )

    def whole(self) -> dict[str, Any]:
        """All that is in the victim's folder: names, contents, owners, modes."""
        found = {}
        for path in sorted(self.victim.rglob("*")):
            about = path.lstat()
            text = path.read_text() if path.is_file() else ""
            found[str(path)] = (text, about.st_uid, about.st_mode, about.st_nlink)
        return found


@pytest.fixture
def case() -> Iterator[Case]:
    folder = Path(tempfile.mkdtemp(prefix="omnikit-rights-"))
    folder.chmod(0o755)
    made = Case(folder)
    try:
        yield made
    finally:
        made.run("clean_up.py", "--yes", "--logs")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(control_folder("planted"), ignore_errors=True)


@pytest.fixture
def predicted(case: Case) -> Iterator[Path]:
    """The name below /tmp that earlier versions used for this work directory."""
    name = hashlib.sha256(str(case.work_dir).encode()).hexdigest()[:10]
    path = Path(f"/tmp/omnikit-{name}")
    yield path
    as_nobody('rm -rf -- "$1"', str(path))


PLANTS = {
    "a folder with links in it": 'mkdir -m 777 "$1" && ln -s "$2/p0" "$1/s0"'
    ' && mkdir -m 777 "$1/c0" && for f in nginx.conf proxy.lua launch.json;'
    ' do ln -s "$2/nginx.conf" "$1/c0/$f"; done',
    "a link to the folder": 'ln -s "$2" "$1"',
    "a pipe": 'mkfifo -m 666 "$1"',
}


VERBS = {
    "a folder with links in it": ("deploy.py",),
    "a link to the folder": ("stop.py",),
    "a pipe": ("clean_up.py", "--yes"),
}


def test_what_was_planted_at_a_foreseen_name_changes_nothing(case: Case, predicted: Path) -> None:
    before = case.whole()
    for what, script in PLANTS.items():
        planted = as_nobody(script, str(predicted), str(case.victim))
        assert planted.returncode == 0, planted.stderr
        verb, *words = VERBS[what]
        done = case.run(verb, *words)
        assert done.returncode == 0, f"{what}: {done.stderr}"
        assert "Traceback" not in done.stderr
        if verb == "deploy.py":
            run_dir = Path(make_plan(load(str(case.file), environ={})).hosts[0].temp_dir)
            _is_ours_alone(run_dir)
            # What runs now is where he cannot put anything.
            assert as_nobody('touch "$1/x" || mkdir "$1.x"', str(run_dir)).returncode != 0
        assert case.whole() == before, what
        as_nobody('rm -rf -- "$1"', str(predicted))
    assert not run_dir.exists()


def _is_ours_alone(path: Path) -> None:
    for folder in (path, *path.parents):
        about = folder.lstat()
        assert stat.S_ISDIR(about.st_mode) and about.st_uid == 0 and not about.st_mode & 0o022


UNSAFE = {
    "everybody may write": ('mkdir -m 777 "$1"', "can be written by every user"),
    "it is another user's": ('mkdir -m 755 "$1"', "belongs to nobody"),
    "another user's link": ('ln -s "$2" "$1"', "is a link of nobody"),
    "a pipe": ('mkfifo "$1"', "is no folder"),
    "below another user's": ('mkdir -p "$1/in" && chmod 755 "$1"', "belongs to nobody"),
}


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        *(("run_dir", what) for what in UNSAFE),
        *(("work_dir", what) for what in list(UNSAFE)[1:3]),
        ("log_dir", "another user's link"),
    ],
)
def test_a_folder_that_is_not_safe_is_refused_with_its_line_and_what_to_do(
    setting: str, what: str, case: Case
) -> None:
    shared = case.folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    script, why = UNSAFE[what]
    made = as_nobody(script, str(shared / "x"), str(case.victim))
    assert made.returncode == 0, made.stderr
    if what == "everybody may write":
        os.chown(shared / "x", 0, 0)  # root's own, but open to all
    case.write(**{setting: str(shared / "x" / ("in/run" if "below" in what else ""))})
    before = case.whole()
    done = case.run("deploy.py")
    assert done.returncode == 2, done.stderr
    assert f"paths.{setting}: " in done.stderr and why in done.stderr
    assert f"{case.file}:2" in done.stderr and "What to do: " in done.stderr
    assert "Traceback" not in done.stderr
    assert case.whole() == before
