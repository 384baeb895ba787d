"""Servers restarted with their profiler on, and as they were."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from omnikit import deploy, live, roll, status, who
from omnikit.deployment import Deployment
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.plan_types import NodePlan, Plan
from omnikit.progress import Progress


def variables(plan: Plan) -> dict[str, str]:
    """Who locks the hosts, and what for."""
    return {"omnikit_owner": who.am_i(), "omnikit_what": f"profile of {plan.environment}"}


def differences(before: Plan, after: Plan) -> dict[str, list[str]]:
    """By node, the words and variables of its servers that are new or other. Pure."""
    known = {node.name: node for node in before.nodes}
    found = {}
    for node in after.nodes:
        new = [line for line in _told(node) if line not in _told(known[node.name])]
        if new or _told(node) != _told(known[node.name]):
            found[node.name] = new
    return found


def _told(node: NodePlan) -> list[str]:
    """What the servers of a node are told, a line for each flag with its value, and variable."""
    lines: list[str] = []
    for words in [node.command, *(server.own_args for server in node.servers)]:
        for word in words:
            if word.startswith("--") or not lines:
                lines.append(word)
            else:
                lines[-1] += f" {word}"
    for env in [node.env, *(server.own_env for server in node.servers)]:
        lines += [f"{name}={value}" for name, value in env.items()]
    return lines


def turn_on(on: Deployment, names: Sequence[str], always: bool, progress: Progress) -> list[str]:
    """Restart those of these nodes that need it; returns them. always: a recording begins with a
    start. Raises InputError where others would change.
    """
    on.write()
    found = live.look(on, progress.timeline.on_event)
    found.refuse_problems()
    others = [f"{what} {name}" for name, what in found.changes.items() if name not in names]
    if others:
        raise InputError(
            f"more than {', '.join(names)} would change: {', '.join(others)}.",
            todo="invoke plan says why; profile all of them, or leave --steps as it is set",
        )
    todo = [name for name in names if always or name in found.changes]
    _restart(on, todo, progress)
    return todo


def turn_off(off: Deployment, names: Sequence[str], progress: Progress) -> None:
    """Bring the nodes and the proxy to what was before, and give up the hosts' locks."""
    off.write()
    found = live.look(off, progress.timeline.on_event)
    told = variables(off.plan)
    changed = [name for name in names if name in found.changes]
    if changed and _all_ready(off):
        _restart(off, changed, progress)
    # What is down or left out of the proxy is not any more after this.
    deploy.play("run_server.yml", off, progress, told, ["run_server", "run_proxy"])


def _all_ready(deployment: Deployment) -> bool:
    observed = status.observe(deployment.config, deployment.plan)
    return not unready(deployment.plan, observed)


def unready(plan: Plan, observed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Planned nodes, and the proxy, that do not serve."""
    names = [node.name for node in plan.nodes if node.servers or node.ray]
    names += [plan.proxy.name] if plan.proxy else []
    return [name for name in names if observed.get(name, {}).get("state") != "ready"]


def _restart(deployment: Deployment, names: Sequence[str], progress: Progress) -> None:
    """Restart some nodes, all of which serve: prefill instances without a failed request where that
    can be done, the rest at once.
    """
    rolled = [one for one in roll.instances(deployment.plan) if one.name in names]
    if not rolled or not can_roll(deployment):
        rolled = []
    roll.one_by_one(deployment, rolled, set(), progress)
    parts = {node.name for one in rolled for node in one.nodes}
    rest = [node for node in deployment.plan.nodes if node.name in names and node.name not in parts]
    if rest:
        only = ",".join(node.name for node in rest)
        hosts = ",".join(dict.fromkeys(node.host for node in rest))
        told = {"omnikit_only": only, "omnikit_hosts": hosts}
        try:
            deploy.play("roll_node.yml", deployment, progress, told)
        except InputError as error:  # no misuse: something was changed before
            raise ActionError(error.what, where=error.where, todo=error.todo) from error


def can_roll(deployment: Deployment) -> bool:
    """Whether a prefill server can be left out of the proxy while it is restarted."""
    try:
        roll.chosen(deployment.plan, [])
        roll.refuse_kind(deployment)
    except ToolkitError:
        return False
    return True
