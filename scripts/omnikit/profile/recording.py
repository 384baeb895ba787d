"""A profile: choose, check, switch the profiler on, record, switch it off, fetch, sum up."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Collection, Mapping, Optional, Sequence

from hostkit.base import cli, health
from hostkit.base.errors import ActionError, InputError, ToolkitError
from omnikit.config import config
from omnikit.config.config import Config
from omnikit.deploy import acts, record, status
from omnikit.fleet import causes, jobs
from omnikit.load import measurement
from omnikit.logs import fetch
from omnikit.plan.types import NodePlan, Plan
from omnikit.prepare import look
from omnikit.prepare.deployment import Deployment
from omnikit.profile import load as profile_load
from omnikit.profile import summary
from omnikit.profile.load import Demand, demand
from omnikit.profile.summary import workers_of
from omnikit.runs.run import Run, hold, settle
from omnikit.timeline.progress import Progress
from omnikit.topology.checks import nearest
from omnikit.topology.topology import make_plan

# Which instances are profiled, and the settings with which they are.

ALL = "all"


@dataclass(frozen=True)
class Options:
    """What was asked for. role: all, prefill, decode or colocated; instances: only these."""

    role: str = ALL
    instances: Sequence[str] = ()
    steps: Optional[int] = None
    token_threshold: Optional[int] = None

    def assignments(self, names: Sequence[str]) -> list[str]:
        """The settings that say the same."""
        made = [f"profiling.instances=[{', '.join(names)}]"]
        given = {"steps": self.steps, "token_threshold": self.token_threshold}
        return made + [f"profiling.{k}={v}" for k, v in given.items() if v is not None]


def nodes(plan: Plan, options: Options) -> list[NodePlan]:
    """The nodes to be profiled, whole instances. Raises InputError."""
    known = [node.name for node in plan.nodes]
    for name in options.instances:
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                f"there is no instance {name!r}" + (f", is it {near!r}?" if near else "."),
                where="--instance",
                todo=f"one of {', '.join(known)}",
            )
    wanted = {
        (node.role, node.instance)
        for node in plan.nodes
        if (not options.instances or node.name in options.instances)
        and options.role in (ALL, node.role)
    }
    found = [node for node in plan.nodes if (node.role, node.instance) in wanted]
    if not found:
        roles = ", ".join(dict.fromkeys(node.role for node in plan.nodes))
        raise InputError(
            f"no {options.role} instance is among these.",
            where="--role",
            todo=f"environment {plan.environment} has: {roles}",
        )
    return found


def profiled(
    environment: Optional[str],
    files: Sequence[str],
    assignments: Sequence[str],
    now: Config,
    options: Options,
) -> tuple[Config, list[NodePlan]]:
    """The configuration with the profiler of the wanted instances on, and their nodes in its plan.

    environment, files, assignments: as now was loaded with. Instances whose profiler the settings
    switch on keep it.
    """
    chosen = nodes(make_plan(now), options)
    always = list(now.settings.profiling.instances)
    names = list(dict.fromkeys([*always, *(node.name for node in chosen)]))
    made = config.load(environment, files, [*assignments, *options.assignments(names)])
    if options.token_threshold is not None and made.settings.profiling.start == "endpoint":
        raise InputError(
            "this engine has no threshold: its recording begins when it is told (profiling.start).",
            where="--token-threshold",
            todo="leave it out; --role prefill and --role decode tell the two apart",
        )
    return made, nodes(make_plan(made), options)


# The hosts' side of a profile: room for traces, waiting for them, having them here.

TRACES = "traces"  # the folder with all of them


class Unread(ActionError):
    """Traces were recorded, but the hosts' folders cannot be looked into: nothing is removed."""


