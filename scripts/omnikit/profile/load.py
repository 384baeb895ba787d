"""Servers restarted with their profiler on, told to begin and end, and put under a short load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.access.service import Service
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.health import Answer, metric
from hostkit.base.values import whole
from omnikit.access import targets
from omnikit.config.config import Config
from omnikit.config.schema import Settings
from omnikit.deploy import acts, roll, status
from omnikit.plan.arguments import flag
from omnikit.plan.checks import speculative_tokens
from omnikit.plan.types import NodePlan, Plan
from omnikit.prepare import look
from omnikit.prepare.deployment import Deployment
from omnikit.runs.run import Run
from omnikit.timeline.progress import Progress

# The load that a profile needs: how many requests, how long, how many at the same time. Pure.
#
# A server records steps, not requests. A prompt is one step of a prefill server; an answer is as
# many steps of a decode server as it has tokens, less the first. A decode server without a request
# takes steps that omni-infer does not count (execute_dummy_batch): each of them needs a request of
# its own.

_SPARE = 2  # no proxy shares out requests evenly


@dataclass(frozen=True)
class Wave:
    """Requests sent at the same time, so many times, for the steps of servers of some roles."""

    roles: tuple[str, ...]
    concurrency: int
    times: int


@dataclass(frozen=True)
class Demand:
    """requests: at the most. waves: one after the other, and from the beginning again. words and
    output_tokens: of each request.
    """

    requests: int
    waves: tuple[Wave, ...]
    words: int
    output_tokens: int

    @property
    def concurrency(self) -> int:
        """Requests at the same time, at the most."""
        return min(self.requests, max(wave.concurrency for wave in self.waves))


def steps_each(settings: Settings) -> int:
    """Steps that a server must take: omni-infer ends its recording in the step after the last."""
    return settings.profiling.steps + 1


def threshold(settings: Settings) -> int:
    """Tokens of a step from which on it is recorded; engines that are told when have none."""
    return settings.profiling.token_threshold if settings.profiling.start == "steps" else 1


def demand(config: Config, plan: Plan, nodes: Sequence[NodePlan]) -> Demand:
    """The load with which these nodes record their steps. Raises InputError where no load can."""
    settings = config.settings
    wanted = settings.profiling
    roles = {node.role for node in nodes}
    # Where requests must meet in a step, answers are long: short ones are over before.
    meet = threshold(settings) > 1 and "decode" in roles
    output = wanted.output_tokens if meet else min(wanted.steps + 2, wanted.output_tokens)
    words = wanted.input_words
    if roles - {"decode"}:
        words = max(words, threshold(settings))
    _refuse_long(config, plan, words, output)
    for node in nodes:
        if node.role != "decode":
            _refuse_prompt(config, node)
    waves = [*_answers(config, plan, nodes, output), *_prompts(settings, plan, nodes)]
    needed = max(wave.concurrency * wave.times for wave in waves)
    return Demand(max(wanted.requests, _SPARE * needed), tuple(waves), words, output)


def _answers(config: Config, plan: Plan, nodes: Sequence[NodePlan], output: int) -> Iterator[Wave]:
    """For the steps of decode servers, or of co-located ones, all of which have work."""
    roles = tuple({node.role for node in nodes} - {"prefill"})
    servers = _servers(plan, nodes, roles)
    if servers:
        each = max([1, *(_at_once(config, n, servers) for n in nodes if n.role == "decode")])
        requests = servers * each * -(-steps_each(config.settings) // (output - 1))
        wide = _bounded(config.settings, servers * each)
        yield Wave(roles, wide, -(-requests // wide))


def _prompts(settings: Settings, plan: Plan, nodes: Sequence[NodePlan]) -> Iterator[Wave]:
    """For the steps of prefill servers: few at the same time, prompts that meet are one step."""
    servers = _servers(plan, nodes, ("prefill",))
    if servers:
        narrow = _bounded(settings, servers)
        yield Wave(("prefill",), narrow, -(-servers * steps_each(settings) // narrow))


def _servers(plan: Plan, nodes: Sequence[NodePlan], roles: Sequence[str]) -> int:
    """The servers that share the requests: through a proxy all of a role, chosen or not."""
    chosen = {node.role for node in nodes}.intersection(roles)
    sharing = plan.nodes if plan.proxy else nodes
    return sum(len(node.servers) for node in sharing if node.role in chosen)


def _bounded(settings: Settings, servers: int) -> int:
    wanted = settings.profiling
    return max(wanted.concurrency, min(servers, wanted.max_concurrency))


def _at_once(config: Config, node: NodePlan, servers: int) -> int:
    """Requests at the same time with which a step of a decode server reaches the threshold.

    Raises InputError where it cannot hold so many.
    """
    least = threshold(config.settings)
    tokens = 1 + speculative_tokens(node)
    needed = -(-least // tokens)
    share = max(1, config.settings.profiling.max_concurrency // servers)
    most = min(_number(node, "max-num-seqs") or share, share)
    if needed > most:
        raise config.error(
            f"a step of a decode server such as {node.name} never has {least} tokens: {tokens} for"
            f" each of at most {most} requests at the same time.",
            *("profiling", "token_threshold"),
            todo="a lower --token-threshold; prefill alone with this one: --role prefill; or more"
            " at the same time: profiling.max_concurrency, max-num-seqs of the servers",
        )
    return needed


def _refuse_long(config: Config, plan: Plan, words: int, output: int) -> None:
    """Raise InputError where a server does not take such a request: a word is a token at least."""
    limits = dict(_limits(plan))
    name = min(limits, key=lambda one: limits[one], default="")
    if name and words + 1 + output > limits[name]:
        longer = words > config.settings.profiling.input_words
        raise config.error(
            f"a request of the load has {words + 1} tokens at least, and its answer {output}; but"
            f" {name} takes {limits[name]} in all (max-model-len).",
            *("profiling", "token_threshold" if longer else "input_words"),
            todo="a lower --token-threshold"
            if longer
            else "lower profiling.input_words, or profiling.output_tokens",
        )


def _limits(plan: Plan) -> Iterator[tuple[str, int]]:
    for node in plan.nodes:
        length = _number(node, "max-model-len")
        if length is not None and node.servers:
            yield node.name, length


def _refuse_prompt(config: Config, node: NodePlan) -> None:
    """Raise InputError where no step of a server that computes prompts reaches the threshold."""
    most = _number(node, "max-num-batched-tokens")
    least = threshold(config.settings)
    if most is not None and least > most:
        raise config.error(
            f"a step of {node.name} never has {least} tokens: max-num-batched-tokens is {most}.",
            *("profiling", "token_threshold"),
            todo=f"--token-threshold {most} or less",
        )


def _number(node: NodePlan, name: str) -> Optional[int]:
    return whole(flag(node, name))


# Servers restarted with their profiler on, and as they were.


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


def turn_on(
    on: Deployment, names: Sequence[str], always: bool, progress: Progress, run: Run
) -> list[str]:
    """Restart those of these nodes that need it; returns them. always: a recording begins with a
    start. Raises InputError where others would change.
    """
    on.write()
    found = look.look(on, progress.timeline.on_event)
    found.refuse_problems()
    others = [f"{what} {name}" for name, what in found.changes.items() if name not in names]
    if others:
        raise InputError(
            f"more than {', '.join(names)} would change: {', '.join(others)}.",
            todo="invoke plan says why; profile all of them, or leave --steps as it is set",
        )
    todo = [name for name in names if always or name in found.changes]
    run.install(on, found.seen)
    _restart(on, todo, progress, run)
    return todo


def turn_off(off: Deployment, names: Sequence[str], progress: Progress, run: Run) -> None:
    """Bring the nodes and the proxy to what was before."""
    off.write()
    found = look.look(off, progress.timeline.on_event)
    run.install(off, found.seen)
    changed = [name for name in names if name in found.changes]
    if changed and not unready(off.plan, status.observe(off.config, off.plan)):
        _restart(off, changed, progress, run)
    # What is down or left out of the proxy is not any more after this.
    acts.play("run_server.yml", off, progress, run.variables, ["run_server", "run_proxy"])
    pool = status.in_pool(off.plan, off.config.settings)
    if not pool.passed:
        progress.say(f"all run as before, but the proxy {pool.found}; invoke doctor says why")
    run.undone()


def unready(plan: Plan, observed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Planned nodes, and the proxy, that do not serve."""
    names = [node.name for node in plan.nodes if node.servers or node.ray]
    names += [plan.proxy.name] if plan.proxy else []
    return [name for name in names if observed.get(name, {}).get("state") != "ready"]


