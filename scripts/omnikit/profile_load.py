"""A short load while servers are profiled, and their endpoints that begin and end a recording."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Optional, Sequence

from omnikit import smoke_test
from omnikit.errors import ActionError
from omnikit.health import Answer, metric, request
from omnikit.plan_types import NodePlan, Plan
from omnikit.progress import Progress
from omnikit.schema import Settings

START, STOP = "/start_profile", "/stop_profile"


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


def drive(plan: Plan, nodes: Sequence[NodePlan], settings: Settings, progress: Progress) -> Load:
    """Send requests until all servers have taken their steps, or there were enough requests.

    Through the entry; where there is no proxy, to each of the servers. Raises ActionError when
    none is answered.
    """
    wanted = settings.profiling
    servers = urls(nodes)
    targets = [smoke_test.base_url(plan)] if plan.proxy else list(servers.values())
    before = _counts(servers, settings)
    load = Load(steps=dict.fromkeys(servers))
    with ThreadPoolExecutor(max_workers=wanted.concurrency) as pool:
        while load.sent < wanted.requests:
            count = min(wanted.concurrency, wanted.requests - load.sent)
            numbers = range(load.sent, load.sent + count)
            asked = [(targets[n % len(targets)], _body(plan, settings, n)) for n in numbers]
            for answer in pool.map(lambda one: _ask(one[0], one[1], settings), asked):
                _count(load, answer)
            load.steps = _taken(before, _counts(servers, settings))
            if (load.answered and enough(load, settings)) or _hopeless(load, wanted.concurrency):
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


def enough(load: Load, settings: Settings) -> bool:
    """Whether every server has taken its steps; small ones do not count where a threshold is set,
    and that nobody can tell.
    """
    # omni-infer ends its recording in the step after the last.
    wanted = settings.profiling.steps + 1
    taken = load.steps.values()
    known = settings.profiling.token_threshold <= 1
    return known and all(count is not None and count >= wanted for count in taken)


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


def _body(plan: Plan, settings: Settings, number: int) -> dict[str, Any]:
    """Each request is another one: an engine that has seen the prompt would compute nothing."""
    words = " ".join(f"word{number}" for _ in range(settings.profiling.input_words))
    return {
        "model": plan.served_name,
        "prompt": f"{number} {words}",
        "max_tokens": settings.profiling.steps + 2,
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
    return {
        server: metric(request(f"{url}/metrics", timeout_s=timeout_s).text, name)
        for server, url in servers.items()
    }


def _taken(
    before: dict[str, Optional[float]], now: dict[str, Optional[float]]
) -> dict[str, Optional[int]]:
    """Steps since then; a counter that nothing was counted in yet is not shown."""
    return {
        name: None if count is None else int(count - (before[name] or 0.0))
        for name, count in now.items()
    }
