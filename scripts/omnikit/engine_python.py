"""Finds a Python that the engine runs on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Optional, Sequence

from omnikit import run
from omnikit.engine_pins import SUPPORTED
from omnikit.errors import InputError

CANDIDATES = (*(f"python{version}" for version in SUPPORTED), "python3")
_TODO = (
    "install python3.11 with its venv module and name it, for example:"
    " --python /usr/bin/python3.11 (setting engine.python)"
)


@dataclass(frozen=True)
class Python:
    """An interpreter and its version, like 3.11."""

    path: str
    version: str


def find(wanted: Optional[str], candidates: Sequence[str] = CANDIDATES) -> Python:
    """The wanted interpreter, or the first usable of the candidates.

    Raises InputError that says what was found instead.
    """
    seen = []
    for name in [wanted] if wanted else candidates:
        path = shutil.which(name)
        python = _ask(path) if path else None
        if python and python.version in SUPPORTED:
            return python
        seen.append(f"{name} is {f'Python {python.version}' if python else 'not there'}")
    raise InputError(
        f"the CPU engine needs Python {' or '.join(sorted(SUPPORTED))}; found: {', '.join(seen)}.",
        todo=_TODO,
    )


def _ask(path: str) -> Optional[Python]:
    """None where it does not run: version managers leave such stand-ins on the PATH."""
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    said = run.run([path, "-c", code], check=False)
    version, _, real = said.out.strip().partition(" ")
    return Python(real or path, version) if said.code == 0 else None
