"""The records that deployments leave (deploy.record): found by name, read as one run each; and one
as a trace that Perfetto and chrome://tracing open.

The trace's format is Chrome's "Trace Event Format": complete events (ph X) with ts and dur in
microseconds, a process for each host, and in it a thread for its steps and one for each server.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.log import say
from hostkit.base.writing import written
from hostkit.files import regular
from omnikit.config.layers import control_folder
from omnikit.timeline.progress import Span

OK, FAILED, REFUSED, CUT_OFF = "ok", "failed", "refused", "cut off"
DEPLOYMENTS = ("deploy", "rollback")  # the commands that bring a whole environment to its plan
_FAR = 1e11  # seconds: beyond this a number is no moment that has a date


@dataclass(frozen=True)
class Engine:
    """A server's start on its host; times in seconds since the epoch, by this machine's clock.

    behind: how far the host's own clock was behind when it was asked; below 0: ahead.
    """

    node: str
    host: str
    start: float
    end: float
    result: str
    behind: float = 0.0


# What an entry of a kind must have: texts, moments.
_NEEDED = {
    "span": (("step", "host", "result"), ("start", "end")),
    "engine": (("node", "host", "result"), ("start", "end")),
}


@dataclass(frozen=True)
class Record:
    """One run of a command that changes an environment.

    began, ended: seconds since the epoch. result: OK, FAILED, REFUSED where somebody else's lock
    was in the way and nothing was done, or CUT_OFF where the command was killed before it could
    say. error: why it failed.
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
    damaged: list[str] = []
    return list(_good(environment, damaged.append)), damaged


def newest(
    environment: str, say_damaged: Callable[[str], None], only: tuple[str, ...] = ()
) -> Optional[Record]:
    """The newest record that can be read, of a command that was not refused if there is one.

    only: rather of one of these commands. say_damaged: gets what is wrong with newer records.
    """
    first: Optional[Record] = None
    done: Optional[Record] = None
    for record in _good(environment, say_damaged):
        first = first or record
        if record.result == REFUSED:
            continue
        done = done or record
        if not only or record.what in only:
            return record
    return done or first


def _good(environment: str, say_damaged: Callable[[str], None]) -> Iterator[Record]:
    for path in paths(environment):
        try:
            yield read(path)
        except InputError as error:
            say_damaged(f"{Path(error.where or path).name}: {error.what}")


