"""Restart servers one instance after the other, without a failed request at the proxy.

A prefill and a decode server of two versions are never paired (omnikit.plan.connectors.version):
until it is restarted a server keeps the version that the proxy had for it, and the order is such
that at every moment a pair of one version serves.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Iterable, Mapping, Optional, Sequence

from hostkit.base import health
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.nodes import proxy_run
from omnikit.access.targets import in_url
from omnikit.config.config import Config
from omnikit.deploy import acts, record, status, truth
from omnikit.deploy.acts import Options, failed
from omnikit.fleet import jobs
from omnikit.plan.types import NodePlan, Plan, ProxyPlan
from omnikit.prepare import look
from omnikit.prepare.deployment import Deployment
from omnikit.runs import releases
from omnikit.runs.releases import Staged
from omnikit.runs.run import Run, hold, settle
from omnikit.timeline.progress import Progress
from omnikit.topology.topology import make_plan

ROLES = ("prefill", "decode")
PROXY = "proxy"  # which a roll can replace as well
_LUA = "nginx-lua"
# Versions that no release has: of a server that is paired with nobody, since it is to be restarted
# and the only one of its role; and of those for which the running proxy has none.
_APART, _BEFORE = "apart", "before"

# When an instance that gets no new requests is no longer needed by anyone.

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


def drain(
    deployment: Deployment, instance: Instance, progress: Progress, then: str = "restarted"
) -> None:
    """Wait until an instance has no work. then: what becomes of it. Raises ActionError."""
    name, nodes = instance.name, instance.nodes
    settings, plan = deployment.config.settings, deployment.plan
    wait = Wait(settings.roll.kv_s)
    decode = [node for node in plan.nodes if node.role == "decode"]
    last: Loads = {}

    def over() -> bool:
        nonlocal last
        last = _ask(deployment, nodes, ["running", "waiting"])
        if instance.role == "decode":  # nobody fetches KV from it
            last = {
                one: {k: v for k, v in load.items() if k != "kv_usage"}
                for one, load in last.items()
            }
        made = wait.over(last, lambda: _ask(deployment, decode, ["waiting"]))
        if not made and time.monotonic() - progress.spoke >= progress.quiet_s:
            progress.say(f"{name} still has work: {shown(last)}")
        return made

    if not health.wait_until(over, settings.roll.drain_s, settings.readiness.poll_interval_s):
        raise ActionError(
            f"{name} still had work after {settings.roll.drain_s:g} s ({shown(last)});"
            f" it was not {then} and is in the proxy again.",
            where="roll.drain_s",
            todo="raise roll.drain_s; or, where that work does not matter: "
            + ("invoke restart" if then == "restarted" else "invoke remove-host --now"),
        )
    progress.say(f"{name}: {wait.why}, is {then} now")


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
    """nodes: its parts, one a host; servers: as the proxy names them."""

    name: str
    role: str
    nodes: tuple[NodePlan, ...]
    servers: tuple[str, ...]

    @property
    def hosts(self) -> list[str]:
        """Where it runs."""
        return list(dict.fromkeys(node.host for node in self.nodes))


def instances(plan: Plan, roles: Sequence[str] = ("prefill",)) -> list[Instance]:
    """The instances of these roles in order, as far as the proxy sends requests to them."""
    known = {*plan.proxy.prefill, *plan.proxy.decode} if plan.proxy else set()
    found: dict[tuple[str, int], list[NodePlan]] = {}
    for role in roles:
        for node in sorted(plan.nodes, key=lambda one: one.instance):
            if node.role == role:
                found.setdefault((role, node.instance), []).append(node)
    return [
        Instance(
            nodes[0].name,
            role,
            tuple(nodes),
            tuple(
                f"{in_url(node.address)}:{server.api_port}"
                for node in nodes
                for server in node.servers
                if (node.address, server.api_port) in known
            ),
        )
        for (role, _), nodes in found.items()
    ]


def chosen(
    plan: Plan,
    names: Sequence[str],
    roles: Sequence[str] = ("prefill",),
    interrupt: bool = False,
) -> list[Instance]:
    """The instances of these names, all of these roles without a name. Raises InputError."""
    found = {instance.name: instance for instance in instances(plan, roles)}
    for name in names:
        if found and name not in found:
            raise InputError(
                f"there is no {' or '.join(roles)} instance {name!r}.",
                where="--instance",
                todo=f"one of {', '.join(found)}",
            )
    wanted = [found[name] for name in dict.fromkeys(names) or found if name in found]
    for role in dict.fromkeys(one.role for one in wanted) if names and wanted else roles:
        count = len(instances(plan, [role]))
        if plan.proxy is None or not count or (count < 2 and not interrupt):
            alone = plan.proxy is not None and count
            other = "; or roll the other role alone: --role" if len(roles) > 1 else ""
            raise InputError(
                f"environment {plan.environment} has {count} {role}"
                f" instance{'' if count == 1 else 's'} behind a proxy;"
                " to restart one without a failed request, two are needed.",
                where=f"topology.{role}",
                todo=f"invoke roll --interrupt, which interrupts the service{other}"
                if alone
                else "invoke restart, which interrupts the service",
            )
    return wanted


@dataclass
class Pools:
    """What the proxy has in mid roll. known: all instances of both roles; down: names of those that
    get no requests; words: the versions of servers that do not run what is planned yet. first: the
    role that a request is given to first. planned: the versions of all servers, once they run that.
    """

    known: Sequence[Instance]
    down: set[str] = field(default_factory=set)
    words: dict[str, str] = field(default_factory=dict)
    first: str = "prefill"
    planned: Mapping[str, str] = field(default_factory=dict)

    def told(self, leaving: Optional[Instance] = None) -> dict[str, Any]:
        """For the job proxy-out: who is left out besides, and the versions.

        No pool may be empty; who would be the last to leave one is paired with nobody instead. The
        version of each server is told: the files that lie on the proxy's host may be those of
        another deployment, which was cut off.
        """
        away = self.down | ({leaving.name} if leaving else set())
        out: list[str] = []
        versions = {**self.planned, **self.words}
        for role in ROLES:
            its = [one for one in self.known if one.role == role]
            gone = [server for one in its if one.name in away for server in one.servers]
            if {one.name for one in its} <= away:
                versions.update(dict.fromkeys(gone, _APART))
            else:
                out += gone
        return {"out": out, "versions": versions}

    def restarted(self, one: Instance) -> None:
        """It runs what is planned and may have requests."""
        self.down.discard(one.name)
        for server in one.servers:
            self.words.pop(server, None)

    def stale(self, one: Instance) -> bool:
        """Whether it has another version than is planned."""
        return any(server in self.words for server in one.servers)

    def _versions(self, role: str, without: str) -> set[str]:
        return {
            self.words.get(server, "")
            for one in self.known
            if one.role == role and one.name not in self.down and one.name != without
            for server in one.servers
        }

    def lets_go(self, one: Instance) -> bool:
        """Whether without it a pair of one version serves, and what has begun finds its second."""
        first, second = (self._versions(role, one.name) for role in ROLES)
        if self.first != ROLES[0]:
            first, second = second, first
        own = {self.words.get(server, "") for server in one.servers}
        orphans = one.role != self.first and one.name not in self.down and own & first - second
        return bool(first & second) and not orphans


def in_order(wanted: Sequence[Instance], pools: Pools, interrupt: bool = False) -> list[Instance]:
    """Those that do not serve first, then those of another version: so a roll that was cut off
    goes on where it was. Both roles by turns, so that a pair of one version is always there.

    Raises InputError where no order keeps one, unless it may interrupt.
    """
    by_role = {role: [one for one in wanted if one.role == role] for role in ROLES}

    def place(one: Instance) -> tuple[Any, ...]:
        its = by_role[one.role]
        at = its.index(one)
        part = 0 if at == 0 else 1 if at < len(its) - 1 else 2
        turn = at / len(its) if part == 1 else 0
        behind = one.role != pools.first
        return (one.name not in pools.down, not pools.stale(one), part, turn, behind)

    left, order = sorted(wanted, key=place), []
    then = Pools(pools.known, set(pools.down), dict(pools.words), pools.first)
    while left:
        one = next((one for one in left if then.lets_go(one)), None)
        if one is None and not interrupt:
            raise InputError(
                f"while {left[0].name} is restarted no other {left[0].role} instance would serve"
                " with a partner of its version.",
                todo="see which are not ready: invoke status; mend them: invoke deploy",
            )
        order.append(one or left[0])
        left.remove(order[-1])
        then.restarted(order[-1])
    return order


def pools_of(
    deployment: Deployment,
    wanted: Sequence[Instance],
    found: look.Look,
    observed: Mapping[str, Mapping[str, Any]],
) -> Pools:
    """What the proxy has before anything is restarted. Raises InputError."""
    plan = deployment.plan
    proxy = plan.proxy
    assert proxy is not None  # chosen() has seen to it
    files = deployment.files[proxy.host]
    planned: dict[str, str] = {}
    if deployment.proxy_kind == _LUA:
        planned = proxy_run.versions(files[f"{proxy.name}/{proxy_run.CONF}"])
    roles = {one.role for one in wanted}
    down = unready(plan, observed, sorted(roles))
    pools = Pools(instances(plan, ROLES), down, planned=planned)
    if f'FIRST, SECOND = "{ROLES[1]}"' in files.get(f"{proxy.name}/pd_proxy.lua", ""):
        pools.first = ROLES[1]
    names = {one.name for one in wanted}
    whole = names == {one.name for one in pools.known}
    remade = _other_image(plan, found)
    seen = observed.get(proxy.name, {})
    for one in pools.known:
        same = all(found.actions.get(node.name) == "unchanged" for node in one.nodes)
        for server in one.servers:
            had = seen.get("versions", {}).get(server)
            if server in seen.get("left_out", []) or had == _APART:
                # A roll that was cut off left it out: before it was restarted, or after.
                if not wanted and not same:
                    raise InputError(
                        f"{proxy.name} sends nothing to {one.name}: a roll was cut off.",
                        todo="have it go on: invoke roll; or back: invoke rollback",
                    )
                pools.down |= set() if same or one.role not in roles else {one.name}
            elif server in planned and (had or whole) and had != planned[server]:
                pools.words[server] = had or _BEFORE
            elif server in planned and remade and not same:
                pools.words[server] = _BEFORE  # of another image, which its word does not tell
    others = [one.name for one in pools.known if one.name not in names and pools.stale(one)]
    if others:
        raise InputError(
            f"{', '.join(others)} would not be restarted, but could not be paired with those that"
            " were: what a pair must have in common is changed.",
            todo="restart both roles: invoke roll",
        )
    return pools


def _other_image(plan: Plan, found: look.Look) -> bool:
    """Whether an image's name stands for another image than what was proved last had."""
    last = releases.last(plan.environment)
    had = last.about["images"] if last else {}
    return any(had.get(name, one) != one for name, one in found.images.items())