def _restart(deployment: Deployment, names: Sequence[str], progress: Progress, run: Run) -> None:
    """Restart some nodes, all of which serve: prefill instances without a failed request where that
    can be done, the rest at once.
    """
    rolled = [one for one in roll.instances(deployment.plan) if one.name in names]
    if not rolled or not can_roll(deployment):
        rolled = []
    pools = roll.Pools(roll.instances(deployment.plan, roll.ROLES))
    roll.one_by_one(deployment, rolled, pools, progress, run)
    parts = {node.name for one in rolled for node in one.nodes}
    rest = [node for node in deployment.plan.nodes if node.name in names and node.name not in parts]
    if rest:
        only = ",".join(node.name for node in rest)
        hosts = ",".join(dict.fromkeys(node.host for node in rest))
        told = {**run.variables, "omnikit_only": only, "omnikit_hosts": hosts}
        run.touch({node.name: "restart" for node in rest}, [node.name for node in rest])
        try:
            acts.play("roll_node.yml", deployment, progress, told)
        except InputError as error:  # no misuse: something was changed before
            raise ActionError(error.what, where=error.where, todo=error.todo) from error


def can_roll(deployment: Deployment) -> bool:
    """Whether a prefill server can be left out of the proxy while it is restarted."""
    try:
        roll.refuse_kind(deployment, roll.chosen(deployment.plan, []))
    except ToolkitError:
        return False
    return True


