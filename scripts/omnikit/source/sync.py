"""The source tree of this machine on all hosts: what differs is sent, checked, and written down."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import say
from hostkit.copy import copy
from hostkit.copy.record import among, needs
from hostkit.copy.tree import Excludes, shown
from hostkit.source import patch_clone, patch_vllm
from omnikit.config.config import Config
from omnikit.config.layers import control_folder, resolve_path
from omnikit.fleet import direct_ssh, identity
from omnikit.fleet.jobs import Done
from omnikit.plan.types import HostPlan, Plan
from omnikit.source import transfer as source_transfer
from omnikit.source.transfer import Source

SAME = "same folder"


@dataclass(frozen=True)
class Request:
    """What is wanted. verify: read all files again; replace: also what is no copy of ours.

    owner: for a line in the hosts' audit files; "": who calls writes one.
    """

    dry_run: bool = False
    verify: bool = False
    replace: bool = False
    owner: str = field(default_factory=identity.am_i)


def is_wanted(config: Config) -> bool:
    """Whether this environment has source to copy."""
    return config.settings.paths.local_code_dir is not None


def patch(config: Config, dry_run: bool = False) -> str:
    """Have omni-infer's patches in the vLLM of this machine's source, before it is copied without
    its .git: what became of it, in a line; "" where there is nothing to patch. Raises.
    """
    folder = _folder(config)
    given = {
        "dir": folder,
        "patches": config.settings.source.patches,
        "set_aside": config.settings.source.set_edits_aside,
    }
    if not Path(folder).is_dir():
        return ""
    try:
        made = patch_vllm.result(patch_clone.look(given)) if dry_run else patch_vllm.ensure(given)
    except InputError as error:
        raise _of_the_source(config, error) from error
    line = str(made["line"])
    if dry_run:
        line = line.replace("vllm patched", "vllm would be patched")
    return f"source {shown(folder)}: {line}" if line else ""


def source(config: Config, verify: bool = False) -> Source:
    """The source on this machine. Raises InputError."""
    exclude = config.settings.sync.exclude
    for number, pattern in enumerate(exclude):
        try:
            Excludes([pattern])
        except ValueError as error:
            raise config.error(f"{error}.", "sync", "exclude", number) from error
    folder = _folder(config)
    try:
        cache = control_folder(config.environment) / "code-index.json"
        return source_transfer.read(folder, exclude, cache, verify)
    except InputError as error:
        raise _of_the_source(config, error) from error


def _folder(config: Config) -> str:
    text = config.settings.paths.local_code_dir
    if text is None:
        raise config.error(
            "no folder is set, so there is nothing to copy.",
            "paths",
            "local_code_dir",
            todo="name the source on this machine: --set paths.local_code_dir=DIR",
        )
    return copy.real(resolve_path(text, True))


def _of_the_source(config: Config, error: InputError) -> InputError:
    at = str(config.origin("paths", "local_code_dir"))
    return InputError(f"{error.where}: {error.what}", where=at, todo=error.todo)


def destination(config: Config, plan: Plan) -> str:
    """The folder on every host. Raises InputError where it is not set, or dangerous."""
    text = config.settings.paths.code_dir
    todo = "set it to a folder for the source alone, for example /data/omniinfer"
    if text is None:
        raise config.error("no folder is set.", "paths", "code_dir", todo=todo)
    folder = plan.path(text)
    why = copy.refusal(folder, kept(config, plan))
    if why is not None:
        raise config.error(
            f"{shown(folder)} cannot be made a copy of the source: {why}.",
            "paths",
            "code_dir",
            todo=todo,
        )
    return str(PurePosixPath(folder))


def kept(config: Config, plan: Plan) -> list[str]:
    """Folders on the hosts that a copy must neither be nor contain."""
    found = {plan.model_path, *(host.work_dir for host in plan.hosts)}
    found |= {node.log_dir for node in plan.nodes}
    return sorted(one for one in found if PurePosixPath(one).is_absolute())


def sync(
    config: Config,
    plan: Plan,
    hosts: Sequence[str],
    made: Source,
    request: Optional[Request] = None,
) -> dict[str, Done]:
    """Make the hosts' copies equal to the source. Never raises for a host.

    The hosts are locked by who calls. A host's result: changed, action (unchanged, synced, would
    change, same folder), created, updated, deleted, files (the first), bytes, needs, digest,
    seconds.
    """
    request = request or Request()
    work = _Work(config, plan, made, request)
    known = {host.name: host for host in plan.hosts}
    found: dict[str, Done] = {}
    with ThreadPoolExecutor(
        max_workers=max(1, min(len(hosts), config.settings.fleet.forks))
    ) as pool:
        futures = {name: pool.submit(work.one, known[name]) for name in hosts}
        try:
            for name, future in futures.items():
                found[name] = future.result()
        except BaseException:
            for future in futures.values():
                future.cancel()
            work.stop()
            raise
    return found


class _Work:
    """What all hosts of one run share."""

    def __init__(self, config: Config, plan: Plan, made: Source, request: Request) -> None:
        self.settings, self.source, self.request = config.settings, made, request
        self.folder = control_folder(config.environment)
        self.dir = destination(config, plan)
        self.given: dict[str, Any] = {
            "dir": self.dir,
            "exclude": list(config.settings.sync.exclude),
            "full": request.verify,
            "digest": made.digest,
            "owner": request.owner,
        }
        self.begin = {
            **self.given,
            "files": made.packed,
            "revision": made.revision,
            "source": f"{identity.am_i().partition(':')[0]}:{shown(made.folder)}",
            "keep": kept(config, plan),
            "replace": request.replace,
            "dry_run": request.dry_run,
        }
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def one(self, host: HostPlan) -> Done:
        """All of it for one host, and a line when it is done."""
        began = time.monotonic()
        try:
            result = self._one(host)
        except ToolkitError as error:
            say(f"host {host.name}: failed: {error.what.splitlines()[0]}")
            return Done(error=error)
        result["seconds"] = round(time.monotonic() - began, 2)
        say(f"host {host.name}: {line(result)} ({result['seconds']:.1f} s)")
        return Done(result=result)

    def stop(self) -> None:
        """End the transfers that are under way: what they brought is used by the next run."""
        with self._lock:
            self._stopped = True
            for pid in self._running.values():
                run.end_group(pid, signal.SIGTERM)

    def _one(self, host: HostPlan) -> dict[str, Any]:
        if host.local:
            if copy.real(self.dir) == self.source.folder:
                return _result({}, SAME, self.source)
            if copy.nested(self.dir, self.source.folder):
                raise InputError(
                    f"one of {self.source.folder} and {self.dir} is in the other.",
                    todo="set paths.code_dir to another folder, or to the same one",
                )
        with direct_ssh.link(host, self.settings) as link:
            link.open()
            return self._steps(host, link)

    def _steps(self, host: HostPlan, link: direct_ssh.Link) -> dict[str, Any]:
        differs = link.job("code-begin", {**self.begin, "work_dir": host.work_dir})
        if self.request.dry_run or not differs["changed"]:
            any_left = any(differs[kind] for kind in ("create", "update", "mode", "delete"))
            return _result(differs, "would change" if any_left else "unchanged", self.source)
        try:
            transfer = self._transfer(host, link)
            send = sorted({*differs["create"], *differs["update"], *differs["mode"]})
            try:
                sent = source_transfer.send(
                    transfer,
                    send,
                    host.name,
                    self.folder,
                    partial(self._started, host.name),
                    # A copy that is used changes at once; for a first one that costs too much.
                    together=bool(differs["update"]),
                )
            finally:
                self._started(host.name, None)
            link.job("code-finish", {**self.given, "work_dir": host.work_dir})
        except ToolkitError as error:
            link.close()
            if "disk is full" in error.what:
                free = differs["free_bytes"] / 2**20
                error = ActionError(
                    f"{error.what} ({free:.1f} MiB were free before)",
                    where=error.where,
                    todo=error.todo,
                )
            raise error from None
        return {**_result(differs, "synced", self.source), "bytes": sent}

    def _transfer(self, host: HostPlan, link: direct_ssh.Link) -> source_transfer.Transfer:
        return source_transfer.Transfer(
            source=self.source.folder,
            target=self.dir,
            address=direct_ssh.target(host.settings),
            words=link.words,
            env=link.env,
            stall_s=self.settings.sync.stall_s,
        )

    def _started(self, host: str, pid: Optional[int]) -> None:
        with self._lock:
            self._running.pop(host, None)
            if pid is not None:
                self._running[host] = pid
                if self._stopped:
                    run.end_group(pid, signal.SIGTERM)


def _result(differs: dict[str, Any], action: str, made: Source) -> dict[str, Any]:
    kinds = ("create", "update", "mode", "delete")
    lists = {kind: differs.get(kind, []) for kind in kinds}
    touched = [path for kind in kinds for path in lists[kind]]
    return {
        "changed": action == "synced",
        "action": action,
        **source_transfer.summary(lists),
        "bytes": 0,
        "would_send": differs.get("need_bytes", 0),
        "needs": needs(touched),
        "used": among(touched),
        "was": differs.get("was"),
        "digest": made.digest,
        "revision": made.revision,
    }


def line(result: dict[str, Any]) -> str:
    """A host's result in one line."""
    if result["action"] in ("unchanged", SAME):
        return str(result["action"])
    did = "would be " if result["action"] == "would change" else ""
    counts = [f"{result[what]} {did}{what}" for what in ("created", "updated", "deleted")]
    size = result["would_send"] if did else result["bytes"]
    return f"{', '.join(counts)}, {_size(size)} {'at most' if did else 'sent'}"


def _size(size: int) -> str:
    if size < 1 << 20:
        return f"{size} bytes" if size < 1 << 10 else f"{size / 2**10:.1f} KiB"
    return f"{size / 2**20:.1f} MiB"
