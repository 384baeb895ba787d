"""The deployment of an environment, step by step: look, start, wait, prove."""

from __future__ import annotations

import json
from typing import Any

from omnikit import causes, fleet, host_records, local_setup, ranktables, smoke_test
from omnikit.config import Config
from omnikit.deployment import Deployment, control_folder, prepare
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.log import say, table
from omnikit.progress import Progress
from omnikit.topology import make_plan

_START_TASKS = ("Start the servers", "Start the proxy")


def deploy(config: Config, *, keep: bool, as_json: bool) -> int:
    """Deploy and report. Raises InputError before anything changed, ActionError after a failure."""
    progress = Progress()
    plan = make_plan(config)
    lock = control_folder(config.environment) / "lock"
    with host_records.locked(lock, f"deploy of {config.environment}"):
        found = local_setup.ensure(config, plan, progress.say)
        tables: dict[str, dict[str, str]] = {}
        if ranktables.needed(config, plan):
            tables, made = ranktables.ensure(config, plan)
            changed = sum(what != "unchanged" for what in made.values())
            progress.say(f"rank tables: {changed} of {len(made)} files changed")
        deployment = prepare(config, found.inputs, found.proxy, tables)
        deployment.write()
        actions, reasons = _look(deployment)
        changes = {name: what for name, what in actions.items() if what != "unchanged"}
        if changes:
            progress.say("to do: " + ", ".join(f"{what} {n}" for n, what in changes.items()))
            for name, reason in reasons.items():
                progress.say(f"{name}, because of its container: {reason}")
            _run(deployment, changes, progress, keep)
        checks = smoke_test.run(deployment.plan, config.settings)
    return _report(deployment, checks, changes, progress, as_json)


def _look(deployment: Deployment) -> tuple[dict[str, str], dict[str, str]]:
    """What each node needs, and why. Raises InputError with all that stands against it."""
    outcome = fleet.play("look.yml", deployment.inventory, deployment.config.settings)
    fleet.raise_failures(outcome)
    actions: dict[str, str] = {}
    reasons: dict[str, str] = {}
    problems = []
    for host, data in outcome.json("Compare with what runs").items():
        actions.update(data["actions"])
        reasons.update(data["reasons"])
        problems += [f"{host}: {problem}" for problem in data["problems"]]
    if problems:
        raise InputError("nothing was changed, because:\n  " + "\n  ".join(problems))
    return actions, reasons


def _run(deployment: Deployment, changes: dict[str, str], progress: Progress, keep: bool) -> None:
    """Start and wait; on failure or interrupt stop what this run may have started."""
    settings = deployment.config.settings
    try:
        outcome = fleet.play("run_server.yml", deployment.inventory, settings, progress.on_event)
        if outcome.failures:
            raise _failure(deployment, outcome, progress)
    except (ToolkitError, KeyboardInterrupt) as error:
        if keep:
            say("kept as it is, because of --keep; end it with: make stop")
            raise
        progress.say("stopping what this run started")
        only = ",".join(name for name, what in changes.items() if what != "remove")
        stopped = fleet.play(
            "stop_server.yml", deployment.inventory, settings, variables={"omnikit_only": only}
        )
        if stopped.failures:
            left = "some of what was started could not be stopped; try: make stop"
            raise ActionError(f"{error}\n{left}") from error
        raise


def _failure(deployment: Deployment, outcome: fleet.Outcome, progress: Progress) -> ToolkitError:
    failed = [node for node in progress.nodes.values() if node["state"] == "failed"]
    if failed:
        lines = deployment.config.settings.fleet.log_tail_lines
        return ActionError("\n".join(causes.describe(node, lines) for node in failed))
    try:
        fleet.raise_failures(outcome)
    except ToolkitError as error:
        return error
    return ActionError("a step failed without saying why.")


def _report(
    deployment: Deployment,
    checks: list[smoke_test.Check],
    changes: dict[str, str],
    progress: Progress,
    as_json: bool,
) -> int:
    plan, settings = deployment.plan, deployment.config.settings
    passed = all(check.passed for check in checks)
    result: dict[str, Any] = {
        "environment": plan.environment,
        "url": smoke_test.base_url(plan),
        "changed": changes,
        "ready": passed,
        "checks": [check.as_dict() for check in checks],
    }
    if as_json:
        print(json.dumps(result, indent=1))
    rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
    say(table(rows, ["", "check", "found"]))
    if not passed:
        raise ActionError(
            "the servers are up but do not serve as they should, see the checks above.",
            todo="look at: invoke status, invoke logs",
        )
    progress.say(f"{plan.environment} is ready" + ("" if changes else ": nothing to change"))
    if not as_json:
        proxy = f", proxy: {deployment.proxy_kind}" if deployment.proxy_kind else ""
        print(f"serving {plan.served_name} at {smoke_test.base_url(plan)}{proxy}\ntry it:")
        print(f"  {smoke_test.curl_line(plan, settings)}")
        completion = next(check for check in checks if check.name == "completion")
        print(f"it answered: {completion.found}")
    return 0
