"""Look at an environment now and name likely causes of what is wrong, each with its evidence."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from hostkit.base import health
from hostkit.base.errors import ToolkitError
from hostkit.base.log import say
from omnikit.access import targets
from omnikit.checks import environment
from omnikit.config.config import Config
from omnikit.deploy import alike, smoke_test
from omnikit.doctor import rules
from omnikit.doctor.rules import CERTAIN, LIKELY, UNKNOWN, Finding, Limits, Look, known
from omnikit.fleet import causes, jobs
from omnikit.plan import connectors
from omnikit.plan.types import Plan
from omnikit.prepare import local_setup, ranktables
from omnikit.prepare.deployment import prepare
from omnikit.topology.topology import make_plan

JOB = "symptoms"
_ANSWER_S = 10  # for one token


@dataclass
class Report:
    """findings, the most certain first; notes: what is no fault, or could not be looked at."""

    environment: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """For people."""
        return rules.as_text(self.environment, self.findings, self.notes, self.seen)

    @property
    def data(self) -> dict[str, Any]:
        """For programs."""
        return rules.as_data(self.environment, self.findings, self.notes, self.seen)


def examine(config: Config, limits: Limits) -> Report:
    """Ask all hosts, send a request if all are ready, judge. Changes nothing."""
    plan = make_plan(config)
    report = Report(plan.environment)
    found: list[Finding] = []
    sent_at = time.time()
    looks, answered = _ask(plan, config, limits, found)
    planned = _planned(config, plan, report.notes)
    for host, look in looks.items():
        found += rules.clock(host, sent_at, answered[host], look["time"], limits)
        found += rules.machine(host, look, limits)
        found += rules.nodes(host, look, planned[host], limits)
        report.notes += rules.starting(host, look)
    found += _loads(plan, config, looks, limits)
    found += _servers(plan, config, looks)
    if len(looks) == len(plan.hosts) and all(_ready(look) for look in looks.values()):
        found += _request(plan, config, looks)
        found += [
            known("servers-differ", CERTAIN, one.name, f"not alike: {one.name}: {one.found}")
            for one in alike.checks(plan, config.settings)
            if not one.passed
        ]
    else:
        report.notes.append("no request was sent: not every server is ready")
    if config.settings.engine.device_kind == "npu" or len(plan.hosts) > 1:
        say("looking at the devices, and at the ways from host to host")
        for host, entries in environment.ways(config, plan, list(looks)).checks.items():
            found += rules.checked(host, entries)
    found += _rank_tables(config, plan, len(looks) == len(plan.hosts), report.notes)
    report.findings = rules.merged(found)
    servers = sum(len(n["servers"]) for look in looks.values() for n in look["nodes"])
    report.seen = {"hosts": len(looks), "servers": servers}
    return report


def read_log(name: str, text: str) -> list[Finding]:
    """Known failures in a log that somebody has."""
    source = None if name == "-" else causes.source_of(name)
    return [
        known(m.cause.name, LIKELY, name, f"{name}:{m.index + 1}: {m.line.strip()[:300]}")
        for m in causes.matches(text.split("\n"), None if source == "server" else source)
    ]


def _ask(
    plan: Plan,
    config: Config,
    limits: Limits,
    found: list[Finding],
    nodes: Optional[Mapping[str, list[str]]] = None,
) -> tuple[dict[str, Look], dict[str, float]]:
    """What the hosts show, and when each answered; a host that does not is a finding.

    nodes: only these, by host.
    """
    answered: dict[str, float] = {}
    parameters = {
        host.name: {
            "work_dir": host.work_dir,
            "tail_bytes": limits.tail_bytes,
            "ready_tail_bytes": limits.tail_bytes // 8,
            "nodes": nodes[host.name] if nodes is not None else None,
        }
        for host in plan.hosts
        if nodes is None or host.name in nodes
    }
    say(f"asking {len(parameters)} hosts" if len(parameters) > 1 else "asking the host")
    done = jobs.ask(
        plan,
        config.settings,
        JOB,
        parameters,
        on_done=lambda host, _: answered.__setitem__(host, time.time()),
    )
    looks: dict[str, Look] = {}
    for host, outcome in done.items():
        if outcome.result is not None:
            looks[host] = outcome.result
            continue
        said = str(outcome.error)
        cause = causes.likely_cause(said.splitlines(), "status")
        if cause is not None:
            found.append(known(cause.name, CERTAIN, f"host {host}", said.splitlines()[0]))
        else:
            words = "The host could not be asked."
            todo = "see what it says, then: invoke check-env"
            found.append(Finding("unknown", UNKNOWN, (f"host {host}",), words, (said,), todo))
    return looks, answered


def _planned(config: Config, plan: Plan, notes: list[str]) -> dict[str, dict[str, Optional[str]]]:
    """Digests of what the configuration now wants, by host and node."""
    names: dict[str, dict[str, Optional[str]]] = {host.name: {} for host in plan.hosts}
    for node in plan.nodes:
        if node.servers or node.ray:
            names[node.host][node.name] = None
    if plan.proxy is not None:
        names[plan.proxy.host][plan.proxy.name] = None
    try:
        there = local_setup.look(config, plan)
        tables = ranktables.remembered(plan.environment) if ranktables.needed(config, plan) else {}
        deployment = prepare(config, there.inputs, there.proxy, tables, plan)
    except (ToolkitError, OSError) as error:
        notes.append(f"what runs was not compared with the configuration: {error}")
        return names
    for host, files in deployment.files.items():
        for spec in json.loads(files["host.json"])["nodes"]:
            names[host][spec["name"]] = spec["digest"]
    return names


def _ready(look: Look) -> bool:
    return bool(look["nodes"]) and all(
        node["state"] == "ready" and all(server["state"] == "ready" for server in node["servers"])
        for node in look["nodes"]
    )


def _loads(plan: Plan, config: Config, looks: Mapping[str, Look], limits: Limits) -> list[Finding]:
    """Loads that look wrong are looked at twice: a moment later they may be right."""
    again: dict[str, list[str]] = {}
    for host, look in looks.items():
        names = rules.suspicious(look, limits)
        wanted = [n["node"] for n in look["nodes"] if any(s["name"] in names for s in n["servers"])]
        if wanted:
            again[host] = wanted
    if not again:
        return []
    say(f"looking again at the load in {limits.look_again_s:g} s")
    health.wait_until(lambda: False, limits.look_again_s, limits.look_again_s)
    found: list[Finding] = []
    seconds, _ = _ask(plan, config, limits, found, again)
    limit_of = {node.name: connectors.lets_go(config.settings, node) for node in plan.nodes}
    lets_go = {name: limit for name, limit in limit_of.items() if limit is not None}
    for host, second in seconds.items():
        found += rules.load(host, looks[host], second, limits, list(looks.values()), lets_go)
    return found


def _request(plan: Plan, config: Config, looks: Mapping[str, Look]) -> list[Finding]:
    """A completion through the entry; when it fails, each server is asked by itself."""
    say(f"sending a request (up to {config.settings.smoke_test.timeout_s:g} s)")
    check = smoke_test.one_completion(plan, config.settings)
    if check.passed:
        return []
    cause = causes.likely_cause([check.found.replace("\n", " ")], "status")
    name = cause.name if cause else "no-answer"
    url = targets.url(plan, config.settings)
    evidence = f"{url}/v1/completions: {check.found}"
    found = [known(name, CERTAIN, f"the entry, {url}", evidence)]
    for host, look in looks.items():
        for node in look["nodes"]:
            for server in node["servers"]:
                found += rules.mentions(f"{server['name']} on {host}", server)
    return found


def _servers(plan: Plan, config: Config, looks: Mapping[str, Look]) -> list[Finding]:
    """What those that are ready answer to a short request of their own, and how soon."""
    settings = config.settings
    body = {**smoke_test.completion_body(plan, settings), "max_tokens": 1}
    ready = {
        server["name"]
        for look in looks.values()
        for node in look["nodes"]
        for server in node["servers"]
        if node["state"] == server["state"] == "ready"
    }
    alone = settings.verify_serving.alone  # else decode answers no prompt without a hand-over
    roles = {s.name: n.role for n in plan.nodes for s in n.servers if alone or n.role != "decode"}
    asked = targets.servers(plan.nodes, settings)
    names = [name for name in asked if name in ready and name in roles]
    timeout_s = min(settings.smoke_test.timeout_s, _ANSWER_S)
    wrong: dict[str, str] = {}
    taken: dict[str, dict[str, float]] = {}

    def ask(name: str) -> tuple[str, float]:
        begun = time.monotonic()
        answer = asked[name].request("/v1/completions", timeout_s=timeout_s, body=body)
        took = time.monotonic() - begun
        if answer.status < 500 and answer.json():
            return "", took
        return f"status {answer.status}: {answer.text[:120]!r}", took

    if names:
        say(f"sending a request to each of {len(names)} servers")
    with ThreadPoolExecutor(max_workers=settings.fleet.forks) as pool:
        for name, (fault, took) in zip(names, pool.map(ask, names)):
            if fault:
                wrong[name] = fault
            else:
                taken.setdefault(roles[name], {})[name] = took
    places = {
        f"{node.address}:{server.api_port}": server.name
        for node in plan.nodes
        for server in node.servers
    }
    return rules.pool(looks, places, wrong) + rules.slow(taken)


def _rank_tables(config: Config, plan: Plan, all_answer: bool, notes: list[str]) -> list[Finding]:
    """Plan, rank table and devices against each other, where there are accelerators."""
    if not ranktables.needed(config, plan):
        return []
    tables = ranktables.remembered(plan.environment)
    if not tables or not all_answer:
        why = "there is none yet" if not tables else "not every host answers"
        notes.append(f"the rank table was not checked: {why}")
        return []
    say("checking the rank table")
    try:
        gathered = ranktables.gather(config, plan)
        text = ranktables.cluster_text(tables)
        problems = ranktables.disagreements(plan, text, "the kept rank table", gathered)
    except ToolkitError as error:
        notes.append(f"the rank table could not be checked: {error}")
        return []
    if not problems:
        return []
    evidence = [f"rank table: {problem}" for problem in problems]
    return [known("ranktable-differs", CERTAIN, "the rank table", *evidence)]
