"""Nodes of stand-in servers with helpers, on file systems that fill up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from host_cases import a_node

from hostkit.base import run

ESCAPING = Path(__file__).with_name("escaping_server.py")
KIT = Path(__file__).resolve().parent


def escaping(folder: Path, name: str, *helpers: str, options: str = "") -> dict[str, Any]:
    """A node; each of helpers: what a server of it starts outside its session."""
    node = a_node(folder, name, *(options for _ in helpers))
    for server, how in zip(node["servers"], helpers):
        port = str(server["port"])
        words = [sys.executable, str(ESCAPING), port, how, *options.split()]
        server["argv"] = ["env", f"PYTHONPATH={KIT}", *words]
    return node


def helpers_of(server: dict[str, Any]) -> list[int]:
    """A server's live helpers by their words: a test trusts no record."""
    port = server["argv"][server["argv"].index(str(ESCAPING)) + 1]
    found = []
    for path in Path("/proc").iterdir():
        try:
            words = (path / "cmdline").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            continue
        if words.startswith(b"helper\0") and port.encode() in words and state not in "ZX":
            found.append(int(path.name))
    return found


class Disk:
    """A small file system of its own, which can be filled and made read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "filler").unlink()

    def read_only(self, yes: bool = True) -> None:
        """What is open stays so, as on a disk that the kernel found broken."""
        if not yes:
            run.run(["umount", str(self.path)])
            return
        run.run(["mount", "--bind", str(self.path), str(self.path)])
        run.run(["mount", "-o", "remount,bind,ro", str(self.path)])
