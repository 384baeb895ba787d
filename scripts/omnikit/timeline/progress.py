"""What a deployment says while it works: one line per change, the elapsed time in front."""

from __future__ import annotations

import json
import time
from typing import Any, Optional

from hostkit.base.log import say
from omnikit.timeline.spans import Timeline

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
