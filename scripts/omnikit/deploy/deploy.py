"""The deployment of an environment, step by step: look, ask, start, wait, prove, keep."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import Mapping, Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import ActionError, ToolkitError
from hostkit.base.log import say, table
from omnikit.access import targets
from omnikit.config.config import Config
from omnikit.deploy import smoke_test, truth
from omnikit.deploy.record import recorded
from omnikit.fleet import causes, fleet, identity
from omnikit.plan.types import Plan
from omnikit.prepare import local_setup, look, ranktables, source_steps
from omnikit.prepare.deployment import Deployment, prepare
from omnikit.prepare.source_steps import STEPS
from omnikit.runs import releases
from omnikit.runs import run as runs_run
from omnikit.runs.run import Run, hold, settle
from omnikit.source import sync
from omnikit.timeline.progress import Progress
from omnikit.topology.topology import make_plan
from omnikit.versions import image

# What a deployment says at its end: where the time went, the checks, and how to use it.


def report(
    deployment: Deployment,
    checks: list[smoke_test.Check],
    done: Mapping[str, Mapping[str, str]],
    progress: Progress,
    as_json: bool,
) -> None:
    """Print it. done: what was done to nodes ("changed"), source and packages, by name.

    Raises ActionError when a check has failed.
    """
    plan, settings = deployment.plan, deployment.config.settings
    passed = all(check.passed for check in checks)
    changed = any(done.values())
    if changed and len(plan.hosts) > 1:
        say(progress.timeline.as_text())
    rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
    if rows:
        say(table(rows, ["", "check", "found"]))
    if passed and checks:
        progress.say(f"{plan.environment} is ready" + ("" if changed else ": nothing to change"))
    elif passed:
        progress.say("the servers are ready; the proxy was not asked for")
    progress.timeline.write(
        "result",
        environment=plan.environment,
        url=targets.url(plan, settings),
        **done,
        ready=passed,
        checks=[check.as_dict() for check in checks],
        timeline=str(progress.timeline.file),
    )
    if not passed:
        raise ActionError(
            "the servers are up but do not serve as they should, see the checks above.",
            todo="look at: invoke status, invoke logs",
        )
    if checks and not as_json:
        proxy = f", proxy: {deployment.proxy_kind}" if deployment.proxy_kind else ""
        print(f"serving {plan.served_name} at {targets.url(plan, settings)}{proxy}\ntry it:")
        print(f"  {smoke_test.curl_line(plan, settings)}")
        completion = next(check for check in checks if check.name == "completion")
        print(f"it answered: {completion.found}")


# After a deployment that failed: what it started is stopped, what it replaced is brought back.


def failed(
    deployment: Deployment, run: Run, error: BaseException, progress: Progress, keep: bool
) -> None:
    """What deploy.on_failure wants. Raises ActionError, which names error too, when that fails."""
    if run.proved:  # interrupted while it was written down, which the next command goes on with
        return
    if not run.touched:
        progress.say("servers were not touched")
    elif keep or deployment.config.settings.deploy.on_failure == "keep":
        say("kept as it is; end it with: make stop")
    else:
        undo(deployment, run, error, progress)
        run.undone()


def undo(deployment: Deployment, run: Run, error: BaseException, progress: Progress) -> None:
    """Undo this run's changes, and those before it that were never proved."""
    changes = run.all_changes()
    only = [name for name, what in changes.touched.items() if what in ("start", "restart")]
    settings = deployment.config.settings
    if only:
        progress.say("stopping what this run started")
        variables = {**run.variables, "omnikit_only": ",".join(only)}
        stopped = fleet.play("stop_server.yml", deployment.inventory, settings, variables=variables)
        if stopped.failures:
            left = "some of what was started could not be stopped; try: make stop"
            raise ActionError(f"{error}\n{left}") from error
    if not changes.ran:
        return
    progress.say(f"bringing back what ran before: {', '.join(changes.ran)}")
    back = fleet.play(
        "restore.yml",
        deployment.inventory,
        settings,
        progress.on_event,
        {**run.variables, "omnikit_only": ",".join(changes.ran)},
    )
    done = [name for one in back.json("Start what ran before").values() for name in one["done"]]
    lacking = [name for name in changes.ran if name not in done]
    if back.failures or lacking:
        names = ", ".join(lacking or changes.ran)
        left = f"what ran before could not be brought back ({names}); try: invoke rollback"
        raise ActionError(f"{error}\n{left}") from error


