"""What deploy and roll have in common: set up and render, run playbooks, undo what failed."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Sequence

from hostkit.base.errors import ActionError, ToolkitError
from hostkit.base.log import say, size_text, some
from omnikit.config.config import Config
from omnikit.deploy import smoke_test, status
from omnikit.fleet import causes, fleet, jobs
from omnikit.plan.types import Plan
from omnikit.prepare import local_setup, ranktables
from omnikit.prepare.deployment import Deployment, prepare
from omnikit.prepare.source_steps import STEPS
from omnikit.runs import releases
from omnikit.runs.run import Run
from omnikit.source import sync
from omnikit.timeline.progress import Progress, Span


@dataclass(frozen=True)
class Options:
    """steps: see omnikit.prepare.source_steps; named: those that were asked for by name. keep: stop
    nothing after a failure. yes: replace without asking. at_once: not one by one, even where that
    could be.
    """

    steps: frozenset[str] = frozenset(STEPS)
    named: frozenset[str] = frozenset()
    keep: bool = False
    yes: bool = False
    as_json: bool = False
    at_once: bool = False


WARM = "Read the weights into memory"


def warm_meanwhile(config: Config, plan: Plan, progress: Progress) -> None:
    """Have the hosts read the weights into memory while the rest is done (deploy.warm).

    It is no more than help: a host that cannot is passed over, all else says what is wrong there.
    """
    hosts = [host for host in plan.hosts if any(node.servers for node in plan.on_host(host.name))]
    given = {host.name: {"model": plan.model_path, "work_dir": host.work_dir} for host in hosts}
    settings = config.settings

    def begin() -> dict[str, float]:
        """By host that reads, how far its clock is behind."""
        asked = time.time()
        done = jobs.ask(plan, settings, "warm-begin", given)
        reads = {name: d.result for name, d in done.items() if d.result and d.result["changed"]}
        if reads:
            size = size_text(max(one["bytes"] for one in reads.values()))
            progress.say(f"{some(list(reads))}: reading the weights into memory meanwhile, {size}")
        return {name: asked - one["now"] for name, one in reads.items()}

    pool = ThreadPoolExecutor(1)
    begun = pool.submit(begin)
    pool.shutdown(wait=False)

    def end() -> None:
        behind = begun.result()
        told = jobs.ask(plan, settings, "warm-told", {name: given[name] for name in behind})
        for name, one in told.items():
            if one.result and "ended" in one.result:
                start, end = (one.result[key] + behind[name] for key in ("began", "ended"))
                progress.timeline.add(Span(WARM, name, start, end, "ok"))

    progress.at_end.append(end)


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


# After a deployment that failed: what it started is stopped, what it replaced is brought back.


def failed(
    deployment: Deployment,
    run: Run,
    error: BaseException,
    progress: Progress,
    keep: bool,
    turn_back: Callable[[], bool] = lambda: False,
) -> None:
    """What deploy.on_failure wants. Raises ActionError, which names error too, when that fails.

    turn_back: a way to undo that interrupts nobody; False where there is none.
    """
    if run.proved:  # interrupted while it was written down, which the next command goes on with
        return
    if not run.touched:
        progress.say("servers were not touched")
    elif keep or deployment.config.settings.deploy.on_failure == "keep":
        say("kept as it is; end it with: make stop")
    else:
        if not turn_back():
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
    _serves_again(deployment, progress)


def _serves_again(deployment: Deployment, progress: Progress) -> None:
    """Say whether what was proved last serves again: the proxy gives to all, and one answers."""
    release = releases.last(deployment.plan.environment)
    if release is None:
        return
    plan = releases.restored(release, deployment.config, deployment.plan).plan
    settings = deployment.config.settings
    checks = [status.in_pool(plan, settings), smoke_test.one_completion(plan, settings)]
    wrong = [f"{check.name}: {check.found}" for check in checks if not check.passed]
    if wrong:
        progress.say(f"release {release.number} is back and does not serve: {'; '.join(wrong)}")
        progress.say("What to do: invoke doctor says why")
    else:
        progress.say(f"release {release.number} serves again")