class Traces:
    """The traces of some nodes, on their hosts."""

    def __init__(self, config: Config, plan: Plan, nodes: Sequence[NodePlan]) -> None:
        self.config = config
        self.plan = plan
        self.nodes = nodes
        self.before: dict[str, Any] = {}

    def _do(self, job: str, **more: Any) -> dict[str, dict[str, Any]]:
        """A job on all hosts concerned: their results. Raises what failed."""
        settings = self.config.settings
        parameters: dict[str, dict[str, Any]] = {}
        for host in self.plan.hosts:
            folders = {n.name: n.profile_dir for n in self.nodes if n.host == host.name}
            if folders:
                parameters[host.name] = {
                    "work_dir": host.work_dir,
                    "folders": folders,
                    "before": self.before.get(host.name, {}),
                    **more,
                }
        return jobs.results(jobs.run(self.plan, settings, job, parameters))

    def prepare(self) -> None:
        """Make the folders and see that there is room. Raises InputError; nothing else happened."""
        found = self._do("profile-prepare", free_mib=self.config.settings.profiling.free_mib)
        self.before = {host: result["before"] for host, result in found.items()}

    def wait(self, progress: Progress, short: Collection[str] = ()) -> bool:
        """Wait until every worker has written its trace to the end; False when that took too long.

        short: servers that will not write. Who writes does not say when it is done: two looks must
        find the same. Raises Unread.
        """
        settings = self.config.settings
        wanted = coming(self.nodes, short)
        last: dict[str, Mapping[str, int]] = {}

        def written() -> bool:
            nonlocal last
            results = self._look().values()
            found = {name: one for result in results for name, one in result["nodes"].items()}
            same, last = found == last, found
            if all(found[name]["workers"] >= count for name, count in wanted.items()):
                return same
            if progress.spoke_long_ago():
                some = (f"{n} {found[n]['workers']}/{count}" for n, count in wanted.items())
                progress.say("waiting for traces: " + ", ".join(some))
            return False

        interval_s = settings.readiness.poll_interval_s
        return health.wait_until(written, settings.profiling.timeout_s, interval_s)

    def _look(self) -> dict[str, dict[str, Any]]:
        try:
            return self._do("profile-look")
        except ToolkitError as error:
            places = ", ".join(f"{node.host}: {node.profile_dir}" for node in self.nodes)
            said = f"{error.what}\nThe traces stay where they are: {places}"
            raise Unread(said, where=error.where, todo=error.todo) from error

    def bring(self, into: Path) -> None:
        """Have all traces in a folder here, which is made, each node's in one of its name.

        Raises ActionError for hosts whose traces did not come; the others' are there then, and all
        are still on the hosts.
        """
        packed = self._do("profile-collect")
        try:
            into.mkdir(mode=0o700, exist_ok=True)
            failed = fetch.bring(self.plan, self.config, packed, into)
        except OSError as error:
            failed = dict.fromkeys(packed, f"{error.strerror}: {error.filename or into}")
        for host in packed:
            archive = fetch.archive_of(into, host)
            try:
                if host not in failed:
                    fetch.unpack(archive, into)
            except ActionError as error:
                failed[host] = error.what
            finally:
                with suppress(OSError):
                    archive.unlink(missing_ok=True)
        if failed:
            said = "\n".join(f"host {host}: {why}" for host, why in failed.items())
            raise ActionError(
                f"traces did not come from all hosts:\n{said}",
                where=str(into),
                todo="they are still on the hosts, below profiling.dir or in profiles/ of"
                " paths.work_dir: fetch them by hand; see also that there is room here: df -h"
                f" {into}",
            )

    def have(self, into: Path, not_back: Optional[ActionError], progress: Progress) -> None:
        """Have the traces here, and off the hosts. not_back: what an error must say too."""
        progress.say("fetching the traces")
        if not_back is not None:
            progress.say(f"what ran before is not back; the traces come all the same, to {into}")
        try:
            self.bring(into / TRACES)
        except ActionError as error:
            if not_back is None:
                raise
            raise ActionError(f"{error}\n{not_back.what}", todo=not_back.todo) from error
        self.remove(progress)

    def remove(self, progress: Progress) -> None:
        """Remove the traces from the hosts, and name what is left: their disks fill up with it."""
        left = self.clear()
        if left:
            progress.say(
                f"not removed from the hosts, {len(left)} of another user there (container.user):"
                f" {', '.join(left)}. What to do: remove them as root"
            )

    def clear(self) -> list[str]:
        """Remove the traces from the hosts; returns what is still there, as HOST: PATH."""
        done = self._do("profile-clear")
        return [f"{host}: {path}" for host, result in done.items() for path in result["left"]]


