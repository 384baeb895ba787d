"""A profile: check, switch the profiler on, record, switch it off, fetch the traces, sum up."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from omnikit import (
    ask,
    causes,
    deploy,
    deploy_record,
    live,
    load_run,
    profile_load,
    profile_result,
    profile_switch,
    status,
)
from omnikit.config import Config
from omnikit.deployment import Deployment
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.plan_types import NodePlan
from omnikit.profile_demand import Demand, demand
from omnikit.profile_fetch import Traces, Unread
from omnikit.progress import Progress
from omnikit.topology import make_plan


@dataclass(frozen=True)
class Work:
    """now: the settings that run; on: the same with the profiler of some nodes on."""

    now: Config
    on: Config
    nodes: Sequence[NodePlan]

    @property
    def names(self) -> list[str]:
        """Of the nodes."""
        return [node.name for node in self.nodes]

    @property
    def always(self) -> bool:
        """Whether a recording begins with a start of the server."""
        return self.on.settings.profiling.start == "steps"

    def demand(self) -> Demand:
        """The load that it takes. Raises InputError where no load can."""
        return demand(self.on, make_plan(self.on), self.nodes)


def dry_run(work: Work, out: Optional[Path]) -> dict[str, Any]:
    """What would be done. Changes nothing, asks nobody."""
    plan = make_plan(work.on)
    wanted = work.on.settings.profiling
    needed = work.demand()
    told = profile_switch.differences(make_plan(work.now), plan)
    restart = [name for name in work.names if work.always or name in told]
    return {
        "environment": plan.environment,
        "instances": work.names,
        "restart": {name: told.get(name, []) for name in restart},
        "start": wanted.start,
        "steps": wanted.steps,
        "requests": needed.requests,
        "concurrency": needed.concurrency,
        "out": str(load_run.above(work.now, out, "profiles")),
    }


def as_lines(would: dict[str, Any]) -> list[str]:
    """A dry run for a person."""
    lines = []
    for name, told in would["restart"].items():
        lines.append(f"{name}: restart, after a question, with")
        lines += [f"    {line}" for line in told]
    how = {
        "endpoint": f"POST {profile_load.START}, then {profile_load.STOP}",
        "steps": "the engine begins by itself",
    }
    lines += [
        f"{', '.join(would['instances'])}: record {would['steps']} steps ({how[would['start']]})",
        f"at most {would['requests']} completions, up to {would['concurrency']} at the same time",
    ]
    if would["restart"]:
        lines.append(f"{', '.join(would['restart'])}: restart as before")
    return [*lines, f"traces and summary: a folder in {would['out']}"]


def profile(
    work: Work, out: Optional[Path], yes: bool, show: Callable[[Path, dict[str, Any]], None]
) -> dict[str, Any]:
    """Record, and return the summary. Raises InputError before anything changed, else ActionError;
    the instances are as they were then, or the error says what is left.

    show: gets the folder and the summary as soon as there is one: pictures and files may fail.
    """
    plan = make_plan(work.now)
    needed = work.demand()
    _refuse_down(work.now)
    with deploy_record.recorded(work.now.environment, "profile", deploy.Options()) as progress:
        steps = deploy.Options(steps=frozenset({"ranktable"}))
        off = deploy.prepared(work.now, plan, steps, progress)
        _refuse_other(off, progress)
        profile_load.try_one(plan, work.now.settings, needed)
        on = deploy.prepared(work.on, make_plan(work.on), steps, progress)
        traces = Traces(work.on, on.plan, work.nodes)
        traces.prepare()
        _ask(work, on, off, yes)
        began = datetime.now()
        into = load_run.folder(work.now, out, began, "profiles")
        try:
            load, not_back = _record(work, off, on, traces, progress)
        except BaseException as error:
            unread = isinstance(error, Unread) or isinstance(error.__cause__, Unread)
            with suppress(ToolkitError, KeyboardInterrupt):  # the first error is what matters
                profile_result.give_up(traces, into, progress, keep=unread)
            raise
        profile_result.fetch(traces, into, not_back, progress)
        about = {
            "environment": plan.environment,
            "began": began.strftime("%Y-%m-%d %H:%M:%S"),
            "load": load.as_data(),
        }
        more = profile_load.short_lines(load, work.on.settings) if work.always else []
        progress.say("reading the traces")
        summary = profile_result.sum_up(work.nodes, work.on.settings, into, about, more)
        show(into, summary)
        profile_result.keep(into, summary)
        if not_back is not None:
            raise not_back
        return summary


def _refuse_down(config: Config) -> None:
    """Raise InputError unless all of the environment serves."""
    plan = make_plan(config)
    down = profile_switch.unready(plan, status.observe(config, plan))
    if down:
        raise InputError(
            f"environment {plan.environment} does not run as a whole: {', '.join(down)} not ready."
            f"\n{status.as_text(status.collect(config))}",
            todo="invoke deploy, then again",
        )


def _refuse_other(off: Deployment, progress: Progress) -> None:
    """Raise InputError where the settings are not those of what runs: it could not be restored."""
    off.write()
    found = live.look(off, progress.timeline.on_event)
    found.refuse_problems()
    if found.changes:
        said = ", ".join(f"{what} {name}" for name, what in found.changes.items())
        raise InputError(
            f"what runs is not what the settings say; a deploy would {said}.",
            todo="invoke plan --live says why; do it with: invoke deploy, then profile",
        )


def _ask(work: Work, on: Deployment, off: Deployment, yes: bool) -> None:
    told = profile_switch.differences(off.plan, on.plan)
    restart = [name for name in work.names if work.always or name in told]
    if not restart:
        return
    rolled = {n.name for n in work.nodes if n.role == "prefill" and profile_switch.can_roll(off)}
    cut = [name for name in restart if name not in rolled]
    what = f"{', '.join(restart)} would be restarted with the profiler on, and again as before."
    if cut:
        what += f" Requests that {', '.join(cut)} works on then fail."
    needed = work.demand()
    what += f" The load: at most {needed.requests} completions, up to {needed.concurrency} at once."
    ask.confirm(what, yes)


def _record(
    work: Work, off: Deployment, on: Deployment, traces: Traces, progress: Progress
) -> tuple[profile_load.Load, Optional[ActionError]]:
    """Switch on, record, switch off, whatever happens in between. With the load, why what ran
    before is not back after a whole recording: its traces are good all the same.
    """
    off.write()
    told = profile_switch.variables(off.plan)
    try:
        deploy.play("lock.yml", off, progress, told)
    except (ToolkitError, KeyboardInterrupt):
        # Nothing was done; what other hosts gave us goes back.
        deploy.play("finish.yml", off, progress, {**told, "omnikit_result": "refused"})
        raise
    try:
        todo = profile_switch.turn_on(on, work.names, work.always, progress)
        progress.say("profiler on: " + (", ".join(todo) or "it was already"))
        load = _recorded(work, on, traces, progress)
    except BaseException as error:
        if not isinstance(error, InputError):
            progress.say("bringing back what ran before")
        _restore(off, work.names, progress, error)
        raise
    progress.say("recorded; bringing back what ran before")
    try:
        _restore(off, work.names, progress, None)
    except ActionError as error:
        return load, error
    return load, None


def _recorded(work: Work, on: Deployment, traces: Traces, progress: Progress) -> profile_load.Load:
    settings = work.on.settings
    by_request = settings.profiling.start == "endpoint"
    try:
        if by_request:
            profile_load.switch(profile_load.START, work.nodes, settings)
        progress.say("recording")
        load = profile_load.drive(on.plan, work.nodes, settings, work.demand(), progress)
        progress.say(f"{load.answered} of {load.sent} requests answered")
        _refuse_dead(work, None)
        if by_request:
            profile_load.switch(profile_load.STOP, work.nodes, settings)
        # A server whose recording has not ended by itself writes nothing: it is not waited for.
        missing = {} if by_request else profile_load.short(load, settings)
        for line in [] if by_request else profile_load.short_lines(load, settings):
            progress.say(line)
        if not traces.wait(progress, missing):
            progress.say(f"not all traces after {settings.profiling.timeout_s:g} s")
    except ActionError as error:
        _refuse_dead(work, error)
        raise
    return load


def _refuse_dead(work: Work, error: Optional[ActionError]) -> None:
    """Raise ActionError with the last lines of a server that ended while it was profiled."""
    observed = status.observe(work.on, make_plan(work.on))
    found = [observed[name] for name in work.names if name in observed]
    dead = [node for node in found if node["state"] == "failed"]
    if dead:
        lines = work.on.settings.fleet.log_tail_lines
        said = "\n".join(causes.describe(node, lines) for node in dead)
        raise ActionError(f"a server ended while it was profiled.\n{said}") from error


def _restore(
    off: Deployment, names: Sequence[str], progress: Progress, error: Optional[BaseException]
) -> None:
    """As it was before. Raises ActionError that says what is left, and names error too."""
    try:
        profile_switch.turn_off(off, names, progress)
    except (ToolkitError, KeyboardInterrupt) as second:
        first = f"{error}\n" if isinstance(error, ToolkitError) else ""
        why = str(second) or "interrupted"
        raise ActionError(
            f"{first}what ran before is not back: {why}\n{', '.join(names)} may be down, out of the"
            " proxy, or have the profiler on; the hosts may be locked.",
            todo=f"invoke deploy --environment {off.plan.environment}",
        ) from (error or second)