def roll(
    config: Config,
    names: Sequence[str],
    options: Options,
    roles: Sequence[str] = ("prefill",),
    interrupt: bool = False,
) -> int:
    """Restart them; new settings of theirs are taken over. Raises InputError, ActionError."""
    plan = make_plan(config)
    alone = tuple(roles) == (PROXY,)
    wanted = [] if alone else chosen(plan, names, [r for r in roles if r != PROXY], interrupt)
    with record.recorded(config.environment, "rolling restart", options) as progress:
        settle(config)
        for line in interruptions(plan, wanted):
            progress.say(line)
        steps = frozenset({"ranktable"})
        deployment = acts.prepared(config, plan, Options(steps=steps), progress)
        deployment.write()
        found = look.look(deployment, progress.timeline.on_event)
        found.refuse_problems()
        observed = status.observe(config, plan)
        proxy = _proxy_wanted(plan, names, roles, found)
        refuse(plan, wanted, found, bool(proxy))
        refuse_kind(deployment, wanted)
        if proxy and not interrupt:
            refuse_proxy(deployment, found)
        pools = pools_of(deployment, wanted, found, observed)
        order = in_order(wanted, pools, interrupt)
        way_ = Way(tuple(order), pools, proxy)
        what = f"rolling restart of {', '.join(way_.names)}"
        with hold(config, what, found.seen, plan.hosts) as run:
            try:
                go(deployment, way_, progress, run, at_once=bool(_fixed(deployment, found)))
            except ToolkitError as error:
                raise _stopped(error, pools, run) from error
            # Whatever else the proxy was to get, it gets now.
            acts.play("run_server.yml", deployment, progress, run.variables, ["run_proxy"])
            checked = _proved(deployment, way_.names, progress)
            run.prove(_release(deployment, found))
        return checked