@dataclass(frozen=True)
class Options:
    """steps: see omnikit.prepare.source_steps; named: those that were asked for by name. keep: stop
    nothing after a failure. yes: replace without asking.
    """

    steps: frozenset[str] = frozenset(STEPS)
    named: frozenset[str] = frozenset()
    keep: bool = False
    yes: bool = False
    as_json: bool = False


Done = dict[str, Mapping[str, str]]  # by name: what was done
_STARTING = {"run_docker", "run_server", "run_proxy"}


@dataclass(frozen=True)
class _Work:
    """What is to be done: found says it of the nodes, source of the source's copies; install: hosts
    where its packages are looked after. left: what these steps leave undone, by node. unfinished:
    why this is not what was proved last, "" where it is.
    """

    found: look.Look
    source: source_steps.SourceLook
    install: tuple[str, ...]
    left: Mapping[str, str]
    unfinished: str

    @property
    def any(self) -> bool:
        """Whether anything is."""
        return bool(self.found.changes or self.source.lines or self.install)

    @property
    def ran(self) -> list[str]:
        """Nodes that serve now, and of which something is changed."""
        reloads = [name for name, what in self.found.changes.items() if what == "reload"]
        return [*self.found.replaces, *reloads]


def deploy(config: Config, options: Options) -> int:
    """Deploy and report. Raises InputError before anything changed, ActionError after a failure."""
    plan = make_plan(config)
    if options.steps & _STARTING:
        image.refuse(config)
    with recorded(config.environment, "deploy", options) as progress:
        settle(config)
        for note in (*config.notes, *plan.notes, *image.notes(config)):
            progress.say(f"note: {note}")
        deployment = prepared(config, plan, options, progress)
        return carry_out(deployment, options, progress)


def prepared(config: Config, plan: Plan, options: Options, progress: Progress) -> Deployment:
    """Set this machine and the rank tables up as the steps want it, and render all files."""
    with progress.timeline.step("set up"):
        found = local_setup.ensure(config, plan, progress.say)
        if "sync_code" in options.steps and sync.is_wanted(config):
            patched = sync.patch(config)
            if patched:
                progress.say(patched)
    tables: dict[str, dict[str, str]] = {}
    if ranktables.needed(config, plan) and "ranktable" in options.steps:
        with progress.timeline.step("rank tables"):
            tables, made = ranktables.ensure(config, plan)
        changed = sum(what != "unchanged" for what in made.values())
        progress.say(f"rank tables: {changed} of {len(made)} files changed")
    elif ranktables.needed(config, plan):
        tables = ranktables.remembered(plan.environment)
    return prepare(config, found.inputs, found.proxy, tables, plan)


def rollback(config: Config, number: Optional[int], options: Options) -> int:
    """Bring an environment back to a release, by default the one before the present."""
    with recorded(config.environment, "rollback", options) as progress:
        settle(config)
        release = releases.find(config.environment, number)
        deployment = releases.restored(release, config)
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
    work.found.refuse_problems()
    asked = "run_proxy" in options.steps or (
        "run_server" in options.steps and deployment.plan.proxy is None
    )
    done: Done = {"changed": work.found.changes, "source": {}, "packages": {}}
    if not work.any and not (asked and work.unfinished):
        _end(deployment, _checks(deployment, asked, progress), done, options, progress)
        return 0
    _tell(work, progress)
    if work.found.replaces:
        cli.confirm(
            f"{', '.join(work.found.replaces)} would be ended and started anew.", options.yes
        )
    what = f"{note or 'deploy'} of {deployment.plan.environment}"
    with hold(deployment.config, what, work.found.seen, deployment.plan.hosts) as run:
        run.results = dict.fromkeys(run.results, "steps done")
        try:
            done.update(_steps(deployment, work, options, progress, run))
            if asked:
                run.adopt()
            checks = _checks(deployment, asked, progress)
            if checks and not work.left and all(check.passed for check in checks):
                found, about = work.found, work.source.about
                run.prove(releases.Staged(deployment, found.changes, found.images, about, note))
            _end(deployment, checks, done, options, progress)
        except (ToolkitError, KeyboardInterrupt) as error:
            failed(deployment, run, error, progress, keep=options.keep)
            raise
    return 0


def _checks(deployment: Deployment, asked: bool, progress: Progress) -> list[smoke_test.Check]:
    """Real requests: only they prove that a deployment is good."""
    if not asked:
        return []
    with progress.timeline.step("real requests"):
        return truth.gate(deployment.plan, deployment.config.settings)


