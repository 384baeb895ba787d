"""All checks of an environment's hosts: asked side by side, compared, put together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Sequence

from omnikit import check_parameters, check_report, fleet_checks, jobs, peer_checks
from omnikit.check_entry import Entry
from omnikit.config import Config
from omnikit.jobs import Done
from omnikit.log import say
from omnikit.plan_types import Plan


@dataclass
class Checked:
    """What was found, by host in the order of the plan."""

    checks: dict[str, list[Entry]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


def run(config: Config, plan: Plan, hosts: Sequence[str]) -> Checked:
    """Check these hosts. A host that cannot be asked is a failed check, never an exception."""
    parameters = check_parameters.check_parameters(config, plan)
    parameters = {host: parameters[host] for host in hosts}
    say(f"checking {_some(len(hosts))} of {plan.environment}")
    checked = Checked({host: [] for host in hosts})
    windows: dict[str, tuple[float, float]] = {}
    began = time.time()

    def on_done(host: str, done: Done) -> None:
        windows[host] = (began, time.time())
        checked.checks[host] = _own_entries(config, plan, host, done)
        say(f"host {host}: {check_report.counts(checked.checks[host])}")

    done = jobs.run(
        plan,
        config.settings,
        "check",
        parameters,
        at_once=config.settings.fleet.forks,
        on_done=on_done,
    )
    for host, one in done.items():
        if host not in windows:  # nobody told about it
            on_done(host, one)
        if one.result is not None:
            checked.facts[host] = one.result["facts"]
    _reach(config, plan, checked)
    # This machine's clock is in step with itself.
    away = {h: w for h, w in windows.items() if config.settings.hosts[h].connection != "local"}
    for host, entries in fleet_checks.compare(checked.facts, parameters, away).items():
        checked.checks[host] += entries
    return checked


def _own_entries(config: Config, plan: Plan, host: str, done: Done) -> list[Entry]:
    settings = config.settings.hosts[host]
    if done.error is not None:
        return peer_checks.failed(host, settings, config.settings, plan.environment, done.error)
    own = list((done.result or {})["checks"])
    return [peer_checks.logged_in(), *own] if settings.connection == "ssh" else own


def _reach(config: Config, plan: Plan, checked: Checked) -> None:
    """Let the hosts that answered reach the others of the plan."""
    ips = {host: facts.get("device_ips") or {} for host, facts in checked.facts.items()}
    given = check_parameters.reach_parameters(config, plan, ips)
    given = {host: own for host, own in given.items() if host in checked.facts}
    if not given:
        return
    say(f"trying the way from {_some(len(given))} to the others")
    at_once = config.settings.fleet.forks
    for host, done in jobs.run(plan, config.settings, "reach", given, at_once=at_once).items():
        if done.error is not None:
            checked.checks[host].append(peer_checks.not_tried(done.error))
        else:
            checked.checks[host] += peer_checks.reached(done.result or {})


def _some(number: int) -> str:
    return f"{number} host{'s' if number > 1 else ''}"