def _stopped(error: ToolkitError, pools: Pools, run: Run) -> ToolkitError:
    """The same error, with what goes on and what to do after a roll that stopped."""
    what = error.what
    if pools.down:
        what += f"\nThe proxy goes on without {', '.join(sorted(pools.down))}."
    todo = error.todo or "mend the cause and run this again: it goes on where it stopped"
    if run.touched:
        todo += "; or bring what ran before back, one by one as well: invoke rollback"
    return type(error)(what, where=error.where, todo=todo)


@dataclass(frozen=True)
class Way:
    """How what differs comes to those that serve. order: one by one, while the others serve; proxy,
    by name: before them a new process of it, while the one before finishes its requests. Neither:
    all at once, and interrupts says why requests fail meanwhile.
    """

    order: tuple[Instance, ...] = ()
    pools: Optional[Pools] = None
    proxy: str = ""
    interrupts: tuple[str, ...] = ()

    @property
    def gently(self) -> bool:
        """Whether nobody is interrupted though something is replaced."""
        return bool(self.order or self.proxy)

    @property
    def names(self) -> list[str]:
        """Of all that are replaced one by one, in order."""
        return [*filter(None, [self.proxy]), *(one.name for one in self.order)]

    def shown(self) -> str:
        """For a plan; "" where nothing that serves is replaced."""
        if self.gently:
            return f"one by one, without an interruption: {', '.join(self.names)}"
        if self.interrupts:
            return f"this interrupts the service, because {'; '.join(self.interrupts)}"
        return ""

    def question(self, replaced: Sequence[str]) -> str:
        """What a person is asked before these are replaced."""
        if self.gently:
            return f"{', '.join(self.names)} would be replaced one by one, without an interruption."
        said = self.shown()
        return f"{', '.join(replaced)} would be ended and started anew{said and '; '}{said}."

    def was(self) -> str:
        """How it was done, behind "… is ready"."""
        if self.gently:
            return f": replaced one by one, without an interruption: {', '.join(self.names)}"
        if self.interrupts:
            return f"; the service was interrupted, because {'; '.join(self.interrupts)}"
        return ""

    def as_data(self) -> dict[str, list[str]]:
        """For programs."""
        return {"one_by_one": self.names, "interrupts": list(self.interrupts)}


