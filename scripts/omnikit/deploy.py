"""The deployment of an environment, step by step: look, ask, start, wait, prove, keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Sequence

from omnikit import (
    ask,
    causes,
    code_sync,
    fleet,
    live,
    local_setup,
    ranktables,
    releases,
    smoke_test,
    source_steps,
    who,
)
from omnikit.config import Config
from omnikit.deploy_failure import undo
from omnikit.deploy_record import Refused, recorded
from omnikit.deploy_report import report
from omnikit.deploy_steps import STEPS
from omnikit.deployment import Deployment, prepare
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.log import say
from omnikit.plan_types import Plan
from omnikit.progress import Progress
from omnikit.topology import make_plan


@dataclass(frozen=True)
class Options:
    """steps: see deploy_steps; named: those that were asked for by name. keep: after a failure
    stop nothing. yes: replace without asking.
    """

    steps: frozenset[str] = frozenset(STEPS)
    named: frozenset[str] = frozenset()
    keep: bool = False
    yes: bool = False
    as_json: bool = False


_LOCK_TASK = "Take the lock"


@dataclass(frozen=True)
class _Work:
    """What is to be done: found says it of the nodes, source of the source's copies; install: hosts
    where its packages are looked after.
    """

    found: live.Look
    source: source_steps.SourceLook
    install: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything is."""
        return bool(self.found.changes or self.source.lines or self.install)


def deploy(config: Config, options: Options) -> int:
    """Deploy and report. Raises InputError before anything changed, ActionError after a failure."""
    plan = make_plan(config)
    with recorded(config.environment, "deploy", options) as progress:
        deployment = prepared(config, plan, options, progress)
        return carry_out(deployment, options, progress)


def prepared(config: Config, plan: Plan, options: Options, progress: Progress) -> Deployment:
    """Set this machine and the rank tables up as the steps want it, and render all files."""
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
    with recorded(config.environment, "rollback", options) as progress:
        progress.say(f"going back to release {release.number} of {release.about['time']}")
        if release.about["source"]:
            progress.say(
                "the source stays as it is on the hosts; that release had"
                f" {release.about['source']['revision']}: check it out, then invoke deploy"
            )
        # What is in the source's folder here now is not that release's.
        steps = options.steps - {"sync_code", "pip_install"}
        return carry_out(
            deployment, replace(options, steps=steps), progress, f"rollback to {release.number}"
        )


def carry_out(deployment: Deployment, options: Options, progress: Progress, note: str = "") -> int:
    """Bring the hosts to a deployment that is ready to act on. The environment is locked.

    note: said of the release that this becomes.
    """
    deployment.write()
    work = _look(deployment, options, progress)
    found = work.found
    found.refuse_problems()
    changes = found.changes
    done: dict[str, dict[str, str]] = {"source": {}, "packages": {}}
    if work.any:
        _tell(work, progress)
        if found.replaces:
            ask.confirm(
                f"{', '.join(found.replaces)} would be ended and started anew.", options.yes
            )
        done = _change(deployment, work, options, progress)
    if not options.steps & {"run_server", "run_proxy"}:
        progress.say("done: " + ", ".join(step for step in STEPS if step in options.steps))
        name = deployment.plan.environment
        progress.timeline.write("result", environment=name, changed=changes, **done)
        return 0
    checks: list[smoke_test.Check] = []
    if "run_proxy" in options.steps or deployment.plan.proxy is None:
        with progress.timeline.step("real requests"):
            checks = smoke_test.run(deployment.plan, deployment.config.settings)
    report(deployment, checks, {"changed": changes, **done}, progress, options.as_json)
    if changes and checks:
        about = work.source.about
        releases.record(deployment, changes, images=found.images, source=about, note=note)
    return 0