START, STOP = "/start_profile", "/stop_profile"
_WORD = "word"  # one token, wherever a tokenizer knows words


@dataclass
class Load:
    """steps: that each server took meanwhile, None where it does not tell. fault: of the last
    request that was not answered.
    """

    sent: int = 0
    answered: int = 0
    fault: str = ""
    steps: dict[str, Optional[int]] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """For summary.json."""
        return {"sent": self.sent, "answered": self.answered, "steps": self.steps}


def switch(path: str, nodes: Sequence[NodePlan], settings: Settings) -> None:
    """Have all servers begin or end to record, at once. Raises ActionError."""
    servers = targets.servers(nodes, settings)
    timeout_s = settings.profiling.timeout_s

    def ask(server: Service) -> Answer:
        return server.request(path, timeout_s=timeout_s, method="POST")

    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        answers = dict(zip(servers, pool.map(ask, servers.values())))
    for name, answer in answers.items():
        if answer.status in (404, 405):
            raise ActionError(
                f"{name} has no {path} (status {answer.status}): its profiler is not on, or this"
                " engine is told otherwise.",
                where=servers[name].url,
                todo="see what it is told: profiling.server, and who starts it: profiling.start"
                " (invoke config); its words: invoke logs",
            )
        if answer.status != 200:
            said = f"status {answer.status}: {answer.text[:300]}" if answer.status else answer.text
            raise ActionError(f"{name} does not answer {path}: {said}.", where=servers[name].url)


def drive(
    plan: Plan,
    nodes: Sequence[NodePlan],
    settings: Settings,
    demand: Demand,
    progress: Progress,
) -> Load:
    """Send requests until all servers have taken their steps, or there were enough requests.

    Through the entry; where there is no proxy, to each of the servers. Raises ActionError when
    none is answered.
    """
    servers = targets.servers(nodes, settings)
    roles = {server.name: node.role for node in nodes for server in node.servers}
    asked_at = [targets.entry(plan, settings)] if plan.proxy else list(servers.values())
    before = _counts(servers, settings)
    load = Load(steps=dict.fromkeys(servers))
    waves = cycle([wave for wave in demand.waves for _ in range(wave.times)])
    with ThreadPoolExecutor(max_workers=demand.concurrency) as pool:
        while load.sent < demand.requests and not (load.answered and enough(load, settings)):
            missing = {roles[name] for name in unfinished(load, settings) or servers}
            wave = next(one for one in waves if missing.intersection(one.roles))
            count = min(wave.concurrency, demand.requests - load.sent)
            numbers = range(load.sent, load.sent + count)
            asked = [(asked_at[n % len(asked_at)], body(plan, demand, n)) for n in numbers]
            for answer in pool.map(lambda one: _ask(one[0], one[1], settings), asked):
                _count(load, answer)
            load.steps = _taken(before, _counts(servers, settings))
            if not load.answered and load.sent >= 2 * settings.profiling.concurrency:
                break  # it is hopeless
            if progress.spoke_long_ago():
                progress.say(f"{load.answered} of {load.sent} requests answered")
    if not load.answered:
        raise ActionError(
            f"none of {load.sent} requests was answered ({load.fault}).",
            where=asked_at[0].url,
            todo="invoke status; see what the servers say: invoke logs",
        )
    return load


