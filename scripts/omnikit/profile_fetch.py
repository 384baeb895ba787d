"""The hosts' side of a profile: room for traces, waiting for them, having them here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Collection, Mapping, Sequence

from omnikit import health, jobs, log_fetch, log_unpack
from omnikit.config import Config
from omnikit.errors import ActionError, ToolkitError
from omnikit.plan_types import NodePlan, Plan
from omnikit.profile_summary import workers_of
from omnikit.progress import Progress


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
            failed = log_fetch.bring(self.plan, self.config, packed, into)
        except OSError as error:
            failed = dict.fromkeys(packed, f"{error.strerror}: {error.filename or into}")
        for host in packed:
            archive = log_fetch.archive_of(into, host)
            try:
                if host not in failed:
                    log_unpack.unpack(archive, into)
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