def coming(nodes: Sequence[NodePlan], short: Collection[str]) -> dict[str, int]:
    """By node, how many workers will write, when these servers do not. Pure."""
    found = {}
    for node in nodes:
        mine = [server for server in node.servers if server.name in short]
        # A host that only lends its devices writes with the server of its instance.
        lent = not node.servers and any(
            server.name in short
            for other in nodes
            if (other.role, other.instance) == (node.role, node.instance)
            for server in other.servers
        )
        each = workers_of(node) // max(1, len(node.servers))
        found[node.name] = 0 if lent else workers_of(node) - len(mine) * each
    return found


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

    @cached_property
    def plan(self) -> Plan:
        """With the profiler on."""
        return make_plan(self.on)

    @cached_property
    def demand(self) -> Demand:
        """The load that it takes. Raises InputError where no load can."""
        return demand(self.on, self.plan, self.nodes)

    def restarted(self, before: Plan) -> dict[str, list[str]]:
        """The nodes that a recording restarts, and what their servers are told then."""
        told = profile_load.differences(before, self.plan)
        return {name: told.get(name, []) for name in self.names if self.always or name in told}


def dry_run(work: Work, out: Optional[Path]) -> dict[str, Any]:
    """What would be done. Changes nothing, asks nobody."""
    wanted, needed = work.on.settings.profiling, work.demand
    return {
        "environment": work.plan.environment,
        "instances": work.names,
        "restart": work.restarted(make_plan(work.now)),
        "start": wanted.start,
        "steps": wanted.steps,
        "requests": needed.requests,
        "concurrency": needed.concurrency,
        "out": str(measurement.above(work.now, out, "profiles")),
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
    needed = work.demand
    _refuse_down(work.now, plan)
    with record.recorded(work.now.environment, "profile", acts.Options()) as progress:
        settle(work.now)
        steps = acts.Options(steps=frozenset({"ranktable"}))
        off = acts.prepared(work.now, plan, steps, progress)
        _refuse_other(off, progress)
        profile_load.try_one(plan, work.now.settings, needed)
        on = acts.prepared(work.on, work.plan, steps, progress)
        traces = Traces(work.on, on.plan, work.nodes)
        traces.prepare()
        _ask(work, off, yes)
        began = datetime.now()
        into = measurement.folder(work.now, out, began, "profiles")
        try:
            load, not_back = _record(work, off, on, traces, progress)
        except BaseException as error:
            unread = isinstance(error, Unread) or isinstance(error.__cause__, Unread)
            with suppress(ToolkitError, KeyboardInterrupt):  # the first error is what matters
                give_up(traces, into, progress, keep=unread)
            raise
        traces.have(into, not_back, progress)
        about = {
            "environment": plan.environment,
            "began": began.strftime("%Y-%m-%d %H:%M:%S"),
            "load": load.as_data(),
        }
        more = profile_load.short_lines(load, work.on.settings) if work.always else []
        progress.say("reading the traces")
        count = work.on.settings.profiling.steps
        made = summary.of(into / TRACES, work.nodes, count, about, more)
        show(into, made)
        summary.keep(into, made)
        if not_back is not None:
            raise not_back
        return made


def give_up(traces: Traces, into: Path, progress: Progress, *, keep: bool) -> None:
    """Remove what a recording that failed has left. keep: the traces on the hosts are good."""
    shutil.rmtree(into, ignore_errors=True)
    if not keep:
        traces.remove(progress)


def _refuse_down(config: Config, plan: Plan) -> None:
    """Raise InputError unless all of the environment serves."""
    down = profile_load.unready(plan, status.observe(config, plan))
    if down:
        raise InputError(
            f"environment {plan.environment} does not run as a whole: {', '.join(down)} not ready."
            f"\n{status.as_text(status.collect(config))}",
            todo="invoke deploy, then again",
        )


def _refuse_other(off: Deployment, progress: Progress) -> None:
    """Raise InputError where the settings are not those of what runs: it could not be restored."""
    off.write()
    found = look.look(off, progress.timeline.on_event)
    found.refuse_problems()
    if found.changes:
        said = ", ".join(f"{what} {name}" for name, what in found.changes.items())
        raise InputError(
            f"what runs is not what the settings say; a deploy would {said}.",
            todo="invoke plan --live says why; do it with: invoke deploy, then profile",
        )


def _ask(work: Work, off: Deployment, yes: bool) -> None:
    restart = work.restarted(off.plan)
    if not restart:
        return
    rolled = {n.name for n in work.nodes if n.role == "prefill" and profile_load.can_roll(off)}
    cut = [name for name in restart if name not in rolled]
    what = f"{', '.join(restart)} would be restarted with the profiler on, and again as before."
    if cut:
        what += f" Requests that {', '.join(cut)} works on then fail."
    needed = work.demand
    what += f" The load: at most {needed.requests} completions, up to {needed.concurrency} at once."
    cli.confirm(what, yes)


def _record(
    work: Work, off: Deployment, on: Deployment, traces: Traces, progress: Progress
) -> tuple[profile_load.Load, Optional[ActionError]]:
    """Switch on, record, switch off, whatever happens in between. With the load, why what ran
    before is not back after a whole recording: its traces are good all the same.
    """
    off.write()
    seen = look.look(off, progress.timeline.on_event).seen
    with hold(work.now, f"profile of {off.plan.environment}", seen, off.plan.hosts) as run:
        try:
            todo = profile_load.turn_on(on, work.names, work.always, progress, run)
            progress.say("profiler on: " + (", ".join(todo) or "it was already"))
            load = _recorded(work, on, traces, progress)
        except BaseException as error:
            if not isinstance(error, InputError):
                progress.say("bringing back what ran before")
            _restore(off, work.names, progress, error, run)
            raise
        run.results = dict.fromkeys(run.results, "ok")
        progress.say("recorded; bringing back what ran before")
        try:
            _restore(off, work.names, progress, None, run)
        except ActionError as error:
            run.results = dict.fromkeys(run.results, "failed")
            return load, error
    return load, None


def _recorded(work: Work, on: Deployment, traces: Traces, progress: Progress) -> profile_load.Load:
    settings = work.on.settings
    by_request = settings.profiling.start == "endpoint"
    try:
        if by_request:
            profile_load.switch(profile_load.START, work.nodes, settings)
        progress.say("recording")
        load = profile_load.drive(on.plan, work.nodes, settings, work.demand, progress)
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
    observed = status.observe(work.on, work.plan)
    found = [observed[name] for name in work.names if name in observed]
    dead = [node for node in found if node["state"] == "failed"]
    if dead:
        lines = work.on.settings.fleet.log_tail_lines
        said = "\n".join(causes.describe(node, lines) for node in dead)
        raise ActionError(f"a server ended while it was profiled.\n{said}") from error


def _restore(
    off: Deployment,
    names: Sequence[str],
    progress: Progress,
    error: Optional[BaseException],
    run: Run,
) -> None:
    """As it was before. Raises ActionError that says what is left, and names error too."""
    try:
        profile_load.turn_off(off, names, progress, run)
    except (ToolkitError, KeyboardInterrupt) as second:
        first = f"{error}\n" if isinstance(error, ToolkitError) else ""
        why = str(second) or "interrupted"
        raise ActionError(
            f"{first}what ran before is not back: {why}\n{', '.join(names)} may be down, out of the"
            " proxy, or have the profiler on; the hosts may be locked.",
            todo=f"invoke deploy --environment {off.plan.environment}",
        ) from (error or second)
