"""A small whole deployment on this machine that can be changed, broken, cut off and looked at.

Two prefill servers and a decode server that are ready at once (fleet_server.py), and a real
nginx. What is right is read from the running processes, not from what the toolkit says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Optional

import port_rooms
import pytest
from docker_host import wait_for

from hostkit.nodes import taken_ports

ROOT = Path(__file__).resolve().parents[2]
NODES = ("p0", "p1", "d0", "c0")


@dataclass
class Site:
    """folder: of the environment, its hosts' work directory and its control folder."""

    folder: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def lock(self) -> Path:
        return self.work / "deploy.lock"

    @property
    def control(self) -> Path:
        return Path(self.env["OMNIKIT_SITE"]) / "control" / "small"

    def start(self, script: str, *words: str) -> subprocess.Popen[str]:
        """A command in a session of its own, as a user's shell starts it."""
        return subprocess.Popen(
            [sys.executable, f"scripts/{script}", "-e", str(self.folder / "small.yaml"), *words],
            cwd=ROOT,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *words: str, code: Optional[int] = 0) -> str:
        """A command to its end: all that it said."""
        started = self.start(script, *words)
        said = started.communicate(timeout=400)[0]
        assert code is None or started.returncode == code, f"{started.returncode}: {said}"
        assert "Traceback" not in said, said
        return said

    def deploy(self, version: str, *words: str, code: int = 0) -> str:
        """Deploy a version: a variable that all servers have."""
        told = ("--set", f"server.env.VERSION={version}", "--yes", *words)
        return self.run("deploy.py", *told, code=code)

    def records(self) -> dict[str, dict[str, Any]]:
        found = {}
        for path in (self.work / "state").glob("*.json"):
            found[path.stem] = json.loads(path.read_text())
        return found

    def pid(self, node: str) -> int:
        found: int = self.records()[node]["servers"][0]["process"]["pid"]
        return found

    def versions(self) -> dict[str, str]:
        """What each server that runs was started with, as the kernel tells it."""
        found = {}
        for node, record in self.records().items():
            for server in record["servers"]:
                try:
                    raw = Path(f"/proc/{server['process']['pid']}/environ").read_bytes()
                except OSError:
                    continue
                if node != "c0":
                    given = re.search(rb"(?:^|\0)VERSION=([^\0]*)", raw)
                    found[node] = given[1].decode() if given else "?"
        return found

    def serves(self, version: str) -> bool:
        """Whether all of a version runs, and answers."""
        wanted = dict.fromkeys(("p0", "p1", "d0"), version)
        return self.versions() == wanted and '"ok": true' in self.run(
            "status.py", "--json", code=None
        )

    def version_of(self, archive: str) -> str:
        """Which version an archive on the host holds."""
        with zipfile.ZipFile(self.work / "archives" / archive) as opened:
            script = opened.read("bundle/p0/start.sh").decode()
        found = re.search(r"export VERSION=(\w+)", script)
        return found[1] if found else "?"

    def releases(self) -> list[str]:
        """The version of each release, the oldest first."""
        found = []
        numbers = sorted(int(one.name) for one in (self.control / "releases").glob("[0-9]*"))
        for number in numbers:
            text = (self.control / "releases" / str(number) / "small.yaml").read_text()
            given = re.search(r"^ +VERSION: \"?(\w+)", text, re.MULTILINE)
            found.append(given[1] if given else "?")
        return found

    def audit(self) -> list[tuple[str, str]]:
        """What was done to the host and how it ended, by its own audit file."""
        lines = [json.loads(line) for line in (self.work / "audit.jsonl").read_text().splitlines()]
        return [(line["what"], line["result"]) for line in lines]

    def hold(self, owner: str = "ann@bastion:/opt", **more: Any) -> None:
        """Somebody else's lock."""
        lock = {"owner": owner, "what": "deploy of small", "since": 1764000000.0, **more}
        self.lock.write_text(json.dumps(lock))

    def forget(self) -> None:
        """As if nothing had ever been deployed."""
        self.lock.unlink(missing_ok=True)
        self.run("clean_up.py", "--yes", "--logs", code=None)


# Between those that tests have by number.
_ROOMS = [*range(10000, 12000, 200), *range(13000, 14000, 200), *range(16000, 17000, 200)]


def _free_ports() -> int:
    """Two hundred ports of which nobody has those that are used here; the kernel hands none out."""
    for base in port_rooms.mine(_ROOMS):
        used = [base + above for above in (0, 1, 20, 40, 60, 90, 100, 120)]
        if not any(taken_ports.is_taken("127.0.0.1", port) for port in used):
            return base
    raise AssertionError("no ports are free")


def make(folder: Path) -> Site:
    """The environment, not deployed."""
    (folder / "site").mkdir(parents=True, exist_ok=True)
    base = _free_ports()
    made = Site(folder, base + 90, {"OMNIKIT_SITE": str(folder / "site")})
    text = (ROOT / "tests" / "environments" / "breadth.yaml").read_text()
    text = text.replace("build/test-breadth", str(made.work))
    text = text.replace("tests/kit/fleet_server.py", f"{ROOT}/tests/kit/fleet_server.py")
    ports = f"{{api_base: {base}, master_base: {base + 20}, proxy: {made.port},"
    ports += f" kv_side_channel: {base + 40}, zmq: {base + 60}}}"
    text = re.sub("^ports: .*", f"ports: {ports}", text, flags=re.MULTILINE)
    (folder / "small.yaml").write_text(text)
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for the tests of a module, of version one."""
    made = make(tmp_path_factory.mktemp("small"))
    try:
        made.deploy("one")
        yield made
    finally:
        made.forget()


def ended(started: subprocess.Popen[str]) -> None:
    """Wait for a process that was killed."""
    started.wait(timeout=60)
    wait_for(lambda: started.poll() is not None, "it ends")
