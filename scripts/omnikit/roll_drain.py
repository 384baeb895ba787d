"""When a prefill instance that gets no new requests is no longer needed by anyone."""

from __future__ import annotations

import time
from typing import Any, Callable, Iterable, Optional, Sequence

from omnikit import health, jobs
from omnikit.deployment import Deployment
from omnikit.errors import ActionError
from omnikit.plan_types import NodePlan
from omnikit.progress import Progress

# What the servers of a host say: by server, by load. None: it did not say.
Loads = dict[str, dict[str, Optional[float]]]
_SLICE_S = 5.0  # so long a host looks before it tells


def busy(loads: Loads, keys: Sequence[str]) -> bool:
    """Whether a load is not 0, or not known: who does not answer may have work.

    >>> busy({"p0": {"running": 0.0, "kv_usage": 0.1}}, ["running"])
    False
    >>> busy({"p0": {"running": None}}, ["running"])
    True
    """
    return any(load.get(key, 0.0) != 0.0 for load in loads.values() for key in keys)


def shown(loads: Loads) -> str:
    """For a person: p0 running 2, waiting 0, kv_usage 0.1."""
    return "; ".join(
        f"{name} "
        + ", ".join(f"{k} {'unknown' if v is None else format(v, 'g')}" for k, v in load.items())
        for name, load in loads.items()
    )


class Wait:
    """Decides from loads. KV of answered requests stays in the cache until decode has fetched it.

    An engine says so by kv_usage, but not reliably: vLLM 0.9 shows more than 0 for an empty cache,
    and some versions free nothing before their next request. So it is also enough that no decode
    server has a request waiting, which one that lacks its KV does, or that KV was kept for kv_s.
    """

    def __init__(self, kv_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.kv_s = kv_s
        self.now = now
        self.since: Optional[float] = None
        self.why = ""

    def over(self, prefill: Loads, decode: Callable[[], Loads]) -> bool:
        """Whether the instance may end; decode is asked only when that matters."""
        if busy(prefill, ["running", "waiting"]):
            self.since = None
            return False
        self.since = self.now() if self.since is None else self.since
        if not busy(prefill, ["kv_usage"]):
            self.why = "idle"
        elif not busy(decode(), ["waiting"]):
            self.why = "idle, and no decode server waits for KV"
        elif self.now() - self.since >= self.kv_s:
            self.why = f"idle, and nobody has fetched its KV for {self.kv_s:g} s"
        return bool(self.why)


def drain(deployment: Deployment, name: str, nodes: Sequence[NodePlan], progress: Progress) -> None:
    """Wait until an instance (its name and nodes) has no work. Raises ActionError."""
    settings, plan = deployment.config.settings, deployment.plan
    wait = Wait(settings.roll.kv_s)
    decode = [node for node in plan.nodes if node.role == "decode"]
    last: Loads = {}

    def over() -> bool:
        nonlocal last
        last = _ask(deployment, nodes, ["running", "waiting"])
        made = wait.over(last, lambda: _ask(deployment, decode, ["waiting"]))
        if not made and time.monotonic() - progress.spoke >= progress.quiet_s:
            progress.say(f"{name} still has work: {shown(last)}")
        return made

    if not health.wait_until(over, settings.roll.drain_s, settings.readiness.poll_interval_s):
        raise ActionError(
            f"{name} still had work after {settings.roll.drain_s:g} s ({shown(last)});"
            " it was not restarted and is in the proxy again.",
            where="roll.drain_s",
            todo="raise roll.drain_s; or, where that work does not matter: invoke restart",
        )
    progress.say(f"{name}: {wait.why}, restarting")


def _ask(deployment: Deployment, nodes: Iterable[NodePlan], keys: Sequence[str]) -> Loads:
    """The loads of some nodes once these keys are 0, or after a while."""
    settings = deployment.config.settings
    work_dirs = {host.name: host.work_dir for host in deployment.plan.hosts}
    parameters: dict[str, dict[str, Any]] = {}
    for node in nodes:
        if node.servers:
            there = parameters.setdefault(node.host, {"nodes": []})
            there.update(work_dir=work_dirs[node.host], keys=list(keys))
            there["seconds"] = min(_SLICE_S, settings.roll.drain_s)
            there["nodes"].append(node.name)
    done = jobs.results(jobs.run(deployment.plan, settings, "drain", parameters))
    found: Loads = {}
    for result in done.values():
        found.update(result["loads"])
    return found
