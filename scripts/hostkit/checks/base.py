"""What the checks of a host share: how a finding looks, and looks that end in time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

from hostkit.base import run
from hostkit.base.errors import ToolkitError
from hostkit.ranks.device_query import NoAnswer

# One line of what check-env found, as every check gives it.
Entry = dict[str, Any]
OK, WARNING, FAILED, UNKNOWN = "ok", "warning", "failed", "unknown"
MIB = 1 << 20
# A killed process has this long to be gone. One that waits in a driver or in a dead file system
# does not go at all.
_DYING_S = 1.0

Found = TypeVar("Found")


def entry(
    name: str, title: str, ok: bool, *, required: bool, found: str, needed: str, todo: str
) -> Entry:
    """A check that holds or does not; one that is not required is at worst a warning."""
    bad = FAILED if required else WARNING
    return {
        "id": name,
        "title": title,
        "state": OK if ok else bad,
        "required": required,
        "found": found,
        "needed": needed,
        "todo": "" if ok else todo,
    }


def is_fatal(one: Entry) -> bool:
    """Whether a required check failed."""
    return one["state"] == FAILED and bool(one["required"])


class Group:
    """One group of checks: what it was asked (parameters of the job), what it found."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.given = parameters
        self.limits: dict[str, Any] = parameters["checks"]
        self.timeout_s = float(self.limits["timeout_s"])
        self.checks: list[Entry] = []
        self.facts: dict[str, Any] = {}

    @property
    def in_containers(self) -> bool:
        """Whether the servers will run in containers."""
        return bool(self.given["runtime"] == "docker")

    def path(self, text: Union[str, Path]) -> Path:
        """A system path of this host.

        parameters["root"] is for the tests alone: they put a tree of /dev, /proc/sys, /etc and
        /usr/local into a folder of their own.
        """
        return Path(self.given.get("root", "/")) / str(text).lstrip("/")

    def add(
        self,
        name: str,
        title: str,
        ok: bool,
        *,
        found: str,
        needed: str = "",
        todo: str = "",
        required: bool = True,
    ) -> None:
        """Note a check that holds or does not; one that is not required is at worst a warning."""
        self.checks.append(
            entry(name, title, ok, required=required, found=found, needed=needed, todo=todo)
        )

    def unknown(self, name: str, title: str, why: str, *, needed: str = "", todo: str = "") -> None:
        """Note a check that could not be made."""
        unknown = entry(name, title, False, required=False, found=why, needed=needed, todo=todo)
        self.checks.append({**unknown, "state": UNKNOWN})

    def error(
        self, name: str, title: str, error: ToolkitError, *, needed: str, todo: str = ""
    ) -> None:
        """Note a required check that failed in looking."""
        self.add(
            name, title, False, found=one_line(error.what), needed=needed, todo=error.todo or todo
        )

    def ask(self, *argv: Union[str, Path], cwd: Optional[Path] = None) -> run.Result:
        """Run a quick command to its end. Raises ToolkitError when it is missing or hangs."""
        return within(
            self.timeout_s,
            run.show(argv),
            lambda: run.run(argv, check=False, timeout=self.timeout_s, cwd=cwd),
        )

    def answers(self, path: Union[str, Path]) -> None:
        """Raise NoAnswer when the file system of a path hangs (a dead NFS server).

        A child asks: this process would hang for good.
        """
        self.ask("stat", "--file-system", path)


def within(seconds: float, what: str, work: Callable[[], Found]) -> Found:
    """The result of work, which may hang. Raises NoAnswer when it takes longer than seconds."""
    found: list[Found] = []
    errors: list[BaseException] = []

    def do() -> None:
        try:
            found.append(work())
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=do, daemon=True)
    worker.start()
    worker.join(seconds + _DYING_S)
    if errors:
        raise errors[0]
    if not found:
        raise NoAnswer(f"no answer within {seconds:g} s from: {what}")
    return found[0]


def existing(path: Union[str, Path]) -> Path:
    """The path itself, or the nearest folder above it that there is."""
    found = Path(path)
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def one_line(text: str) -> str:
    """A text of several lines as one."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def pairs(text: str) -> dict[str, str]:
    """The KEY=VALUE lines of a text; keys in small letters, values without quotes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found.setdefault(key.strip().lower(), value.strip().strip("'\""))
    return found


def read_pairs(path: Path) -> Optional[dict[str, str]]:
    """The KEY=VALUE lines of a file; None when it cannot be read."""
    try:
        return pairs(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