AT_ONCE = Way()


def way(
    deployment: Deployment,
    found: look.Look,
    *,
    against: Sequence[str] = (),
    always: bool = False,
    leaving: Collection[str] = (),
) -> Way:
    """One by one, where that interrupts nobody, else all at once. Asks the hosts what serves now.

    against: what stands against it already. always: also where nothing that serves is replaced.
    leaving: nodes that end what they have to do before they are removed (omnikit.deploy.leave).
    """
    plan, proxy = deployment.plan, deployment.plan.proxy
    observed = status.observe(deployment.config, plan)
    if not _serves(observed):
        return AT_ONCE
    actions = found.actions
    wanted = [
        one
        for one in instances(plan, ROLES)
        if any(actions.get(node.name) in ("start", "restart") for node in one.nodes)
    ]
    parts = {node.name for one in wanted for node in one.nodes}
    why = list(against)
    gone = [name for name in found.replaces if actions[name] == "remove"]
    at_once = [name for name in gone if name not in leaving]
    if at_once:
        why.append(f"{', '.join(at_once)} would end with the requests that are there")
    elif gone and found.replaces == gone:
        return AT_ONCE
    elif gone:
        why.append(f"{', '.join(gone)} would leave at the same time (before: invoke remove-host)")
    if proxy is None:
        why.append("no proxy gives requests to others meanwhile")
    if found.replaces and (new := _unknown(observed.get(proxy.name, {}) if proxy else {}, wanted)):
        why.append(f"{', '.join(new)} would join at the same time (before: invoke add-host)")
    own = {*parts, *gone, proxy.name if proxy else ""}
    others = [name for name in found.replaces if name not in own]
    if others:
        why.append(f"{', '.join(others)}: neither prefill nor decode")
    why += [
        f"{one.name} is the only {one.role} instance"
        for one in wanted
        if len(instances(plan, [one.role])) == 1
    ]
    replaced = proxy.name if proxy and actions.get(proxy.name) == "restart" else ""
    if not why:
        try:
            refuse_kind(deployment, wanted)
            if replaced:
                refuse_proxy(deployment, found)
            pools = pools_of(deployment, wanted, found, observed)
            made = Way(tuple(in_order(wanted, pools)), pools, replaced)
            return made if found.replaces or always else AT_ONCE
        except InputError as error:
            why.append(error.what.rstrip(".").replace("\n", " "))
    return Way(interrupts=tuple(why))


