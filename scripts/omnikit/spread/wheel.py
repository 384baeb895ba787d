"""libtorrent for the hosts' Pythons: its wheel by SHA-256, from pip's index or a folder."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Mapping, Optional

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say, some
from omnikit.config.layers import PROJECT, resolve_path
from omnikit.config.schema import Settings
from omnikit.fleet import jobs
from omnikit.plan.types import HostPlan
from omnikit.spread import talks

PINS = PROJECT / "configs" / "engines" / "libtorrent-requirements.txt"
_CACHE = PROJECT / "build" / "wheels" / "libtorrent"
_TAG = re.compile(r"cp(3)(\d+)-(x86_64|aarch64)")


def ship(
    sites: Mapping[str, HostPlan], settings: Settings, looks: Mapping[str, Mapping[str, Any]]
) -> None:
    """To the hosts that lack it, by what spread-compare said of each."""
    lack: dict[str, dict[str, Any]] = {}
    for name, look in looks.items():
        if not look["engine"]:
            text = base64.b64encode(of(look["tag"], settings.distribution.wheels)).decode()
            lack[name] = {"work_dir": sites[name].work_dir, "wheel": text}
    if lack:
        say(f"shipping libtorrent to {len(lack)} hosts: {some(list(lack))}")
        jobs.results(talks.ask(list(sites.values()), settings, "spread-take", lack))


def of(tag: str, folder: Optional[str]) -> bytes:
    """The wheel for a Python (cp311-x86_64). folder: where somebody has put it. Raises."""
    found = _TAG.fullmatch(tag)
    if not found:
        raise InputError(
            f"there is no wheel of libtorrent for {tag}.",
            todo="install it there: apt-get install python3-libtorrent, or name another Python:"
            " hosts.NAME.python",
        )
    places = [_CACHE, *([Path(resolve_path(folder, True))] if folder else [])]
    wheel = _lies_in(places, tag) or _fetched(found, tag)
    data = wheel.read_bytes()
    if hashlib.sha256(data).hexdigest() not in PINS.read_text(encoding="utf-8"):
        raise InputError(
            "is not the wheel whose SHA-256 is written down.",
            where=str(wheel),
            todo=f"remove it; see {PINS.relative_to(PROJECT)}",
        )
    return data


def _lies_in(places: list[Path], tag: str) -> Optional[Path]:
    version = re.search(r"==(\S+)", PINS.read_text(encoding="utf-8"))
    python, _, machine = tag.partition("-")
    pattern = f"libtorrent-{version[1] if version else '*'}-{python}-*manylinux*_{machine}.whl"
    return next((one for place in places for one in sorted(place.glob(pattern))), None)


def _fetched(found: re.Match[str], tag: str) -> Path:
    say(f"fetching libtorrent for {tag}")
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
        done = run.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"),
                *("--python-version", f"{found[1]}.{found[2]}"),
                *("--platform", f"manylinux2014_{found[3]}", "--dest", private),
                *("--requirement", PINS),
            ],
            check=False,
        )
        wheels = list(Path(private).glob("*.whl"))
        if done.code != 0 or not wheels:
            raise ActionError(
                f"libtorrent cannot be fetched for {tag}: {done.tail}",
                todo="without internet: put its wheels into a folder and name that:"
                " --set distribution.wheels=FOLDER (pip download with the same options, elsewhere)",
            )
        kept = _CACHE / wheels[0].name
        beside = kept.with_suffix(".part")
        beside.write_bytes(wheels[0].read_bytes())
        beside.replace(kept)
    return kept
