"""What runs now, look by look: states and figures of all servers, what a command is doing to them,
and the last events. Reads only; what cannot be asked is said in its place.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import ToolkitError
from hostkit.base.log import shown
from omnikit.access import targets
from omnikit.config.config import Config
from omnikit.config.layers import control_folder
from omnikit.deploy import status
from omnikit.logs import history
from omnikit.timeline import records
from omnikit.topology.topology import make_plan

Snapshot = dict[str, Any]
EVENTS_S, EVENTS = 10.0, 8  # between two looks at what happened; how many are shown
_LINES = 4  # of what a command said last
_SINCE_S = 86400.0  # what happened before is not of interest here


class Looker:
    """Looks again and again at one environment; rates are those since the look before."""

    def __init__(self, config: Config) -> None:
        self.config, self.plan = config, make_plan(config)
        self._before: dict[str, Mapping[str, Any]] = {}  # servers by name, with the time
        self._events: list[dict[str, Any]] = []
        self._asked_at = 0.0

    def look(self) -> Snapshot:
        """Everything that is shown, as JSON has it; times are seconds since the epoch."""
        error = ""
        nodes: list[dict[str, Any]] = []
        try:
            nodes = status.states(self.config, self.plan)
        except ToolkitError as failure:
            error = str(failure)
        at = time.time()
        out = {name for node in nodes for name in node.get("out_of_pool", ())}
        instances = [self._instance(node, out, at) for node in nodes]
        doing = under_way(self.plan.environment)
        found = {
            "environment": self.plan.environment,
            "url": targets.url(self.plan, self.config.settings),
            "at": at,
            "error": error,
            "instances": instances,
            "total": _total(instances),
            "doing": doing,
            "events": self._happened(at),
        }
        cleaned: Snapshot = _clean(found)
        return cleaned

    def _instance(self, node: Mapping[str, Any], out: set[str], at: float) -> dict[str, Any]:
        servers = [dict(one) for one in node["servers"]]
        states = {one["state"] for one in servers}
        state = node["state"] if states <= {node["state"]} else (states - {"ready"} or states).pop()
        away = [s["name"] for s in servers if f"{s.get('address')}:{s.get('port')}" in out]
        found = {
            "name": node["node"], "role": node["role"], "host": node["host"], "state": state,
            "servers": len(servers), "in_pool": not away, "why": self._why(node, servers, away),
            "up_s": min(_known(servers, "uptime_s"), default=None),
            **{key: _sum(servers, key) for key in ("running", "waiting")},
            "kv": max(_known(servers, "kv_usage"), default=None),
        }  # fmt: skip
        rates = [self._rates(one, at) for one in servers]
        for key in ("requests_s", "tokens_s"):
            found[key] = _sum(rates, key)
        found["first_s"] = _mean(rates, "first_s")
        return found

    @staticmethod
    def _why(
        node: Mapping[str, Any], servers: Sequence[Mapping[str, Any]], away: Sequence[str]
    ) -> str:
        if node.get("left_out"):
            return f"sends nothing to {', '.join(node['left_out'])}: a rolling restart left it out"
        if node.get("reason") and node["state"] != "ready":
            return str(node["reason"])
        for one in servers:
            if one["state"] == "failed":
                return str(one.get("reason") or (one.get("tail") or [""])[-1])
        if away:
            return f"the proxy gives {', '.join(away)} no requests"
        again = node.get("restarts")
        return f"started again {again['count']} times: {again['why']}" if again else ""

    def _rates(self, server: Mapping[str, Any], at: float) -> dict[str, Optional[float]]:
        """Of a server since the look before; nothing where it is another process since."""
        before = self._before.get(server["name"])
        self._before[server["name"]] = {**server, "at": at}
        if before is None or before.get("pid") != server.get("pid") or at <= before["at"]:
            return {}

        def grown(key: str) -> Optional[float]:
            now, then = server.get(key), before.get(key)
            return None if now is None or then is None or now < then else now - then

        seconds = at - before["at"]
        answered, made = grown("answered"), grown("generated")
        waited, firsts = grown("first_token_s"), grown("first_tokens")
        return {
            "requests_s": None if answered is None else answered / seconds,
            "tokens_s": None if made is None else made / seconds,
            "first_s": waited / firsts if waited is not None and firsts else None,
        }

    def _happened(self, at: float) -> list[dict[str, Any]]:
        if at - self._asked_at >= EVENTS_S and status.is_deployed(self.config):
            self._asked_at = at
            with suppress(ToolkitError):  # hosts that do not answer are shown as such
                found = history.collect(self.config, [], [], _SINCE_S)
                self._events = list(found.events)[-EVENTS:]
        return self._events


def _clean(value: Any) -> Any:
    """The same, with what logs and hosts said as a terminal may get it."""
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_clean(one) for one in value]
    return shown(value) if isinstance(value, str) else value


def _known(entries: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [one[key] for one in entries if one.get(key) is not None]


def _sum(entries: Sequence[Mapping[str, Any]], key: str) -> Optional[float]:
    return sum(_known(entries, key)) if _known(entries, key) else None


def _mean(entries: Sequence[Mapping[str, Any]], key: str) -> Optional[float]:
    return statistics.fmean(_known(entries, key)) if _known(entries, key) else None


def _total(instances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all. Each request is answered by one decode or co-located server, in the end."""
    ends = [one for one in instances if one["role"] in ("decode", "colocated")]
    prefill = [one for one in instances if one["role"] == "prefill"]
    serving = [one for one in instances if one["state"] == "ready" and one["in_pool"]]
    return {
        **{key: _sum(ends, key) for key in ("requests_s", "tokens_s", "running")},
        "waiting": _sum(instances, "waiting"),
        # A client waits for prefill, and then for decode.
        "first_s": _sum([{"s": _mean(ends, "first_s")}, {"s": _mean(prefill, "first_s")}], "s"),
        "ready": len(serving),
        "of": len(instances),
    }


def under_way(environment: str) -> Optional[dict[str, Any]]:
    """The command that changes an environment from this machine now, what it said last, and how
    long those before it took; None: there is none.
    """
    if not _is_held(control_folder(environment) / "lock"):
        return None
    paths = records.paths(environment)
    for path in paths[:1]:
        with suppress(ToolkitError):
            now = records.read(path)
            if now.result != records.CUT_OFF:  # it ended already, and another begins
                return None
            said = [line for line in _lines(path.with_suffix(".log")) if line.strip()]
            return {
                "what": now.what, "owner": now.owner, "began": now.began,
                "said": said[-_LINES:], "about_s": _usual(environment, now.what),
            }  # fmt: skip
    return None


def _is_held(lock: Path) -> bool:
    """By what the kernel lists: an attempt to take it could be in a command's way."""
    with suppress(OSError):
        found = lock.stat()
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        return any(" FLOCK " in line and place in line.split() for line in held)
    return False


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _usual(environment: str, what: str) -> Optional[float]:
    """Seconds that a command took when it was well the last three times."""
    found = list(_well(environment, what))
    return statistics.median(found) if found else None


def _well(environment: str, what: str) -> Iterator[float]:
    left = 3
    for path in records.paths(environment)[1:40]:
        with suppress(ToolkitError):
            one = records.read(path)
            if left and one.what == what and one.result == records.OK:
                left -= 1
                yield one.seconds
