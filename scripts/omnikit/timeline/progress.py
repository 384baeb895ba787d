"""What a command does, when, on which host: kept (and shown) as JSON lines, summed up as a table,
and said while it works: one line per change, the elapsed time in front.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

from hostkit.base.log import say, table

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


_WAY_BACK = 5.0  # seconds an answer may be on its way: clocks that differ by less are equal


class Progress:
    """Turns the fleet's events into lines for a person, and remembers the nodes' last states."""

    def __init__(self, quiet_s: float = 10.0, timeline: Optional[Timeline] = None) -> None:
        self.timeline = timeline or Timeline()
        self.began = time.monotonic()
        self.quiet_s = quiet_s
        self.spoke = 0.0
        self.shown: dict[str, str] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.began_at = time.time()
        self.written: set[str] = set()
        self.at_end: list[Callable[[], None]] = []  # before it is said how it ended

    def say(self, message: str) -> None:
        """One line with the time since the command began."""
        self.spoke = time.monotonic()
        say(f"[{self.spoke - self.began:6.1f} s] {message}")
        self.timeline.write("said", text=message)

    def spoke_long_ago(self) -> bool:
        """Whether a person waits for a sign of life."""
        return time.monotonic() - self.spoke >= self.quiet_s

    def on_event(self, event: dict[str, Any]) -> None:
        """An event of fleet.play."""
        self.timeline.on_event(event)
        kind = event["event"]
        if kind in ("failed", "unreachable"):
            said = event.get("msg", "").strip().splitlines()
            self.say(f"{event['host']}: {event['task']}: {said[0] if said else kind}")
        if kind not in ("ok", "retry", "failed"):
            return
        try:
            data = json.loads(event["stdout"])
        except ValueError:
            return
        for name, what in data.get("done", {}).items():
            self.say(f"{name}: {what} on {event['host']}")
        if "verdict" in data:
            here = event.get("time", time.time())
            there = data.get("time", here)
            self._states(data["nodes"], there)
            self._engines(event["host"], data["nodes"], there, here - there)

    def _states(self, nodes: list[dict[str, Any]], now: float) -> None:
        """Say how the nodes are, if that is news. now: by their host's clock, as their times."""
        words = []
        news = False
        for node in nodes:
            self.nodes[node["node"]] = node
            state = node["state"]
            ready = sum(server["state"] == "ready" for server in node["servers"])
            shown = state if len(node["servers"]) < 2 else f"{state} {ready}/{len(node['servers'])}"
            news = news or self.shown.get(node["node"]) != shown
            self.shown[node["node"]] = shown
            end = node["ready_at"] if state == "ready" else now
            since = f" {end - node['started_at']:.0f} s" if node["started_at"] and end else ""
            words.append(f"{node['node']} {shown}{since}")
        if news or time.monotonic() - self.spoke >= self.quiet_s:
            self.say("  ".join(words))

    def _engines(self, host: str, nodes: list[dict[str, Any]], now: float, behind: float) -> None:
        """Write down when servers that this command started began and were ready, or failed.

        now: by the host's clock, which is behind this machine's; all is written by this machine's,
        as the steps are.
        """
        if abs(behind) <= _WAY_BACK:
            behind = 0.0
        for node in nodes:
            began = node["started_at"]
            if node["node"] in self.written or node["state"] not in ("ready", "failed"):
                continue
            end = node["ready_at"] if node["state"] == "ready" else now
            if began is None or end is None or end + behind < self.began_at:
                continue  # it was ready before
            self.written.add(node["node"])
            times = {"start": began + behind, "end": max(began, end) + behind, "behind": behind}
            about = {"node": node["node"], "host": host, "result": node["state"]}
            self.timeline.write("engine", **about, **times)
