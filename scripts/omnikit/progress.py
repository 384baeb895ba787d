"""What a deployment says while it works: one line per change, the elapsed time in front."""

from __future__ import annotations

import json
import time
from typing import Any, Optional

from omnikit.log import say
from omnikit.timeline import Timeline


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
            self._states(data["nodes"])
            self._engines(event["host"], data["nodes"])

    def _states(self, nodes: list[dict[str, Any]]) -> None:
        words = []
        news = False
        for node in nodes:
            self.nodes[node["node"]] = node
            state = node["state"]
            ready = sum(server["state"] == "ready" for server in node["servers"])
            shown = state if len(node["servers"]) < 2 else f"{state} {ready}/{len(node['servers'])}"
            news = news or self.shown.get(node["node"]) != shown
            self.shown[node["node"]] = shown
            end = node["ready_at"] if state == "ready" else time.time()
            since = f" {end - node['started_at']:.0f} s" if node["started_at"] and end else ""
            words.append(f"{node['node']} {shown}{since}")
        if news or time.monotonic() - self.spoke >= self.quiet_s:
            self.say("  ".join(words))

    def _engines(self, host: str, nodes: list[dict[str, Any]]) -> None:
        """Write down when servers that this command started began and were ready, or failed."""
        for node in nodes:
            began = node["started_at"]
            if node["node"] in self.written or node["state"] not in ("ready", "failed"):
                continue
            end = node["ready_at"] if node["state"] == "ready" else time.time()
            if began is None or end is None or end < self.began_at:
                continue  # it was ready before
            self.written.add(node["node"])
            about = {"node": node["node"], "host": host, "start": began, "end": max(began, end)}
            self.timeline.write("engine", **about, result=node["state"])