def unfinished(load: Load, settings: Settings) -> list[str]:
    """Servers that have not taken their steps, as far as anybody can tell: small steps do not count
    where a threshold is set, and nobody counts them apart.
    """
    if threshold(settings) > 1:
        return list(load.steps)
    wanted = steps_each(settings)
    return [name for name, count in load.steps.items() if count is None or count < wanted]


def enough(load: Load, settings: Settings) -> bool:
    """Whether every server has taken its steps."""
    return not unfinished(load, settings)


def short(load: Load, settings: Settings) -> dict[str, int]:
    """Servers that for certain took too few steps to end their recording, and how many."""
    wanted = steps_each(settings)
    return {n: count for n, count in load.steps.items() if count is not None and count < wanted}


def short_lines(load: Load, settings: Settings) -> list[str]:
    """The same for people."""
    return [
        f"{name} took {count} of {steps_each(settings)} steps: its recording did not end"
        for name, count in short(load, settings).items()
    ]


def try_one(plan: Plan, settings: Settings, demand: Demand) -> None:
    """Raise InputError unless what runs answers a request of the load: only its tokenizer knows how
    long the prompt is.
    """
    entry = targets.entry(plan, settings)
    answer = _ask(entry, body(plan, demand, demand.requests), settings)
    if answer.status != 200:
        said = f"status {answer.status}: {answer.text[:300]}" if answer.status else answer.text
        raise InputError(
            f"what runs does not answer a request of the load, {demand.words + 1} words and"
            f" {demand.output_tokens} tokens of answer: {said}.",
            where=entry.url,
            todo="where it is too long: a lower --token-threshold, profiling.input_words or"
            " profiling.output_tokens; else invoke doctor",
        )


def _count(load: Load, answer: Answer) -> None:
    load.sent += 1
    if answer.status == 200 and answer.listed("choices"):
        load.answered += 1
    else:
        load.fault = (
            f"status {answer.status}: {answer.text[:200]}" if answer.status else answer.text
        )


def body(plan: Plan, demand: Demand, number: int) -> dict[str, Any]:
    """Each request is another one: an engine that has seen the prompt would compute nothing."""
    return {
        "model": plan.served_name,
        "prompt": " ".join([str(number), *[_WORD] * demand.words]),
        "max_tokens": demand.output_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def _ask(service: Service, body: dict[str, Any], settings: Settings) -> Answer:
    timeout_s = settings.smoke_test.timeout_s
    return service.request("/v1/completions", timeout_s=timeout_s, body=body)


def _counts(servers: dict[str, Service], settings: Settings) -> dict[str, Optional[float]]:
    timeout_s = settings.readiness.request_timeout_s
    name = settings.profiling.step_metric
    if name is None:
        return dict.fromkeys(servers)
    found = {n: one.request("/metrics", timeout_s=timeout_s).text for n, one in servers.items()}
    return {server: _steps(text, name) for server, text in found.items()}


def _steps(text: str, name: str) -> Optional[float]:
    """A metric that is explained but has no value yet is at zero; else nobody can tell."""
    family = name.partition("{")[0].rpartition("_")[0]
    return metric(text, name) if f"# HELP {family}" not in text else metric(text, name) or 0.0


def _taken(
    before: dict[str, Optional[float]], now: dict[str, Optional[float]]
) -> dict[str, Optional[int]]:
    """Steps since then."""
    return {
        name: None if count is None else int(count - (before[name] or 0.0))
        for name, count in now.items()
    }
