"""Weights on a fleet of real SSH hosts (ssh_fleet), whose links may be capped, and what is measured
of their way from host to host.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ssh_fleet import Fleet

ROOT = Path(__file__).resolve().parents[2]
MODEL = "/data/model"
FILES = 4


class WeightsFleet:
    """An environment of a fleet's hosts, and the command. port: of the transfer."""

    def __init__(self, folder: Path, fleet: Fleet, port: int) -> None:
        self.fleet, self.port = fleet, port
        self.names = list(fleet.hosts)
        instances = ", ".join(f"{{hosts: [{name}]}}" for name in self.names)
        self.file = folder / "spread.yaml"
        self.file.write_text(
            "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
            "runtime: process\n"
            f"{fleet.settings()}"
            f"topology:\n  colocated: [{instances}]\n  prefill: []\n  decode: []\n"
            f"  proxy: {self.names[0]}\n"
            "devices: '0'\n"
            f"model: {{path: {MODEL}, served_name: tiny, placement: false}}\n"
            f"distribution: {{port: {port}, free_mib: 1, patience_s: 60, stall_s: 60}}\n"
            "fleet: {connect_timeout_s: 5}\n"
        )

    def argv(self, *words: str) -> list[str]:
        """The command."""
        return [sys.executable, "scripts/distribute_weights.py", "-e", str(self.file), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(*words), cwd=ROOT, capture_output=True, text=True, timeout=600
        )

    def model(self, host: str) -> Path:
        """The folder of a running host, as seen here."""
        return self.fleet.hosts[host].path(MODEL)

    def fill(self, host: str, mib: int, manifest: bool = True, seed: int = 0) -> None:
        """A checkpoint of that size with the list that convert-weights writes."""
        folder = self.model(host)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text('{"model_type": "tiny"}\n')
        for number in range(FILES):
            data = hashlib.shake_128(f"{seed} {number}".encode()).digest((mib << 20) // FILES)
            (folder / f"model-{number + 1:05d}-of-{FILES:05d}.safetensors").write_bytes(data)
        if manifest:
            self.write_list(host)

    def write_list(self, host: str) -> None:
        """omnikit-weights.json of what is there."""
        folder = self.model(host)
        files = {
            path.name: {
                "size": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(folder.iterdir())
            if path.is_file() and path.name != "omnikit-weights.json"
        }
        (folder / "omnikit-weights.json").write_text(json.dumps({"files": files}))

    def sums(self, host: str) -> dict[str, Any]:
        """Hash of every file there; hidden ones too."""
        folder = self.model(host)
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def in_host(self, host: str, *words: str) -> str:
        """What a command says in a host's namespaces."""
        target = str(self.fleet.hosts[host].pid)
        argv = ["nsenter", "--target", target, "--net", "--pid", "--mount", "--root", "--wd=/"]
        done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def cap(self, host: str, mbit: int) -> None:
        """Both directions of a host's link take so much: a queue discipline at either end."""
        rate = ("root", "tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "100ms")
        self.fleet._in_hub(
            "tc", "qdisc", "replace", "dev", self.fleet._wire(self.fleet.hosts[host]), *rate
        )
        self.in_host(host, "tc", "qdisc", "replace", "dev", "eth0", *rate)

    def sent(self, host: str) -> int:
        """Bytes that went out of a host's network card since it is up."""
        path = Path(f"/proc/{self.fleet.hosts[host].pid}/net/dev")
        line = next(x for x in path.read_text().splitlines() if "eth0:" in x)
        return int(line.split()[9])

    def listening(self, host: str) -> bool:
        """Whether the transfer's port is listened on there."""
        state = Path(f"/proc/{self.fleet.hosts[host].pid}/net/tcp").read_text()
        return f":{self.port:04X} 00000000:0000 0A" in state

    def agents(self, host: str) -> list[int]:
        """Numbers, as seen here, of the processes that take part on a host."""
        root = Path(f"/proc/{self.fleet.hosts[host].pid}/ns/pid").stat().st_ino
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                mine = (place / "ns" / "pid").stat().st_ino == root
            except OSError:
                continue
            if mine and b"spread-run" in words and b"python" in words[0]:
                found.append(int(place.name))
        return found
