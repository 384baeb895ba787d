"""The deployment of an environment, step by step: look, ask, start, wait, prove, keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Collection, Mapping, Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import say, some, table
from omnikit.access import targets
from omnikit.config.config import Config
from omnikit.deploy import leave, roll, smoke_test, truth
from omnikit.deploy.acts import Options, failed, play, prepared, warm_meanwhile
from omnikit.deploy.record import recorded
from omnikit.fleet import identity
from omnikit.prepare import look, source_steps
from omnikit.prepare.deployment import Deployment
from omnikit.prepare.source_steps import STEPS
from omnikit.runs import releases
from omnikit.runs import run as runs_run
from omnikit.runs.run import Run, hold, settle
from omnikit.source import sync
from omnikit.spread import caches, weights
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
    way: roll.Way = roll.AT_ONCE,
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
        how = way.was() if changed else ": nothing to change"
        progress.say(f"{plan.environment} is ready{how}")
    elif passed:
        progress.say("the servers are ready; the proxy was not asked for")
    progress.timeline.write(
        "result",
        environment=plan.environment,
        url=targets.url(plan, settings),
        **done,
        **way.as_data(),
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


Done = dict[str, Mapping[str, str]]  # by name: what was done
_STARTING = {"run_docker", "run_server", "run_proxy"}


@dataclass(frozen=True)
class _Work:
    """What is to be done: found says it of the nodes, source of the source's copies; install: hosts
    where its packages are looked after. left: what these steps leave undone, by node. unfinished:
    why this is not what was proved last, "" where it is. way: one by one, or all at once.
    """

    found: look.Look
    source: source_steps.SourceLook
    install: tuple[str, ...]
    left: Mapping[str, str]
    unfinished: str
    way: roll.Way

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
        if config.settings.deploy.warm and "run_server" in options.steps:
            warm_meanwhile(config, plan, progress)
        deployment = prepared(config, plan, options, progress)
        return carry_out(deployment, options, progress)


def target(config: Config, number: Optional[int], unproved: bool) -> releases.Release:
    """What a rollback goes back to: a release by its number; None: the one that was proved last,
    where what runs now never was or a command was cut off (unproved), else the one before.

    Raises InputError.
    """
    last = releases.last(config.environment) if unproved and number is None else None
    return last or releases.find(config.environment, number)


def rollback(config: Config, number: Optional[int], options: Options) -> int:
    """Bring an environment back to a release; see target."""
    with recorded(config.environment, "rollback", options) as progress:
        unproved = runs_run.is_unproved(config.environment)  # a cut-off command leaves no trace
        settle(config)
        release = target(config, number, unproved)
        deployment = releases.restored(release, config)
        last = releases.last(config.environment)
        progress.say(
            f"going back to release {release.number} of {release.about['time']}"
            + (", which was proved last" if last and last.number == release.number else "")
        )
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


def carry_out(
    deployment: Deployment, options: Options, progress: Progress, note: str = "", now: bool = False
) -> int:
    """Bring the hosts to a deployment that is ready to act on. The environment is locked.

    note: said of the release that this becomes. now: instances that leave need not end their work.
    """
    deployment.write()
    leaving = leave.found(deployment) if options.steps >= {"run_server", "run_proxy"} else None
    work = _look(deployment, options, progress, leaving)
    if work.found.lack_weights and _weights(deployment, work.found, progress):
        work = _look(deployment, options, progress, leaving)
    work.found.refuse_problems()
    asked = "run_proxy" in options.steps or (
        "run_server" in options.steps and deployment.plan.proxy is None
    )
    done: Done = {"changed": work.found.changes, "source": {}, "packages": {}}
    if not work.any and not leaving and not (asked and work.unfinished):
        _end(deployment, _checks(deployment, asked, progress), done, options, progress)
        return 0
    _tell(work, progress, leaving.names if leaving else [])
    if work.found.replaces:
        cli.confirm(work.way.question(work.found.replaces), options.yes)
    what = f"{note or 'deploy'} of {deployment.plan.environment}"
    seen, hosts = work.found.seen, deployment.plan.hosts
    if leaving:
        seen, hosts = {**seen, **leaving.seen}, (*hosts, *leaving.hosts)
        done["left"] = {one.name: ", ".join(one.hosts) for one in leaving.instances}
    with hold(deployment.config, what, seen, hosts) as run:
        run.results = dict.fromkeys(run.results, "steps done")
        try:
            if leaving:
                leave.take_out(leaving, deployment, progress, run, now)
            done.update(_steps(deployment, work, options, progress, run))
            if asked:
                run.adopt()
            checks = _checks(deployment, asked, progress)
            if checks and not work.left and all(check.passed for check in checks):
                if leaving:
                    leave.end(leaving, progress, run)
                found, about = work.found, work.source.about
                run.prove(releases.Staged(deployment, found.changes, found.images, about, note))
                _keep_caches(deployment, progress)
            _end(deployment, checks, done, options, progress, work.way)
        except (ToolkitError, KeyboardInterrupt) as error:
            back = partial(roll.turn_back, deployment, run, error, progress, work.way)
            failed(deployment, run, error, progress, options.keep, back)
            raise
    return 0


def _weights(deployment: Deployment, found: look.Look, progress: Progress) -> bool:
    """Bring the weights to hosts that lack them, from one that has them; False where none has, or
    where that is not wanted.
    """
    config, plan = deployment.config, deployment.plan
    hosts = source_steps.hosts_of(plan)
    if not config.settings.distribution.on_deploy or len(hosts) < 2:
        return False
    lack = [host for host in hosts if host in found.lack_weights]
    progress.say(f"the weights are missing on {some(lack)}")
    # The others are not read for it: that would take minutes of each, and they may differ.
    request = weights.Request(lack, ask=hosts)
    moved = weights.Weights(config, plan, request)
    try:
        spread = moved.look()
    except InputError as error:
        progress.say(f"note: they cannot be brought there: {error.what.splitlines()[0]}")
        return False
    refused = moved.refusals(spread)
    progress.say(weights.shown(moved, spread))
    if refused:
        found.problems += refused
        return False
    takers = [host for host in plan.hosts if host.name in spread.takers]
    what = f"distribution of the weights for {plan.environment}"
    with progress.timeline.step("weights"), hold(config, what, hosts=takers):
        weights.distribute(moved, spread)
    return True


def _bring_caches(deployment: Deployment, found: look.Look, progress: Progress) -> None:
    """What engines compiled elsewhere, to hosts where servers of the same kind will start."""
    known = caches.Caches(deployment.plan, deployment.config.settings, deployment.files)
    starts = {name for name, what in found.changes.items() if what in ("start", "restart")}
    if not known.hosts or not starts:
        return
    with progress.timeline.step("caches"):
        rows = [row for row in known.look() if row.node in starts]
        for line in caches.lines(rows):
            progress.say(line)
        for line in known.bring(rows):
            progress.say(line)


def _keep_caches(deployment: Deployment, progress: Progress) -> None:
    known = caches.Caches(deployment.plan, deployment.config.settings, deployment.files)
    if known.hosts:
        with progress.timeline.step("keep caches"):
            for line in known.keep():
                progress.say(line)


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
    way: roll.Way = roll.AT_ONCE,
) -> None:
    """Say how it ended. Raises ActionError when a check has failed."""
    for act in progress.at_end:
        act()
    if options.steps & {"run_server", "run_proxy"}:
        report(deployment, checks, done, progress, options.as_json, way)
        return
    progress.say("done: " + ", ".join(step for step in STEPS if step in options.steps))
    name = deployment.plan.environment
    progress.timeline.write("result", environment=name, **done)


def _look(
    deployment: Deployment, options: Options, progress: Progress, leaving: Optional[leave.Leaving]
) -> _Work:
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
    against = way_against(options, source, install)
    gone = leaving.nodes if leaving else ()
    way = roll.AT_ONCE
    if mine.replaces:
        way = roll.way(deployment, mine, against=against, leaving=gone)
    return _Work(mine, source, install, left, _unfinished(deployment, found), way)


def way_against(
    options: Options, source: source_steps.SourceLook, install: Collection[str] = ()
) -> list[str]:
    """What stands against replacing instances one by one, before it is known which."""
    found = ["it was asked for all at once (--at-once)"] if options.at_once else []
    if not {"run_server", "run_proxy"} <= options.steps:
        found.append("with these steps no server can be left out of the proxy")
    if source.lines or install:
        found.append("the source's copy is changed below those that run")
    return found


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


def _tell(work: _Work, progress: Progress, leaving: Sequence[str]) -> None:
    """Say what is going to be done, and why."""
    todo = [f"{what} {name}" for name, what in work.found.changes.items()]
    todo += [f"end {name}" for name in leaving if name not in work.found.changes]
    todo += [f"copy the source to {host} ({line})" for host, line in work.source.lines.items()]
    todo += [f"look after the packages on {', '.join(work.install)}"] if work.install else []
    todo = todo or [f"prove it by real requests: {work.unfinished}"]
    progress.say("to do: " + ", ".join(todo))
    if work.way.shown():
        progress.say(work.way.shown())
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
    if work.way.gently:
        image.check(config, plan, work.found)
        _bring_caches(deployment, work.found, progress)
        roll.go(deployment, work.way, progress, run)
        play("run_server.yml", deployment, progress, run.variables, ["run_server", "run_proxy"])
        return done
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
        _bring_caches(deployment, work.found, progress)
    tags = [step for step in ("run_server", "run_proxy") if step in options.steps]
    if acts and tags:
        run.touch(work.found.changes, work.ran)
        play("run_server.yml", deployment, progress, run.variables, tags)
    if not work.found.changes:
        done["repaired"] = {host: ", ".join(files) for host, files in work.found.stale.items()}
        done["finished"] = {"why": work.unfinished} if work.unfinished else {}
    return done
