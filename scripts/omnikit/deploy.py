"""The deployment of an environment, step by step: look, ask, start, wait, prove, keep."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Optional, Sequence

from omnikit import (
    ask,
    causes,
    fleet,
    host_records,
    live,
    local_setup,
    ranktables,
    releases,
    smoke_test,
    who,
)
from omnikit.config import Config
from omnikit.deploy_failure import undo
from omnikit.deploy_steps import STEPS
from omnikit.deployment import Deployment, control_folder, prepare
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.log import say, table
from omnikit.plan_types import Plan
from omnikit.progress import Progress
from omnikit.timeline import Timeline
from omnikit.topology import make_plan


@dataclass(frozen=True)
class Options:
    """steps: see deploy_steps. keep: after a failure stop nothing. yes: replace without asking."""

    steps: frozenset[str] = frozenset(STEPS)
    keep: bool = False
    yes: bool = False
    as_json: bool = False


_LOCK_TASK = "Take the lock"


class _Locked(InputError):
    """Somebody else changes a host: nothing was done."""


def deploy(config: Config, options: Options) -> int:
    """Deploy and report. Raises InputError before anything changed, ActionError after a failure."""
    plan = make_plan(config)
    progress = _progress(config.environment, "deploy", options)
    lock = control_folder(config.environment) / "lock"
    with host_records.locked(lock, f"deploy of {config.environment}"):
        deployment = _prepare(config, plan, options, progress)
        return carry_out(deployment, options, progress)


def _progress(environment: str, what: str, options: Options) -> Progress:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    file = control_folder(environment) / "timelines" / f"{stamp}.jsonl"
    progress = Progress(timeline=Timeline(file))
    progress.timeline.write("command", what=what, owner=who.am_i(), steps=sorted(options.steps))
    return progress


def _prepare(config: Config, plan: Plan, options: Options, progress: Progress) -> Deployment:
    with progress.timeline.step("set up"):
        found = local_setup.ensure(config, plan, progress.say)
    tables: dict[str, dict[str, str]] = {}
    if ranktables.needed(config, plan) and "ranktable" in options.steps:
        with progress.timeline.step("rank tables"):
            tables, made = ranktables.ensure(config, plan)
        changed = sum(what != "unchanged" for what in made.values())
        progress.say(f"rank tables: {changed} of {len(made)} files changed")
    elif ranktables.needed(config, plan):
        tables = ranktables.remembered(plan.environment)
    return prepare(config, found.inputs, found.proxy, tables)


def rollback(config: Config, number: Optional[int], options: Options) -> int:
    """Bring an environment back to a release, by default the one before the present."""
    release = releases.find(config.environment, number)
    deployment = releases.restored(release, config)
    progress = _progress(config.environment, "rollback", options)
    lock = control_folder(config.environment) / "lock"
    with host_records.locked(lock, f"rollback of {config.environment}"):
        progress.say(f"going back to release {release.number} of {release.about['time']}")
        return carry_out(deployment, options, progress, f"rollback to {release.number}")


def carry_out(deployment: Deployment, options: Options, progress: Progress, note: str = "") -> int:
    """Bring the hosts to a deployment that is ready to act on. The environment is locked.

    note: said of the release that this becomes.
    """
    deployment.write()
    found = live.of_steps(
        live.look(deployment, progress.timeline.on_event), deployment.plan, options.steps
    )
    found.refuse_problems()
    changes = found.changes
    if changes:
        progress.say("to do: " + ", ".join(f"{what} {n}" for n, what in changes.items()))
        for name, reason in found.reasons.items():
            progress.say(f"{name}: {reason}")
        if found.replaces:
            ask.confirm(
                f"{', '.join(found.replaces)} would be ended and started anew.", options.yes
            )
        _change(deployment, found, options, progress)
    if not options.steps & {"run_server", "run_proxy"}:
        progress.say("done: " + ", ".join(step for step in STEPS if step in options.steps))
        return 0
    checks: list[smoke_test.Check] = []
    if "run_proxy" in options.steps or deployment.plan.proxy is None:
        with progress.timeline.step("real requests"):
            checks = smoke_test.run(deployment.plan, deployment.config.settings)
    code = _report(deployment, checks, changes, progress, options)
    if changes and checks:
        releases.record(deployment, changes, images=found.images, source={}, note=note)
    return code


def _change(deployment: Deployment, found: live.Look, options: Options, progress: Progress) -> None:
    """Do the steps, which lock the hosts; a failure is undone, if so wanted, and written down."""
    names = {
        "omnikit_owner": who.am_i(),
        "omnikit_what": f"deploy of {deployment.plan.environment}",
    }
    try:
        _steps(deployment, options, progress, names)
    except _Locked:
        # Nothing was done; what other hosts gave us goes back.
        _play("finish.yml", deployment, progress, {**names, "omnikit_result": "refused"})
        raise
    except (ToolkitError, KeyboardInterrupt) as error:
        try:
            if options.keep or deployment.config.settings.deploy.on_failure == "keep":
                say("kept as it is; end it with: make stop")
            else:
                undo(deployment, found.changes, found.replaces, error, progress)
        finally:
            names["omnikit_result"] = "interrupted" if str(error) == "" else "failed"
            _play("finish.yml", deployment, progress, names)
        raise


def _steps(
    deployment: Deployment, options: Options, progress: Progress, names: dict[str, str]
) -> None:
    if "run_docker" in options.steps and deployment.config.settings.runtime == "docker":
        _play("run_docker.yml", deployment, progress, names)
    tags = [step for step in ("run_server", "run_proxy") if step in options.steps]
    if tags:
        _play("run_server.yml", deployment, progress, names, tags)


def _play(
    playbook: str,
    deployment: Deployment,
    progress: Progress,
    variables: dict[str, str],
    tags: Sequence[str] = (),
) -> None:
    settings = deployment.config.settings
    outcome = fleet.play(
        playbook,
        deployment.inventory,
        settings,
        progress.on_event,
        variables,
        tags=tags,
    )
    if any(event["task"] == _LOCK_TASK for event in outcome.failures):
        try:
            fleet.raise_failures(outcome)
        except InputError as error:
            raise _Locked(error.what, where=error.where, todo=error.todo) from error
    if outcome.failures:
        raise _failure(deployment, outcome, progress)


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
    options: Options,
) -> int:
    plan, settings = deployment.plan, deployment.config.settings
    passed = all(check.passed for check in checks)
    result: dict[str, Any] = {
        "environment": plan.environment,
        "url": smoke_test.base_url(plan),
        "changed": changes,
        "ready": passed,
        "checks": [check.as_dict() for check in checks],
        "timeline": str(progress.timeline.file),
    }
    if options.as_json:
        print(json.dumps(result, indent=1))
    if changes and len(plan.hosts) > 1:
        say(progress.timeline.as_text())
    rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
    if rows:
        say(table(rows, ["", "check", "found"]))
    if not passed:
        raise ActionError(
            "the servers are up but do not serve as they should, see the checks above.",
            todo="look at: invoke status, invoke logs",
        )
    if not checks:
        progress.say("the servers are ready; the proxy was not asked for")
        return 0
    progress.say(f"{plan.environment} is ready" + ("" if changes else ": nothing to change"))
    if not options.as_json:
        proxy = f", proxy: {deployment.proxy_kind}" if deployment.proxy_kind else ""
        print(f"serving {plan.served_name} at {smoke_test.base_url(plan)}{proxy}\ntry it:")
        print(f"  {smoke_test.curl_line(plan, settings)}")
        completion = next(check for check in checks if check.name == "completion")
        print(f"it answered: {completion.found}")
    return 0
