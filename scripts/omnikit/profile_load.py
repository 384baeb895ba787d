"""A short load while servers are profiled, and their endpoints that begin and end a recording."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Optional, Sequence

from omnikit import smoke_test
from omnikit.errors import ActionError, InputError
from omnikit.health import Answer, metric, request
from omnikit.plan_types import NodePlan, Plan
from omnikit.profile_demand import Demand, steps_each, threshold
from omnikit.progress import Progress
from omnikit.schema import Settings

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


def urls(nodes: Sequence[NodePlan]) -> dict[str, str]:
    """The servers of some nodes, by name."""
    found = {}
    for node in nodes:
        address = f"[{node.address}]" if ":" in node.address else node.address
        for server in node.servers:
            found[server.name] = f"http://{address}:{server.api_port}"
    return found


def switch(path: str, nodes: Sequence[NodePlan], settings: Settings) -> None:
    """Have all servers begin or end to record, at once. Raises ActionError."""
    servers = urls(nodes)
    timeout_s = settings.profiling.timeout_s

    def ask(url: str) -> Answer:
        return request(url + path, timeout_s=timeout_s, method="POST")

    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        answers = dict(zip(servers, pool.map(ask, servers.values())))
    for name, answer in answers.items():
        if answer.status in (404, 405):
            raise ActionError(
                f"{name} has no {path} (status {answer.status}): its profiler is not on, or this"
                " engine is told otherwise.",
                where=servers[name],
                todo="see what it is told: profiling.server, and who starts it: profiling.start"
                " (invoke config); its words: invoke logs",
            )
        if answer.status != 200:
            said = f"status {answer.status}: {answer.text[:300]}" if answer.status else answer.text
            raise ActionError(f"{name} does not answer {path}: {said}.", where=servers[name])


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
    servers = urls(nodes)
    roles = {server.name: node.role for node in nodes for server in node.servers}
    targets = [smoke_test.base_url(plan)] if plan.proxy else list(servers.values())
    before = _counts(servers, settings)
    load = Load(steps=dict.fromkeys(servers))
    waves = cycle([wave for wave in demand.waves for _ in range(wave.times)])
    with ThreadPoolExecutor(max_workers=demand.concurrency) as pool:
        while load.sent < demand.requests and not (load.answered and enough(load, settings)):
            missing = {roles[name] for name in unfinished(load, settings) or servers}
            wave = next(one for one in waves if missing.intersection(one.roles))
            count = min(wave.concurrency, demand.requests - load.sent)
            numbers = range(load.sent, load.sent + count)
            asked = [(targets[n % len(targets)], body(plan, demand, n)) for n in numbers]
            for answer in pool.map(lambda one: _ask(one[0], one[1], settings), asked):
                _count(load, answer)
            load.steps = _taken(before, _counts(servers, settings))
            if _hopeless(load, settings.profiling.concurrency):
                break
            if progress.spoke_long_ago():
                progress.say(f"{load.answered} of {load.sent} requests answered")
    if not load.answered:
        raise ActionError(
            f"none of {load.sent} requests was answered ({load.fault}).",
            where=targets[0],
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
    url = smoke_test.base_url(plan)
    answer = _ask(url, body(plan, demand, demand.requests), settings)
    if answer.status != 200:
        said = f"status {answer.status}: {answer.text[:300]}" if answer.status else answer.text
        raise InputError(
            f"what runs does not answer a request of the load, {demand.words + 1} words and"
            f" {demand.output_tokens} tokens of answer: {said}.",
            where=url,
            todo="where it is too long: a lower --token-threshold, profiling.input_words or"
            " profiling.output_tokens; else invoke doctor",
        )


def _hopeless(load: Load, concurrency: int) -> bool:
    return not load.answered and load.sent >= 2 * concurrency


def _count(load: Load, answer: Answer) -> None:
    load.sent += 1
    if answer.status == 200 and (answer.json() or {}).get("choices"):
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


def _ask(url: str, body: dict[str, Any], settings: Settings) -> Answer:
    timeout_s = settings.smoke_test.timeout_s
    return request(url + "/v1/completions", timeout_s=timeout_s, body=body)


def _counts(servers: dict[str, str], settings: Settings) -> dict[str, Optional[float]]:
    timeout_s = settings.readiness.request_timeout_s
    name = settings.profiling.step_metric
    if name is None:
        return dict.fromkeys(servers)
    found = {s: request(f"{url}/metrics", timeout_s=timeout_s).text for s, url in servers.items()}
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
