"""Restart prefill servers one instance after the other, without a failed request at the proxy."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import AbstractSet, Any, Callable, Iterable, Optional, Sequence

from hostkit.base import health
from hostkit.base.errors import ActionError, InputError, ToolkitError
from omnikit.access.targets import in_url
from omnikit.config.config import Config
from omnikit.deploy import deploy, record, status, truth
from omnikit.deploy.deploy import Options, failed
from omnikit.fleet import jobs
from omnikit.plan.types import NodePlan, Plan, ProxyPlan
from omnikit.prepare import look
from omnikit.prepare.deployment import Deployment
from omnikit.runs import releases
from omnikit.runs.releases import Staged
from omnikit.runs.run import Run, hold, settle
from omnikit.timeline.progress import Progress
from omnikit.topology.topology import make_plan

# When a prefill instance that gets no new requests is no longer needed by anyone.

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


@dataclass(frozen=True)
class Instance:
    """A prefill instance. nodes: its parts, one a host; servers: as the proxy names them."""

    name: str
    nodes: tuple[NodePlan, ...]
    servers: tuple[str, ...]

    @property
    def hosts(self) -> list[str]:
        """Where it runs."""
        return list(dict.fromkeys(node.host for node in self.nodes))


def instances(plan: Plan) -> list[Instance]:
    """The prefill instances in order, as far as the proxy sends requests to them."""
    known = set(plan.proxy.prefill) if plan.proxy else set()
    found = []
    for number in sorted({node.instance for node in plan.nodes if node.role == "prefill"}):
        nodes = tuple(n for n in plan.nodes if n.role == "prefill" and n.instance == number)
        servers = tuple(
            f"{in_url(node.address)}:{server.api_port}"
            for node in nodes
            for server in node.servers
            if (node.address, server.api_port) in known
        )
        found.append(Instance(nodes[0].name, nodes, servers))
    return found


def chosen(plan: Plan, names: Sequence[str]) -> list[Instance]:
    """The instances of these names, all without a name. Raises InputError."""
    found = {instance.name: instance for instance in instances(plan)}
    if plan.proxy is None or len(found) < 2:
        raise InputError(
            f"environment {plan.environment} has {len(found)} prefill instances behind a proxy;"
            " to restart one without a failed request, two are needed.",
            where="topology.prefill",
            todo="invoke restart, which interrupts the service",
        )
    for name in names:
        if name not in found:
            raise InputError(
                f"there is no prefill instance {name!r}.",
                where="--instance",
                todo=f"one of {', '.join(found)}",
            )
    return [found[name] for name in names or found]


def roll(config: Config, names: Sequence[str], options: Options) -> int:
    """Restart them; new settings of theirs are taken over. Raises InputError, ActionError."""
    plan = make_plan(config)
    wanted = chosen(plan, names)
    with record.recorded(config.environment, "rolling restart", options) as progress:
        settle(config)
        steps = frozenset({"ranktable"})
        deployment = deploy.prepared(config, plan, Options(steps=steps), progress)
        deployment.write()
        found = look.look(deployment, progress.timeline.on_event)
        found.refuse_problems()
        observed = status.observe(config, plan)
        refuse(plan, wanted, found, observed)
        refuse_kind(deployment)
        what = f"rolling restart of {', '.join(one.name for one in wanted)}"
        with hold(config, what, found.seen, plan.hosts) as run:
            one_by_one(deployment, wanted, unready(plan, observed), progress, run)
            # Whatever else the proxy was to get, it gets now.
            deploy.play("run_server.yml", deployment, progress, run.variables, ["run_proxy"])
            checked = _proved(deployment, wanted, progress)
            run.prove(_release(deployment, found))
        return checked


def refuse(
    plan: Plan,
    wanted: Sequence[Instance],
    found: look.Look,
    observed: dict[str, dict[str, Any]],
) -> None:
    """Raise InputError where a roll would not do: others would change too, or nobody serves."""
    parts = {node.name for one in wanted for node in one.nodes}
    proxy = plan.proxy.name if plan.proxy else ""
    others = {
        name: what
        for name, what in found.changes.items()
        if name not in parts and (name, what) != (proxy, "reload")
    }
    if others:
        said = ", ".join(f"{what} {name}" for name, what in others.items())
        raise InputError(
            f"more than these prefill instances would change: {said}.",
            todo="invoke plan --live says why; do it with: invoke deploy",
        )
    first = in_order(wanted, unready(plan, observed))[0]
    serving = {one.name for one in instances(plan)} - unready(plan, observed)
    if not serving - {first.name}:
        raise InputError(
            f"while {first.name} is restarted no other prefill instance would serve.",
            todo="see which are not ready: invoke status; mend them: invoke deploy",
        )


def unready(plan: Plan, observed: dict[str, dict[str, Any]]) -> set[str]:
    """The names of the prefill instances that do not serve now."""
    return {
        one.name
        for one in instances(plan)
        if any(observed.get(node.name, {}).get("state") != "ready" for node in one.nodes)
    }


def in_order(wanted: Sequence[Instance], down: AbstractSet[str]) -> list[Instance]:
    """Those that do not serve come first: so a roll that was cut off goes on where it was."""
    return sorted(wanted, key=lambda one: one.name not in down)


def refuse_kind(deployment: Deployment) -> None:
    """Raise InputError where the proxy cannot take another configuration over while it runs."""
    proxy = deployment.plan.proxy
    assert proxy is not None  # chosen() has seen to it
    nodes = json.loads(deployment.files[proxy.host]["host.json"])["nodes"]
    if not any("files" in node for node in nodes if node["name"] == proxy.name):
        raise InputError(
            f"a proxy of kind {deployment.proxy_kind} cannot leave a server out while it runs.",
            where="proxy.kind",
            todo="set it to nginx-lua or omni-nginx, then: invoke deploy",
        )


def one_by_one(
    deployment: Deployment,
    wanted: Sequence[Instance],
    down: set[str],
    progress: Progress,
    run: Run,
) -> None:
    """One after the other. The proxy sends nothing to those in down until they are back."""
    known = {one.name: one for one in instances(deployment.plan)}
    try:
        for instance in in_order(wanted, down):
            out = [server for name in sorted(down) for server in known[name].servers]
            serving = [] if instance.name in down else [node.name for node in instance.nodes]
            down = down - {instance.name}
            others = [server for name in sorted(down) for server in known[name].servers]
            _one(deployment, instance, (out, others), progress, run, serving)
    except InputError as error:  # no misuse: something was changed before
        raise ActionError(error.what, where=error.where, todo=error.todo) from error


def _one(
    deployment: Deployment,
    instance: Instance,
    out: tuple[Sequence[str], Sequence[str]],
    progress: Progress,
    run: Run,
    serving: Sequence[str],
) -> None:
    """One instance out of the proxy, idle, restarted, ready, and in again.

    out: servers of dead instances, which the proxy does without before and after.
    """
    settings = deployment.config.settings
    proxy = deployment.plan.proxy
    assert proxy is not None  # chosen() has seen to it
    progress.say(f"{instance.name}: out of the proxy")
    try:
        _leave_out(deployment, proxy, [*instance.servers, *out[1]], run)
        drain(deployment, instance.name, instance.nodes, progress)
    except (ToolkitError, KeyboardInterrupt):
        _leave_out(deployment, proxy, out[0], run)
        progress.say(f"{instance.name}: not restarted, the proxy is as it was")
        raise
    only = ",".join(node.name for node in instance.nodes)
    hosts = ",".join(instance.hosts)
    variables = {**run.variables, "omnikit_only": only, "omnikit_hosts": hosts}
    touched = {**{node.name: "restart" for node in instance.nodes}, proxy.name: "reload"}
    run.touch(touched, [*serving, proxy.name])
    try:
        deploy.play("roll_node.yml", deployment, progress, variables)
    except KeyboardInterrupt:
        progress.say(f"{instance.name} is out of the proxy until: invoke deploy")
        raise
    except ToolkitError as error:
        raise ActionError(
            f"{error}\n{instance.name} did not come back; the proxy goes on without it"
            f" ({settings.readiness.deadline_s:g} s were given).",
            todo="mend the cause, then: invoke deploy, which starts it and takes it in again",
        ) from error
    _leave_out(deployment, proxy, out[1], run)
    progress.say(f"{instance.name}: in the proxy again")


def _leave_out(deployment: Deployment, proxy: ProxyPlan, servers: Sequence[str], run: Run) -> None:
    work_dir = next(h.work_dir for h in deployment.plan.hosts if h.name == proxy.host)
    parameters = {"work_dir": work_dir, "node": proxy.name, "out": list(servers), "run": run.id}
    settings = deployment.config.settings
    jobs.results(jobs.run(deployment.plan, settings, "proxy-out", {proxy.host: parameters}))


def _proved(deployment: Deployment, wanted: Sequence[Instance], progress: Progress) -> int:
    with progress.timeline.step("real requests"):
        checks = truth.gate(deployment.plan, deployment.config.settings)
    wrong = [check for check in checks if not check.passed]
    names = [one.name for one in wanted]
    progress.timeline.write(
        "result",
        environment=deployment.plan.environment,
        restarted=names,
        ready=not wrong,
        checks=[check.as_dict() for check in checks],
    )
    if wrong:
        said = "; ".join(f"{check.name}: {check.found}" for check in wrong)
        raise ActionError(
            f"it was done, but they do not serve as they should: {said}.",
            todo="invoke status, invoke logs",
        )
    if names:
        progress.say(f"restarted one after the other: {', '.join(names)}; all serve")
    return 0


def _release(deployment: Deployment, found: look.Look, note: str = "rolling restart") -> Staged:
    """What was rolled out: it is what runs now. The source is that of the release before."""
    known = releases.all_of(deployment.plan.environment)
    source = known[-1].about["source"] if known else {}
    return Staged(deployment, found.changes, found.images, source, note)


def reload_proxy(config: Config) -> dict[str, str]:
    """Have the proxy take its present configuration over, without losing a connection.

    What became of it. Raises InputError where it would have to be restarted.
    """
    plan = make_plan(config)
    if plan.proxy is None:
        raise InputError(f"environment {plan.environment} has no proxy.", where="topology.proxy")
    name, what = plan.proxy.name, "reload of the proxy"
    options = Options(steps=frozenset({"ranktable"}))
    with record.recorded(config.environment, what, options) as progress:
        settle(config)
        deployment = deploy.prepared(config, plan, options, progress)
        deployment.write()
        found = look.look(deployment, progress.timeline.on_event)
        action = found.actions.get(name)
        if action not in ("reload", "unchanged"):
            raise InputError(
                f"{name} cannot take this over while it runs: a deploy would {action} it.",
                todo="invoke run-proxy",
            )
        if action == "unchanged":
            return {name: "unchanged"}
        with hold(config, what, found.seen, plan.hosts) as run:
            run.results = dict.fromkeys(run.results, "steps done")
            run.touch({name: action}, [name])
            try:
                deploy.play("run_server.yml", deployment, progress, run.variables, ["run_proxy"])
                _proved(deployment, (), progress)
            except (ToolkitError, KeyboardInterrupt) as error:
                failed(deployment, run, error, progress, keep=False)
                raise
            if set(found.changes) == {name}:  # else what was proved is not all that was shipped
                run.prove(_release(deployment, found, what))
        return {name: "reloaded"}


def dry_run(config: Config, names: Sequence[str]) -> list[str]:
    """What a roll would do, a line for each step. Changes nothing."""
    plan = make_plan(config)
    lines = []
    for one in chosen(plan, names):
        lines += [
            f"{one.name}: leave {', '.join(one.servers)} out of the proxy and reload it",
            f"{one.name}: wait until it has no work (at most {config.settings.roll.drain_s:g} s)",
            f"{one.name}: stop and start it on {', '.join(one.hosts)}, wait until it is ready",
            f"{one.name}: take it into the proxy again",
        ]
    return lines