def _end(
    deployment: Deployment,
    checks: list[smoke_test.Check],
    done: Done,
    options: Options,
    progress: Progress,
) -> None:
    """Say how it ended. Raises ActionError when a check has failed."""
    if options.steps & {"run_server", "run_proxy"}:
        report(deployment, checks, done, progress, options.as_json)
        return
    progress.say("done: " + ", ".join(step for step in STEPS if step in options.steps))
    name = deployment.plan.environment
    progress.timeline.write("result", environment=name, **done)


def _look(deployment: Deployment, options: Options, progress: Progress) -> _Work:
    """Ask all hosts what they need. Changes nothing."""
    config, plan = deployment.config, deployment.plan
    with progress.timeline.step("compare the source"):
        source = source_steps.look(config, plan, options.steps, "sync_code" in options.named)
    found = look.look(deployment, progress.timeline.on_event)
    source_steps.restarts(found, source, plan)
    if options.steps & _STARTING:
        found.problems += image.problems(config, plan, found)
    install: tuple[str, ...] = ()
    if "pip_install" in options.named:
        install = tuple(source_steps.hosts_of(plan))
    elif "pip_install" in options.steps and sync.is_wanted(config):
        install = tuple(
            host
            for host in source_steps.hosts_of(plan)
            if set(found.hosts[host].values()) & {"start", "restart"}
        )
    mine = look.of_steps(found, plan, options.steps)
    proxy = plan.proxy.name if plan.proxy else None
    left = {
        name: what
        for name, what in found.changes.items()
        if ("run_proxy" if name == proxy else "run_server") not in options.steps
    }
    return _Work(mine, source, install, left, _unfinished(deployment, found))


def _unfinished(deployment: Deployment, found: look.Look) -> str:
    """Why what runs, though nothing of it would change, is not what was proved last."""
    environment = deployment.plan.environment
    locks = [seen["lock"] for seen in found.seen.values()]
    if any(lock and lock["owner"] == identity.am_i() for lock in locks):
        return "a command of yours was cut off, and its lock is left"
    if runs_run.unproved(environment).touched:
        return "what runs was never proved by real requests"
    if found.stale:
        return "files on hosts are not as they were deployed"
    if not found.good or not releases.deployed_last(deployment):
        return "it was not written down as what was proved last"
    return ""


def _tell(work: _Work, progress: Progress) -> None:
    """Say what is going to be done, and why."""
    todo = [f"{what} {name}" for name, what in work.found.changes.items()]
    todo += [f"copy the source to {host} ({line})" for host, line in work.source.lines.items()]
    todo += [f"look after the packages on {', '.join(work.install)}"] if work.install else []
    todo = todo or [f"prove it by real requests: {work.unfinished}"]
    progress.say("to do: " + ", ".join(todo))
    for host, names in work.found.stale.items() if not work.found.changes else ():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        progress.say(f"host {host}: {names[0]}{more}: put right")
    for name, reason in work.found.reasons.items():
        progress.say(f"{name}: {reason}")
    for note in work.found.notes:
        progress.say(f"note: {note}")


def _steps(
    deployment: Deployment, work: _Work, options: Options, progress: Progress, run: Run
) -> Done:
    """Do them. Returns what became of the source's copies and of the packages, by host and place,
    and of damaged files.
    """
    config, plan = deployment.config, deployment.plan
    done: Done = {"source": {}, "packages": {}}
    acts = work.any or bool(work.found.stale)
    if acts and "run_docker" in options.steps and config.settings.runtime == "docker":
        run.touch(work.found.changes, work.ran)
        play("run_docker.yml", deployment, progress, run.variables)
    with progress.timeline.step("sync_code"):
        done["source"] = source_steps.sync(config, plan, work.source)
    if work.install:
        with progress.timeline.step("pip_install"):
            done["packages"] = source_steps.install(config, plan, work.install)
        for place, what in done["packages"].items():
            progress.say(f"{place}: {what}")
    if acts and "run_server" in options.steps:
        image.check(config, plan, work.found)
    tags = [step for step in ("run_server", "run_proxy") if step in options.steps]
    if acts and tags:
        run.touch(work.found.changes, work.ran)
        play("run_server.yml", deployment, progress, run.variables, tags)
    if not work.found.changes:
        done["repaired"] = {host: ", ".join(files) for host, files in work.found.stale.items()}
        done["finished"] = {"why": work.unfinished} if work.unfinished else {}
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
    with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
        outcome = fleet.play(
            playbook,
            deployment.inventory,
            settings,
            progress.on_event,
            {**variables, "omnikit_give_up": f"{private}/give-up"},
            tags=tags,
        )
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