def _unknown(seen: Mapping[str, Any], wanted: Sequence[Instance]) -> list[str]:
    """Which instances the proxy has not heard of: it can be told neither to do without them nor to
    go on with them alone. seen: what its host says of it.
    """
    known = {*seen.get("versions", {}), *seen.get("left_out", [])}
    return [one.name for one in wanted if known and not known & {*one.servers}]


def _serves(observed: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether of each role that was deployed one at least is ready."""
    roles: dict[str, bool] = {}
    for node in observed.values():
        role = str(node.get("role"))
        roles[role] = roles.get(role, False) or node.get("state") == "ready"
    return bool(roles) and all(roles.values())


def go(
    deployment: Deployment, way: Way, progress: Progress, run: Run, at_once: bool = False
) -> None:
    """Replace them: the proxy first, so that one which cannot be had stops all before it begins.

    at_once: the proxy is ended and started anew, which interrupts.
    """
    assert way.pools is not None  # where something is to be replaced
    if way.proxy:
        _replace_proxy(deployment, way.pools, progress, run, at_once)
    one_by_one(deployment, way.order, way.pools, progress, run)


def turn_back(
    deployment: Deployment, run: Run, error: BaseException, progress: Progress, way_there: Way
) -> bool:
    """Bring what was proved last back, one by one; False where that would interrupt.

    way_there: how this deployment came about. Raises ActionError, which names error too.
    """
    release = releases.last(deployment.plan.environment) if way_there.gently else None
    if release is None:
        return False
    try:
        back = releases.restored(release, deployment.config, deployment.plan)
        if {host.name for host in back.plan.hosts} != {host.name for host in deployment.plan.hosts}:
            return False
        back.write()
        found = look.look(back)
        made = way(back, found, always=True)
        if found.problems or not made.gently:
            return False
        progress.say(f"turning back to release {release.number}: {made.shown()}")
        run.install(back, found.seen)
        go(back, made, progress, run)
        acts.play("run_server.yml", back, progress, run.variables, ["run_server", "run_proxy"])
    except ToolkitError as second:
        raise ActionError(
            f"{error}\nTurning back stopped as well: {second.what}",
            where=second.where,
            todo="mend the cause, then go on: invoke rollback",
        ) from second
    progress.say(f"turned back to release {release.number}; all serve")
    return True


def interruptions(plan: Plan, wanted: Sequence[Instance]) -> list[str]:
    """Which of them interrupt the service while they are restarted, a line for each."""
    return [
        f"{one.name} is the only {one.role} instance: while it is restarted, requests fail"
        for one in wanted
        if len(instances(plan, [one.role])) == 1
    ]


def refuse(plan: Plan, wanted: Sequence[Instance], found: look.Look, proxy: bool = False) -> None:
    """Raise InputError where others would change too. proxy: it is to be replaced."""
    parts = {node.name for one in wanted for node in one.nodes}
    name_ = plan.proxy.name if plan.proxy else ""
    others = {
        name: what
        for name, what in found.changes.items()
        if name not in parts and (name != name_ or (what != "reload" and not proxy))
    }
    if others:
        said = ", ".join(f"{what} {name}" for name, what in others.items())
        roles = " and ".join(dict.fromkeys(one.role for one in wanted))
        chosen_ = f"these {roles} instances" if roles else "the proxy"
        raise InputError(
            f"more than {chosen_} would change: {said}.",
            todo="invoke plan --live says why; do it with: invoke deploy",
        )


def unready(
    plan: Plan, observed: Mapping[str, Mapping[str, Any]], roles: Sequence[str] = ("prefill",)
) -> set[str]:
    """The names of the instances of these roles that do not serve now."""
    return {
        one.name
        for one in instances(plan, roles)
        if any(observed.get(node.name, {}).get("state") != "ready" for node in one.nodes)
    }


def refuse_kind(deployment: Deployment, wanted: Sequence[Instance]) -> None:
    """Raise InputError where the proxy cannot do without a server while it runs."""
    proxy = deployment.plan.proxy
    assert proxy is not None  # chosen() has seen to it
    nodes = json.loads(deployment.files[proxy.host]["host.json"])["nodes"]
    if not any("files" in node for node in nodes if node["name"] == proxy.name):
        raise InputError(
            f"a proxy of kind {deployment.proxy_kind} cannot leave a server out while it runs.",
            where="proxy.kind",
            todo="set it to nginx-lua or omni-nginx, then: invoke deploy",
        )
    decode = any(one.role == "decode" for one in wanted)
    if deployment.proxy_kind != _LUA and (decode or interruptions(deployment.plan, wanted)):
        raise InputError(
            f"a proxy of kind {deployment.proxy_kind} cannot leave "
            + ("a decode server" if decode else "its only prefill server")
            + " out while it runs.",
            where="proxy.kind",
            todo="set it to nginx-lua, then: invoke deploy; or invoke restart, which interrupts",
        )


def _proxy_wanted(plan: Plan, names: Sequence[str], roles: Sequence[str], found: look.Look) -> str:
    """The proxy, when it is to be replaced: it was asked for, or it must be; "": it is not."""
    if tuple(roles) == (PROXY,):
        if plan.proxy is None or names:
            raise InputError(
                "--role proxy is for one process, and goes without --instance."
                if plan.proxy
                else f"environment {plan.environment} has no proxy.",
                where="--role",
            )
        return plan.proxy.name
    must = plan.proxy is not None and found.actions.get(plan.proxy.name) == "restart"
    return plan.proxy.name if plan.proxy and must and PROXY in roles and not names else ""


def _fixed(deployment: Deployment, found: look.Look) -> str:
    """Why the proxy's program cannot be replaced while it serves; "": it can be."""
    proxy, settings = deployment.plan.proxy, deployment.config.settings
    assert proxy is not None
    if deployment.proxy_kind != _LUA:
        return f"that was tried with nginx-lua alone, it is of kind {deployment.proxy_kind}"
    if settings.proxy.kv_params == "layerwise":
        return "with proxy.kv_params layerwise decode asks it for the requests that it has"
    if found.actions.get(proxy.name) == "start":
        return "it does not run"
    return found.fixed.get(proxy.name, "")


def refuse_proxy(deployment: Deployment, found: look.Look) -> None:
    """Raise InputError where its program cannot be replaced while it serves."""
    why = _fixed(deployment, found)
    if why:
        assert deployment.plan.proxy is not None
        raise InputError(
            f"{deployment.plan.proxy.name} cannot be replaced while it serves: {why}.",
            todo="invoke roll --interrupt, or invoke deploy: requests fail until it is back",
        )


def _replace_proxy(
    deployment: Deployment, pools: Pools, progress: Progress, run: Run, at_once: bool
) -> None:
    """Another process of the proxy's program takes its port over, and the one before finishes what
    it has; or, where that cannot be, it is ended and started.
    """
    proxy = deployment.plan.proxy
    assert proxy is not None
    run.touch({proxy.name: "restart" if at_once else "reload"}, [proxy.name])
    if at_once:
        progress.say(f"{proxy.name}: restarting, requests fail until it is back")
        told = {"omnikit_only": proxy.name, "omnikit_hosts": proxy.host}
        acts.play("roll_node.yml", deployment, progress, {**run.variables, **told})
        return
    progress.say(f"{proxy.name}: another process takes its port over")
    _leave_out(deployment, proxy, pools.told(), run, "proxy-replace")
    progress.say(f"{proxy.name}: replaced; the one before finishes its requests")


def one_by_one(
    deployment: Deployment,
    order: Sequence[Instance],
    pools: Pools,
    progress: Progress,
    run: Run,
) -> None:
    """One after the other. The proxy sends nothing to those that are down until they are back."""
    for at, instance in enumerate(order):
        try:
            _one(deployment, instance, pools, progress, run)
        except ToolkitError as error:  # InputError is no misuse: something was changed before
            done = ", ".join(one.name for one in order[:at]) or "none"
            rest = ", ".join(one.name for one in order[at:])
            raise ActionError(
                f"{error.what}\nrestarted: {done}; not restarted, or not ready again: {rest}.",
                where=error.where,
                todo=error.todo,
            ) from error


def _one(
    deployment: Deployment, instance: Instance, pools: Pools, progress: Progress, run: Run
) -> None:
    """One instance out of the proxy, idle, restarted, ready, and in again."""
    settings = deployment.config.settings
    proxy = deployment.plan.proxy
    assert proxy is not None  # chosen() has seen to it
    progress.say(f"{instance.name}: out of the proxy")
    serving = [] if instance.name in pools.down else [node.name for node in instance.nodes]
    try:
        _leave_out(deployment, proxy, pools.told(instance), run)
        drain(deployment, instance, progress)
    except (ToolkitError, KeyboardInterrupt):
        _leave_out(deployment, proxy, pools.told(), run)
        progress.say(f"{instance.name}: not restarted, the proxy is as it was")
        raise
    only = ",".join(node.name for node in instance.nodes)
    hosts = ",".join(instance.hosts)
    variables = {**run.variables, "omnikit_only": only, "omnikit_hosts": hosts}
    touched = {**{node.name: "restart" for node in instance.nodes}, proxy.name: "reload"}
    run.touch(touched, [*serving, proxy.name])
    try:
        acts.play("roll_node.yml", deployment, progress, variables)
    except KeyboardInterrupt:
        progress.say(
            f"{instance.name} is out of the proxy until this is run again, which goes on, or"
            " invoke rollback, which brings what ran before back"
        )
        raise
    except ToolkitError as error:
        pools.down.add(instance.name)
        raise ActionError(
            f"{error}\n{instance.name} did not come back"
            f" ({settings.readiness.deadline_s:g} s were given)."
        ) from error
    pools.restarted(instance)
    _leave_out(deployment, proxy, pools.told(), run)
    progress.say(f"{instance.name}: in the proxy again")


def _leave_out(
    deployment: Deployment,
    proxy: ProxyPlan,
    told: Mapping[str, Any],
    run: Run,
    job: str = "proxy-out",
) -> None:
    work_dir = next(h.work_dir for h in deployment.plan.hosts if h.name == proxy.host)
    parameters = {"work_dir": work_dir, "node": proxy.name, "run": run.id, **told}
    settings = deployment.config.settings
    jobs.results(jobs.run(deployment.plan, settings, job, {proxy.host: parameters}))


def _proved(deployment: Deployment, names: Sequence[str], progress: Progress) -> int:
    with progress.timeline.step("real requests"):
        checks = truth.gate(deployment.plan, deployment.config.settings)
    wrong = [check for check in checks if not check.passed]
    progress.timeline.write(
        "result",
        environment=deployment.plan.environment,
        restarted=list(names),
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
        deployment = acts.prepared(config, plan, options, progress)
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
                acts.play("run_server.yml", deployment, progress, run.variables, ["run_proxy"])
                _proved(deployment, (), progress)
            except (ToolkitError, KeyboardInterrupt) as error:
                failed(deployment, run, error, progress, keep=False)
                raise
            if set(found.changes) == {name}:  # else what was proved is not all that was shipped
                run.prove(_release(deployment, found, what))
        return {name: "reloaded"}


def dry_run(
    config: Config,
    names: Sequence[str],
    roles: Sequence[str] = ("prefill",),
    interrupt: bool = False,
) -> list[str]:
    """What a roll would do where all serve now, a line for each step. Changes nothing."""
    plan = make_plan(config)
    alone = tuple(roles) == (PROXY,)
    wanted = [] if alone else chosen(plan, names, [r for r in roles if r != PROXY], interrupt)
    lines = interruptions(plan, wanted)
    if alone and plan.proxy is not None:
        lines += [
            f"{plan.proxy.name}: start its program beside the one that runs, on the same port",
            f"{plan.proxy.name}: end the one before, after its requests",
        ]
    for one in in_order(wanted, Pools(instances(plan, ROLES)), interrupt):
        lines += [
            f"{one.name}: leave {', '.join(one.servers)} out of the proxy and reload it",
            f"{one.name}: wait until it has no work (at most {config.settings.roll.drain_s:g} s)",
            f"{one.name}: stop and start it on {', '.join(one.hosts)}, wait until it is ready",
            f"{one.name}: take it into the proxy again",
        ]
    return lines
