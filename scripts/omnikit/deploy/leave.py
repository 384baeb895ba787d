"""Instances that served what was proved last and are not planned any more.

They get no new requests, end what they have, and only then are ended. Where that was cut off it is
found again by the last release, which has them until a deployment without them is proved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Mapping, Optional

from hostkit.base.errors import ToolkitError
from omnikit.config.schema import ROLES
from omnikit.deploy import roll, status
from omnikit.fleet import jobs
from omnikit.plan.types import HostPlan
from omnikit.prepare.deployment import Deployment
from omnikit.runs import releases
from omnikit.runs import run as runs_run
from omnikit.runs.run import Run
from omnikit.timeline.progress import Progress


@dataclass(frozen=True)
class Leaving:
    """instances of the deployment before, and where they are. hosts: those that have nothing else
    of this environment; seen: what they said of themselves (see omnikit.runs). away: why others
    cannot be reached, by host.
    """

    before: Deployment
    instances: tuple[roll.Instance, ...]
    hosts: tuple[HostPlan, ...]
    seen: Mapping[str, dict[str, Any]]
    away: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [one.name for one in self.instances]

    @property
    def nodes(self) -> list[str]:
        """The names of their parts."""
        return [node.name for one in self.instances for node in one.nodes]


def found(deployment: Deployment) -> Optional[Leaving]:
    """Those of the last release that a deployment does without; None: there are none."""
    known = releases.all_of(deployment.plan.environment)
    if releases.deployed_last(deployment):
        return None
    try:
        before = releases.restored(known[-1], deployment.config, deployment.plan) if known else None
    except ToolkitError:  # of another version of the toolkit: nothing can be said of it
        return None
    if before is None:
        return None
    planned = {(node.host, node.name) for node in deployment.plan.nodes}
    gone = tuple(
        one
        for one in roll.instances(before.plan, ROLES)
        if not planned & {(node.host, node.name) for node in one.nodes}
    )
    if not gone:
        return None
    there = {host.name for host in deployment.plan.hosts}
    lost = {name for one in gone for name in one.hosts} - there
    hosts = [host for host in before.plan.hosts if host.name in lost]
    seen, away = runs_run.ask(hosts, before.config.settings)
    reached = tuple(host for host in hosts if host.name in seen)
    return Leaving(before, gone, reached, seen, {name: e.what for name, e in away.items()})


def interrupts(leaving: Leaving, deployment: Deployment) -> str:
    """Why they cannot end what they have before they leave; "": they can."""
    names = ", ".join(leaving.names)
    stay = {
        one.role
        for one in roll.instances(leaving.before.plan, ROLES)
        if one.servers and one not in leaving.instances
    }
    if last := {one.role for one in leaving.instances} - stay:
        return f"with {names} all that serves as {' and '.join(sorted(last))} leaves"
    can = deployment.proxy_kind == "nginx-lua" or (
        deployment.proxy_kind == "omni-nginx"
        and all(one.role == "prefill" for one in leaving.instances)
    )
    return "" if can else f"a proxy of kind {deployment.proxy_kind} cannot leave {names} out"


def take_out(
    leaving: Leaving, deployment: Deployment, progress: Progress, run: Run, now: bool = False
) -> None:
    """Nothing new goes to them, and they end what they have; now: that is not waited for.

    Raises ActionError for one that does not come to an end: then all are in the proxy again.
    """
    proxy = deployment.plan.proxy
    if proxy is None or leaving.before.plan.proxy is None:
        return
    names = ", ".join(leaving.names)
    if why := interrupts(leaving, deployment):
        progress.say(f"{why}: requests that are there fail")
        return
    observed = status.observe(deployment.config, deployment.plan).get(proxy.name, {})
    if observed.get("state") != "ready":
        return
    versions = observed.get("versions", {})
    missing = list(observed.get("left_out", []))
    servers = [server for one in leaving.instances for server in one.servers]

    def tell(out: list[str]) -> None:
        given = {"node": proxy.name, "run": run.id, "out": out, "versions": versions}
        work_dir = next(h.work_dir for h in deployment.plan.hosts if h.name == proxy.host)
        settings = deployment.config.settings
        parameters = {proxy.host: {**given, "work_dir": work_dir, "leaving": True}}
        jobs.results(jobs.run(deployment.plan, settings, "proxy-out", parameters))

    progress.say(f"{names}: out of the proxy")
    tell(list(dict.fromkeys([*missing, *servers])))
    old = replace(leaving.before, plan=_reachable(leaving))
    try:
        for one in leaving.instances:
            if not now and not set(one.hosts) & set(leaving.away):
                roll.drain(old, one, progress, "ended")
    except (ToolkitError, KeyboardInterrupt):
        tell([server for server in missing if server not in servers])
        raise


def _reachable(leaving: Leaving) -> Any:
    """The plan before, without nodes of hosts that cannot be asked."""
    plan = leaving.before.plan
    nodes = tuple(node for node in plan.nodes if node.host not in leaving.away)
    return replace(plan, nodes=nodes)


def end(leaving: Leaving, progress: Progress, run: Run) -> None:
    """End and remove what a deployment left on hosts that it has nothing else on. Logs stay."""
    before = leaving.before
    for name, why in leaving.away.items():
        progress.say(
            f"host {name} cannot be reached ({why}): what runs there gets no requests and was left;"
            " when it is back: invoke add-host takes it in again"
        )
    wait_s = 4 * before.config.settings.stop.grace_s
    parameters = {
        host.name: {
            **{"work_dir": host.work_dir, "wait_s": wait_s, "logs": False},
            "run": run.id if host.name in run.results else "",
        }
        for host in leaving.hosts
    }
    if not parameters:
        return
    done = jobs.run(before.plan, before.config.settings, "clean", parameters)
    for host, one in done.items():
        if one.error is not None:
            progress.say(f"host {host}: {one.error.what}; what is left there gets no requests")
        else:
            ended = [f"{what} {name}" for name, what in (one.result or {})["stopped"].items()]
            progress.say(
                f"host {host}: {', '.join(ended) or 'nothing ran'}; files removed, logs left"
            )