def read(path: Path) -> Record:
    """One record. A last line that was not written whole is left out. Raises InputError."""
    try:
        lines = regular.text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the record cannot be read: {error}.", where=str(path)) from error
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(_entry(line))
        except (ValueError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break  # killed while it wrote
            said = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise InputError(
                f"this line is none of a record: {said}.",
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
    if not isinstance(entry, dict):
        raise ValueError("no object")
    _check(entry, ("kind",), ("time",))
    _check(entry, *_NEEDED.get(entry["kind"], ((), ())))
    if "behind" in entry:
        _check(entry, (), ("behind",))
    return entry


def _check(entry: dict[str, Any], texts: tuple[str, ...], moments: tuple[str, ...]) -> None:
    """Raise ValueError that names the first field that is missing or of the wrong type."""
    for name in (*texts, *moments):
        if name not in entry:
            raise ValueError(f"it has no {name!r}")
    for name in texts:
        if not isinstance(entry[name], str):
            raise ValueError(f"{name!r} is {_short(entry[name])}, not a text")
    for name in moments:
        if not _is_moment(entry[name]):
            raise ValueError(f"{name!r} is {_short(entry[name])}, not a time in seconds")


def _is_moment(value: Any) -> bool:
    """JSON from Python may have NaN and Infinity; and true is a number to Python."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _FAR and not math.isnan(value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _record(path: Path, entries: list[dict[str, Any]]) -> Record:
    command = next((e for e in entries if e["kind"] == "command"), {})
    ends = [e for e in entries if e["kind"] in ("result", "failed")]
    result, error = CUT_OFF, ""
    if ends:
        bad = REFUSED if ends[-1].get("refused") is True else FAILED
        result = OK if ends[-1]["kind"] == "result" else bad
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
    return kind(**{name: entry[name] for name in kind.__dataclass_fields__ if name in entry})


def find(environment: str, name: Optional[str] = None) -> Record:
    """A record by its name, or by a path; None: see newest. Raises InputError.

    A damaged record never hides an older one: it is named, and left out.
    """
    known = paths(environment)
    if name and (name.endswith(".jsonl") or "/" in name):
        return read(Path(name).expanduser())
    if not known:
        raise InputError(
            f"no deployment of {environment} was recorded here.", todo="run one: make deploy"
        )
    if not name:
        last = newest(environment, lambda damaged: say(f"left out: {damaged}"))
        return last or read(known[0])  # which says what is wrong with it
    found = [path for path in known if path.stem == name]
    found = found or [path for path in known if path.stem.startswith(name)]
    if len(found) != 1:
        stems = ", ".join(path.stem for path in known[:5])
        many = f"{len(found)} records begin with {name!r}" if found else f"no record {name!r}"
        raise InputError(
            f"there is {many}, the newest are: {stems}." if not found else f"{many}.",
            where="--record",
            todo="see all: invoke timeline --list",
        )
    return read(found[0])


_STEPS = 1  # the thread of a host's steps; more where they overlap
_ENGINES = 100


def path_beside(record: Path) -> Path:
    """The trace that belongs to a record: the same name, .trace.json."""
    return record.with_name(f"{record.stem}.trace.json")


def write_beside(record: Path) -> None:
    """Write the trace of a record that has just ended. A record that is none is left alone."""
    try:
        found = read(record)
    except InputError:
        return
    write(found, path_beside(record))


def write(record: Record, path: Path) -> None:
    """Write a record's trace, whole. Raises OSError."""
    with written(path) as beside:
        beside.write_text(json.dumps(trace(record), indent=1) + "\n", encoding="utf-8")


def write_to(record: Record, path: Path) -> None:
    """The same for a path that a user gave (see out_file). Raises InputError."""
    try:
        write(record, path)
    except OSError as error:
        raise InputError(
            f"the trace cannot be written: {error.strerror}.",
            where=f"--trace {path}",
            todo="choose another place",
        ) from error


def trace(record: Record) -> dict[str, Any]:
    """The trace as data. Times count from the moment when the command began."""
    spans, engines = record.spans, record.engines
    hosts = dict.fromkeys([*(s.host for s in spans), *(e.host for e in engines)])
    events: list[dict[str, Any]] = []
    for pid, host in enumerate(hosts, 1):
        events.append(_name("process_name", pid, 0, f"host {host}"))
        events.append({**_name("process_sort_index", pid, 0, ""), "args": {"sort_index": pid}})
        own = [span for span in spans if span.host == host]
        for lane, in_lane in enumerate(lanes(own)):
            thread = _STEPS + lane
            events.append(_name("thread_name", pid, thread, "steps"))
            events += [_event(record, pid, thread, span, span.step) for span in in_lane]
        starts = [engine for engine in engines if engine.host == host]
        for number, engine in enumerate(starts):
            thread = _ENGINES + number
            events.append(_name("thread_name", pid, thread, f"server {engine.node}"))
            events.append(_event(record, pid, thread, engine, f"{engine.node} starts"))
    about = {"command": record.what, "owner": record.owner, "began_at": record.began}
    about.update({"result": record.result, "error": record.error})
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


def lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """The same spans in as few rows as will do, so that none overlaps another of its row."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda one: one.start):
        row = next((row for row in rows if row[-1].end <= span.start), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "ts": 0, "args": {"name": name}}


def _event(record: Record, pid: int, tid: int, one: Span | Engine, name: str) -> dict[str, Any]:
    start, end = one.start - record.began, one.end - record.began
    args: dict[str, Any] = {"host": one.host, "result": one.result}
    if isinstance(one, Engine) and one.behind:
        args["host_clock_behind_s"] = round(one.behind, 3)
    if start < 0:  # another clock, or begun by an earlier command: Perfetto drops what is below 0
        args["began_s"] = round(start, 3)
        start = 0.0 if end > 0 else start
        start, end = 0.0, end - start
    return {
        "ph": "X",
        "name": name,
        "cat": "step" if isinstance(one, Span) else "server",
        "pid": pid,
        "tid": tid,
        "ts": round(start * 1e6),
        "dur": round(max(0.0, end - start) * 1e6),
        "args": args,
    }
