"""The pinned packages of an engine, and what of them a virtual environment has."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

from hostkit.base.errors import InputError
from hostkit.files import regular

PYTHON = "3.11"  # that the engine runs on
STAMP = "omnikit-engine.json"  # written last: the engine was complete and could be imported
LOCK = "omnikit-engine.lock"  # also marks a folder as ours
CACHE = "vllm-cache"  # VLLM_CACHE_ROOT of all servers of this engine, filled by the installation
_PIN = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!_-]+)(?: ; ([^;#]*?))?"
    r"((?:\s+--hash=sha256:[0-9a-f]{64})*)"
)


@dataclass(frozen=True)
class Status:
    """state: missing (nothing there), foreign (not ours), incomplete (an installation did not
    end), changed (other pins or another Python), ready.

    differences: what an installation would mend, as text. version: Python's, like 3.11.
    """

    state: str
    differences: tuple[str, ...] = ()
    version: Optional[str] = None


@dataclass(frozen=True)
class Entry:
    """One package of a lock file. sums: SHA-256 of its files. text: its lines, as pip reads them.

    marker: where it is needed, as python_version < '3.12'; empty: everywhere.
    """

    name: str
    version: str
    sums: frozenset[str]
    text: str
    marker: str = ""


def read_entries(path: Path) -> list[Entry]:
    """The packages of a lock file, in its order. Raises InputError with file:line."""
    try:
        lines = regular.text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the engine's pins: {error}.", where=str(path)) from error
    entries: dict[tuple[str, str], Entry] = {}
    text, began = "", 0
    for number, line in enumerate(lines, 1):
        began = began if text else number
        text += re.sub(r"(^|\s)#.*", "", line).strip()
        if text.endswith("\\"):
            text = text[:-1]
            continue
        if text:
            match = _PIN.fullmatch(text)
            if match is None or (normal(match[1]), match[3] or "") in entries:
                wrong = (
                    "is not NAME==VERSION --hash=sha256:…"
                    if match is None
                    else "is a second pin of that package"
                )
                raise InputError(f"{text[:100]!r} {wrong}.", where=f"{path}:{began}")
            name, marker = normal(match[1]), match[3] or ""
            shown = " \\\n    ".join(re.split(r"\s+(?=--hash)", text))
            sums = frozenset(re.findall(r"[0-9a-f]{64}", match[4]))
            entries[name, marker] = Entry(name, match[2], sums, f"{shown}\n", marker)
        text = ""
    if not entries:
        raise InputError("has no pins, expected lines like NAME==VERSION.", where=str(path))
    return list(entries.values())


def read_lock(path: Path) -> dict[str, Entry]:
    """The packages of a lock file by name (in its normal form); each must have a check sum."""
    entries = read_entries(path)
    if bare := [entry.name for entry in entries if not entry.sums]:
        raise InputError(
            f"{', '.join(bare[:5])}: without a check sum nobody knows what is installed.",
            where=str(path),
            todo=f"uv pip compile --no-deps --generate-hashes {path} -o {path}",
        )
    if marked := [entry.name for entry in entries if entry.marker]:
        raise InputError(f"{', '.join(marked[:5])}: has a condition.", where=str(path))
    return {entry.name: entry for entry in entries}


def read_pins(path: Path) -> dict[str, str]:
    """Package names and versions of a lock file."""
    return {name: entry.version for name, entry in read_lock(path).items()}


def normal(name: str) -> str:
    """A package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(pins: Mapping[str, str], version: str) -> str:
    """What the stamp holds: a fingerprint of Python version and pins."""
    made_with = [version, dict(pins), "NIXL with a pause"]
    return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / "bin" / "python"


def site_packages(venv: Path, version: str) -> Path:
    """Where a virtual environment keeps its packages."""
    return venv / "lib" / f"python{version}" / "site-packages"


def installed(venv: Path, version: str) -> dict[str, str]:
    """Packages of a virtual environment and their versions, without starting its Python."""
    found = {}
    for path in site_packages(venv, version).glob("*.dist-info"):
        name, _, rest = path.name[: -len(".dist-info")].partition("-")
        if name and not name.startswith("~"):  # pip's own leftovers of an interrupted change
            found[normal(name)] = rest
    return found


def differences(pins: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """What differs from the pins, as text, one package each."""
    texts = []
    for name in sorted({*pins, *found}):
        if pins.get(name) != found.get(name):
            texts.append(f"{name}: {found.get(name, 'missing')} -> {pins.get(name, 'not wanted')}")
    return tuple(texts)


def venv_version(venv: Path) -> Optional[str]:
    """Python's version, like 3.11, in a virtual environment; None without a usable one."""
    try:
        text = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r"^version\s*=\s*(\d+\.\d+)", text, re.MULTILINE)
    return match[1] if match and python_of(venv).exists() else None


def check(venv: Path, requirements: Path) -> Status:
    """Look at an engine's virtual environment. Starts nothing, changes nothing."""
    if venv.exists() and not venv.is_dir():
        raise InputError("is a file, expected a folder for the engine.", where=str(venv))
    if not venv.exists() or all(path.name == LOCK for path in venv.iterdir()):
        return Status("missing")
    if not (venv / LOCK).exists():
        return Status("foreign")
    version = venv_version(venv)
    if version != PYTHON:
        return Status("incomplete", ("there is no usable Python in it",))
    pins = read_pins(requirements)
    texts = differences(pins, installed(venv, version))
    stamp = _stamp(venv)
    if stamp is None:
        return Status("incomplete", texts, version)
    changed = texts or stamp != digest(pins, version)
    return Status("changed" if changed else "ready", texts, version)


def _stamp(venv: Path) -> Optional[str]:
    try:
        return str(json.loads((venv / STAMP).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
