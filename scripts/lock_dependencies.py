#!/usr/bin/env python3
"""Renew the lock files: every Python package by version and check sum, for pip's hash mode.

Runs on this machine; needs a package index that uv reaches (UV_DEFAULT_INDEX names a mirror; pip's
own settings do not count here). Changes the lock files alone. Versions stay as they are locked,
unless pyproject.toml says otherwise or --upgrade is given. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from omnikit.front.script import Script
from omnikit.proxy.spec import ROUTER_REQUIREMENT

ROOT = Path(__file__).resolve().parents[1]
UNIVERSAL = ("--universal", "--python-version=3.11")
HASHES = ("--generate-hashes", "--only-binary=:all:", "--no-header", "--no-annotate", "--quiet")


@dataclass(frozen=True)
class Lock:
    """options: for uv, with what is locked; asked: what that is where no file says it.

    Without options the file itself lists all packages, and only their check sums are renewed. Its
    NAME==1.0+LOCAL are in no index that uv is told of, and stay as they are.
    """

    path: str
    options: tuple[str, ...] = ()
    asked: str = ""


# The later ones take the versions of the first.
LOCKS = (
    Lock("requirements-dev.txt", ("pyproject.toml", "--extra=dev", *UNIVERSAL)),
    Lock("requirements.txt", ("pyproject.toml", "-c=requirements-dev.txt", *UNIVERSAL)),
    Lock(
        "docker/control/requirements.txt",
        ("pyproject.toml", "-c=requirements-dev.txt", "--python-version=3.11"),
    ),
    Lock("configs/engines/cpu-requirements.txt"),
    Lock("configs/engines/libtorrent-requirements.txt"),  # of the hosts' Pythons, 3.9 and newer
    # It may run on a host of its own.
    Lock(
        "configs/engines/router-requirements.txt",
        ("-", "--universal", "--python-version=3.9"),
        ROUTER_REQUIREMENT,
    ),
    Lock("tests/ray-requirements.txt", ("-", *UNIVERSAL), "ray==2.49.2"),
    Lock("tests/vllm-0.9.0-requirements.txt"),
    Lock("tests/vllm-0.23.0-requirements.txt"),
)


def renewed(lock: Lock, upgrade: bool) -> str:
    """The new content of a lock file: the comments at its top, and what uv finds."""
    from hostkit.base import run
    from omnikit.engine import pins

    path = ROOT / lock.path
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head = re.match(r"(#.*\n)*", text)
    more, asked, kept = lock.options, lock.asked, ""
    if not more:
        entries = pins.read_entries(path)
        kept = "".join(entry.text for entry in entries if "+" in entry.version)
        asked = "".join(f"{e.name}=={e.version}\n" for e in entries if "+" not in e.version)
        more = ("-", "--no-deps", "--python-version=3.11")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        out.write_text(text, encoding="utf-8")  # whose versions stay
        words = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *HASHES, *more]
        run.run([*words, *["--upgrade"] * upgrade, "-o", str(out)], stdin=asked, cwd=ROOT)
        found = out.read_text(encoding="utf-8")
    return f"{head[0] if head else ''}{kept}{found}"


def body(given: argparse.Namespace) -> int:
    """Renew all of them and say which changed."""
    for lock in LOCKS:
        path = ROOT / lock.path
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = renewed(lock, given.upgrade)
        path.write_text(after, encoding="utf-8")
        print(f"{lock.path}: {'unchanged' if after == before else 'renewed'}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--upgrade", action="store_true", help="the newest versions that are allowed")


main = Script(__doc__, body, arguments, example="scripts/lock_dependencies.py --upgrade")


if __name__ == "__main__":
    sys.exit(main())
