"""Restart prefill servers one instance after the other, without a failed request at the proxy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import AbstractSet, Any, Sequence

from omnikit import deploy, deploy_record, jobs, live, releases, roll_drain, smoke_test, status, who
from omnikit.config import Config
from omnikit.deploy import Options
from omnikit.deployment import Deployment
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.plan_types import NodePlan, Plan, ProxyPlan
from omnikit.progress import Progress
from omnikit.topology import make_plan


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
            _shown(node.address, server.api_port)
            for node in nodes
            for server in node.servers
            if (node.address, server.api_port) in known
        )
        found.append(Instance(nodes[0].name, nodes, servers))
    return found


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
    with deploy_record.recorded(config.environment, "rolling restart", options) as progress:
        steps = frozenset({"ranktable"})
        deployment = deploy.prepared(config, plan, Options(steps=steps), progress)
        deployment.write()
        found = live.look(deployment, progress.timeline.on_event)
        found.refuse_problems()
        observed = status.observe(config, plan)
        refuse(plan, wanted, found, observed)
        refuse_kind(deployment)
        variables = {
            "omnikit_owner": who.am_i(),
            "omnikit_what": f"rolling restart of {', '.join(one.name for one in wanted)}",
        }
        deploy.play("lock.yml", deployment, progress, variables)
        try:
            one_by_one(deployment, wanted, unready(plan, observed), progress)
            # Whatever else the proxy was to get, it gets now; and the locks are given up.
            deploy.play("run_server.yml", deployment, progress, variables, ["run_proxy"])
        except (ToolkitError, KeyboardInterrupt) as error:
            result = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            variables["omnikit_result"] = result
            deploy.play("finish.yml", deployment, progress, variables)
            raise
        checked = _proved(deployment, wanted, progress)
        if found.changes:
            _release(deployment, found)
        return checked


def refuse(
    plan: Plan,
    wanted: Sequence[Instance],
    found: live.Look,
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
            todo="set it to nginx-njs or omni-nginx, then: invoke deploy",
        )


def one_by_one(
    deployment: Deployment, wanted: Sequence[Instance], down: set[str], progress: Progress
) -> None:
    """One after the other. The proxy sends nothing to those in down until they are back."""
    known = {one.name: one for one in instances(deployment.plan)}
    try:
        for instance in in_order(wanted, down):
            out = [server for name in sorted(down) for server in known[name].servers]
            down = down - {instance.name}
            others = [server for name in sorted(down) for server in known[name].servers]
            _one(deployment, instance, (out, others), progress)
    except InputError as error:  # no misuse: something was changed before
        raise ActionError(error.what, where=error.where, todo=error.todo) from error


def _one(
    deployment: Deployment,
    instance: Instance,
    out: tuple[Sequence[str], Sequence[str]],
    progress: Progress,
) -> None:
    """One instance out of the proxy, idle, restarted, ready, and in again.

    out: servers of dead instances, which the proxy does without before and after.
    """
    settings = deployment.config.settings
    proxy = deployment.plan.proxy
    assert proxy is not None  # chosen() has seen to it
    progress.say(f"{instance.name}: out of the proxy")
    try:
        _leave_out(deployment, proxy, [*instance.servers, *out[1]])
        roll_drain.drain(deployment, instance.name, instance.nodes, progress)
    except (ToolkitError, KeyboardInterrupt):
        _leave_out(deployment, proxy, out[0])
        progress.say(f"{instance.name}: not restarted, the proxy is as it was")
        raise
    only = ",".join(node.name for node in instance.nodes)
    variables = {"omnikit_only": only, "omnikit_hosts": ",".join(instance.hosts)}
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
    _leave_out(deployment, proxy, out[1])
    progress.say(f"{instance.name}: in the proxy again")


def _leave_out(deployment: Deployment, proxy: ProxyPlan, servers: Sequence[str]) -> None:
    work_dir = next(h.work_dir for h in deployment.plan.hosts if h.name == proxy.host)
    parameters = {"work_dir": work_dir, "node": proxy.name, "out": list(servers)}
    settings = deployment.config.settings
    jobs.results(jobs.run(deployment.plan, settings, "proxy-out", {proxy.host: parameters}))


def _proved(deployment: Deployment, wanted: Sequence[Instance], progress: Progress) -> int:
    with progress.timeline.step("real requests"):
        checks = smoke_test.run(deployment.plan, deployment.config.settings)
    failed = [check for check in checks if not check.passed]
    names = [one.name for one in wanted]
    progress.timeline.write(
        "result",
        environment=deployment.plan.environment,
        restarted=names,
        ready=not failed,
        checks=[check.as_dict() for check in checks],
    )
    if failed:
        said = "; ".join(f"{check.name}: {check.found}" for check in failed)
        raise ActionError(
            f"all were restarted, but they do not serve as they should: {said}.",
            todo="invoke status, invoke logs",
        )
    progress.say(f"restarted one after the other: {', '.join(names)}; all serve")
    return 0


def _release(deployment: Deployment, found: live.Look) -> None:
    """Keep what was rolled out: it is what runs now. The source is that of the release before."""
    known = releases.all_of(deployment.plan.environment)
    source = known[-1].about["source"] if known else {}
    releases.record(
        deployment, found.changes, images=found.images, source=source, note="rolling restart"
    )


def reload_proxy(config: Config) -> dict[str, str]:
    """Have the proxy take its present configuration over, without losing a connection.

    What became of it. Raises InputError where it would have to be restarted.
    """
    plan = make_plan(config)
    if plan.proxy is None:
        raise InputError(f"environment {plan.environment} has no proxy.", where="topology.proxy")
    options = Options(steps=frozenset({"ranktable"}))
    with deploy_record.recorded(config.environment, "reload of the proxy", options) as progress:
        deployment = deploy.prepared(config, plan, options, progress)
        deployment.write()
        found = live.look(deployment, progress.timeline.on_event)
        what = found.actions.get(plan.proxy.name)
        if what not in ("reload", "unchanged"):
            raise InputError(
                f"{plan.proxy.name} cannot take this over while it runs: a deploy would {what} it.",
                todo="invoke run-proxy",
            )
        if what == "unchanged":
            return {plan.proxy.name: "unchanged"}
        variables = {"omnikit_owner": who.am_i(), "omnikit_what": "reload of the proxy"}
        deploy.play("run_server.yml", deployment, progress, variables, ["run_proxy"])
        return {plan.proxy.name: "reloaded"}


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
