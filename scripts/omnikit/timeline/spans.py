"""What a command did, when, on which host: kept (and shown) as JSON lines, summed up as a table."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

from hostkit.base.log import table

HERE = "here"
_MOST_COLUMNS = 8  # hosts side by side


@dataclass(frozen=True)
class Span:
    """A step on a host (HERE: this machine). start, end: seconds since the epoch."""

    step: str
    host: str
    start: float
    end: float
    result: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Timeline:
    """Collects spans; with a file, each is also appended there as one JSON line.

    shown: the same lines go to standard output as they come.
    """

    def __init__(self, file: Optional[Path] = None, shown: bool = False) -> None:
        self.file = file
        self.shown = shown
        self.spans: list[Span] = []
        self._began: dict[str, float] = {}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write(self, kind: str, **fields: Any) -> None:
        """A line for the file and the output: what kind of entry, when, and its fields."""
        line = json.dumps({"kind": kind, "time": time.time(), **fields})
        if self.file is not None:  # first: a reader of the output may have gone away
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if self.shown:
            print(line, flush=True)

    def add(self, span: Span) -> None:
        """A step that has ended."""
        self.spans.append(span)
        self.write("span", **asdict(span))

    @contextmanager
    def step(self, name: str, host: str = HERE) -> Iterator[None]:
        """Measure what is done inside."""
        start = time.time()
        try:
            yield
        except BaseException:
            self.add(Span(name, host, start, time.time(), "failed"))
            raise
        self.add(Span(name, host, start, time.time(), "ok"))

    def on_event(self, event: dict[str, Any]) -> None:
        """An event of fleet.play: a task began, or ended on a host."""
        if "time" not in event:
            return
        if event["event"] == "task":
            self._began[event["task"]] = event["time"]
        elif event["event"] in ("ok", "failed", "unreachable"):
            start = self._began.get(event["task"], event["time"])
            result = event["event"]
            if result == "ok" and event.get("changed"):
                result = "changed"
            self.add(Span(event["task"], event["host"], start, event["time"], result))

    def as_text(self) -> str:
        """Seconds per step and host, a row for each step, or for each host where they are many.

        Several spans of one step on a host are added.
        """
        hosts = list(dict.fromkeys(span.host for span in self.spans))
        steps = list(dict.fromkeys(span.step for span in self.spans))
        cells: dict[tuple[str, str], float] = {}
        for span in self.spans:
            key = (span.step, span.host)
            cells[key] = cells.get(key, 0.0) + span.seconds

        def cell(step: str, host: str) -> str:
            return f"{cells[step, host]:.1f}" if (step, host) in cells else "-"

        if len(hosts) > _MOST_COLUMNS:
            rows = [[host, *(cell(step, host) for step in steps)] for host in hosts]
            return table(rows, ["seconds", *steps])
        rows = [[step, *(cell(step, host) for host in hosts)] for step in steps]
        return table(rows, ["seconds", *hosts])
