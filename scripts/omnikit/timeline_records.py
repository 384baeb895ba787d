"""The records that deployments leave (see deploy_record): found by name, read as one run each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from omnikit.deployment import control_folder
from omnikit.errors import InputError
from omnikit.timeline import Span

OK, FAILED, CUT_OFF = "ok", "failed", "cut off"


@dataclass(frozen=True)
class Engine:
    """A server's start on its host, by that host's clock; times in seconds since the epoch."""

    node: str
    host: str
    start: float
    end: float
    result: str


# What an entry of a kind must have.
_NEEDED = {"span": set(Span.__dataclass_fields__), "engine": set(Engine.__dataclass_fields__)}


@dataclass(frozen=True)
class Record:
    """One run of a command that changes an environment.

    began, ended: seconds since the epoch. result: OK, FAILED, or CUT_OFF where the command was
    killed before it could say. error: why it failed.
    """

    path: Path
    what: str
    owner: str
    began: float
    ended: float
    result: str
    error: str
    spans: tuple[Span, ...]
    engines: tuple[Engine, ...]

    @property
    def name(self) -> str:
        """Its name: the time when it began, as in 20261123T160458Z."""
        return self.path.stem

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.ended - self.began)


def folder(environment: str) -> Path:
    """Where an environment's records are."""
    return control_folder(environment) / "timelines"


def paths(environment: str) -> list[Path]:
    """The file of every record, the newest first."""
    return sorted(folder(environment).glob("*.jsonl"), reverse=True)


def all_of(environment: str) -> tuple[list[Record], list[str]]:
    """Every record, the newest first; and what is wrong with those that cannot be read."""
    found, damaged = [], []
    for path in paths(environment):
        try:
            found.append(read(path))
        except InputError as error:
            damaged.append(f"{path.name}: {error.what}")
    return found, damaged


def read(path: Path) -> Record:
    """One record. A last line that was not written whole is left out. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the record cannot be read: {error}.", where=str(path)) from error
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(_entry(line))
        except ValueError as error:
            if number == len(lines):
                break  # killed while it wrote
            raise InputError(
                "this line is none of a record.",
                where=f"{path}:{number}",
                todo="choose another record: invoke timeline --list",
            ) from error
    if not entries:
        raise InputError(
            "the record is empty.", where=str(path), todo="see the others: invoke timeline --list"
        )
    return _record(path, entries)


def _entry(line: str) -> dict[str, Any]:
    """A line's entry. Raises ValueError for what is none."""
    entry = json.loads(line)
    if not isinstance(entry, dict) or "kind" not in entry or "time" not in entry:
        raise ValueError(line)
    if not _NEEDED.get(entry["kind"], set()) <= set(entry):
        raise ValueError(line)
    return entry


def _record(path: Path, entries: list[dict[str, Any]]) -> Record:
    command = next((e for e in entries if e["kind"] == "command"), {})
    ends = [e for e in entries if e["kind"] in ("result", "failed")]
    result, error = CUT_OFF, ""
    if ends:
        result = OK if ends[-1]["kind"] == "result" else FAILED
        error = str(ends[-1].get("error", ""))
    return Record(
        path=path,
        what=str(command.get("what", "?")),
        owner=str(command.get("owner", "?")),
        began=float(entries[0]["time"]),
        ended=max(float(e["time"]) for e in entries),
        result=result,
        error=error,
        spans=tuple(_of(Span, e) for e in entries if e["kind"] == "span"),
        engines=tuple(_of(Engine, e) for e in entries if e["kind"] == "engine"),
    )


def _of(kind: Any, entry: dict[str, Any]) -> Any:
    return kind(**{name: entry[name] for name in kind.__dataclass_fields__})


def find(environment: str, name: Optional[str] = None) -> Record:
    """A record by its name, or by a path; None: the newest. Raises InputError."""
    known = paths(environment)
    if name and (name.endswith(".jsonl") or "/" in name):
        return read(Path(name).expanduser())
    if not known:
        raise InputError(
            f"no deployment of {environment} was recorded here.", todo="run one: make deploy"
        )
    if not name:
        return read(known[0])
    found = [path for path in known if path.stem.startswith(name)]
    if len(found) != 1:
        stems = ", ".join(path.stem for path in known[:5])
        many = f"{len(found)} records begin with {name!r}" if found else f"no record {name!r}"
        raise InputError(
            f"there is {many}, the newest are: {stems}." if not found else f"{many}.",
            where="--record",
            todo="see all: invoke timeline --list",
        )
    return read(found[0])