def _look(deployment: Deployment, options: Options, progress: Progress) -> _Work:
    """Ask all hosts what they need. Changes nothing."""
    config, plan = deployment.config, deployment.plan
    with progress.timeline.step("compare the source"):
        source = source_steps.look(config, plan, options.steps, "sync_code" in options.named)
    found = live.look(deployment, progress.timeline.on_event)
    source_steps.restarts(found, source, plan)
    install: tuple[str, ...] = ()
    if "pip_install" in options.named:
        install = tuple(source_steps.hosts_of(plan))
    elif "pip_install" in options.steps and code_sync.is_wanted(config):
        install = tuple(
            host
            for host in source_steps.hosts_of(plan)
            if set(found.hosts[host].values()) & {"start", "restart"}
        )
    return _Work(live.of_steps(found, plan, options.steps), source, install)


def _tell(work: _Work, progress: Progress) -> None:
    """Say what is going to be done, and why."""
    todo = [f"{what} {name}" for name, what in work.found.changes.items()]
    todo += [f"copy the source to {host} ({line})" for host, line in work.source.lines.items()]
    todo += [f"look after the packages on {', '.join(work.install)}"] if work.install else []
    progress.say("to do: " + ", ".join(todo))
    for name, reason in work.found.reasons.items():
        progress.say(f"{name}: {reason}")


def _change(
    deployment: Deployment, work: _Work, options: Options, progress: Progress
) -> dict[str, dict[str, str]]:
    """Do the steps, which lock the hosts; a failure is undone, if so wanted, and written down.

    Returns what became of the source's copies and of the packages, by host and place.
    """
    names = {
        "omnikit_owner": who.am_i(),
        "omnikit_what": f"deploy of {deployment.plan.environment}",
    }
    touched: list[str] = []  # steps that may have started or ended something
    try:
        return _steps(deployment, work, options, progress, names, touched)
    except Refused:
        # Nothing was done; what other hosts gave us goes back.
        play("finish.yml", deployment, progress, {**names, "omnikit_result": "refused"})
        raise
    except (ToolkitError, KeyboardInterrupt) as error:
        try:
            if not touched:
                progress.say("servers were not touched")
            elif options.keep or deployment.config.settings.deploy.on_failure == "keep":
                say("kept as it is; end it with: make stop")
            else:
                undo(deployment, work.found.changes, work.found.replaces, error, progress)
        finally:
            names["omnikit_result"] = "interrupted" if str(error) == "" else "failed"
            play("finish.yml", deployment, progress, names)
        raise


def _steps(
    deployment: Deployment,
    work: _Work,
    options: Options,
    progress: Progress,
    names: dict[str, str],
    touched: list[str],
) -> dict[str, dict[str, str]]:
    config, plan = deployment.config, deployment.plan
    done: dict[str, dict[str, str]] = {"source": {}, "packages": {}}
    if work.source.lines or work.install:
        play("lock.yml", deployment, progress, names)
    if "run_docker" in options.steps and config.settings.runtime == "docker":
        touched.append("run_docker")
        play("run_docker.yml", deployment, progress, names)
    with progress.timeline.step("sync_code"):
        done["source"] = source_steps.sync(config, plan, work.source)
    if work.install:
        with progress.timeline.step("pip_install"):
            done["packages"] = source_steps.install(config, plan, work.install)
        for place, what in done["packages"].items():
            progress.say(f"{place}: {what}")
    tags = [step for step in ("run_server", "run_proxy") if step in options.steps]
    if tags:
        touched += tags
        play("run_server.yml", deployment, progress, names, tags)
    else:  # not "ok": what was sent to the hosts was not started
        play("finish.yml", deployment, progress, {**names, "omnikit_result": "steps done"})
    return done


def play(
    playbook: str,
    deployment: Deployment,
    progress: Progress,
    variables: dict[str, str],
    tags: Sequence[str] = (),
) -> None:
    """Run a playbook of ours. Raises the first failure, with the dying server's last lines."""
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
            raise Refused(error.what, where=error.where, todo=error.todo) from error
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
