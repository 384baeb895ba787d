"""Fetch the logs of all hosts of an environment into one folder, with an index and a summary."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from omnikit import bundle, fleet, jobs, log_errors, log_unpack
from omnikit.config import Config
from omnikit.deployment import control_folder
from omnikit.errors import ActionError, InputError
from omnikit.log import say
from omnikit.log_summary import Errors, as_text, size
from omnikit.plan_types import Plan
from omnikit.topology import make_plan

JOB = "logs"


@dataclass(frozen=True)
class Wanted:
    """hosts, instances: only these; none means all. since: as given, with its seconds.
    max_file_bytes: of larger files only the end. out: where the folder is made.
    """

    hosts: Sequence[str]
    instances: Sequence[str]
    since: str
    since_s: Optional[float]
    max_file_bytes: Optional[int]
    out: Path


@dataclass(frozen=True)
class Fetched:
    """folder: the logs; index: what is in them; failed: hosts that could not be asked, and why."""

    folder: Path
    index: Mapping[str, Any]
    failed: Mapping[str, str]

    @property
    def text(self) -> str:
        """The summary."""
        return as_text(self.index)


def fetch(config: Config, wanted: Wanted) -> Fetched:
    """Fetch. Raises InputError for unknown hosts or instances; a host that fails is in .failed."""
    plan = make_plan(config)
    parameters = parameters_of(plan, wanted)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = wanted.out / f"{plan.environment}-{stamp}"
    part = wanted.out / f".{folder.name}.{os.getpid()}"
    part.mkdir(parents=True, mode=0o700)
    try:
        done = _collect(plan, config, parameters)
        packed = {host: d.result for host, d in done.items() if d.result is not None}
        failed = {host: str(d.error) for host, d in done.items() if d.error is not None}
        failed.update(bring(plan, config, packed, part))
        about = {host: _unpack(part, host, packed[host]) for host in packed if host not in failed}
        failed.update({host: one["error"] for host, one in about.items() if "error" in one})
        index = _index(plan.environment, wanted, parameters, about, failed, part)
        (part / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        (part / "summary.txt").write_text(as_text(index), encoding="utf-8")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Fetched(folder, index, failed)


def parameters_of(plan: Plan, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The job's parameters by host. Raises InputError for what is not in the plan."""
    folders: dict[str, dict[str, str]] = {host.name: {} for host in plan.hosts}
    for node in plan.nodes:
        if node.servers or node.ray:
            folders[node.host][node.name] = node.log_dir
    if plan.proxy is not None:
        folders[plan.proxy.host][plan.proxy.name] = plan.proxy.log_dir
    instances = {name: host for host, own in folders.items() for name in own}
    _known("host", wanted.hosts, folders)
    _known("instance", wanted.instances, instances)
    chosen = {
        host.name: host
        for host in plan.hosts
        if (not wanted.hosts or host.name in wanted.hosts)
        and (not wanted.instances or any(instances[i] == host.name for i in wanted.instances))
    }
    if not chosen:
        raise InputError(
            "none of these instances is on these hosts.",
            where="--host, --instance",
            todo="invoke plan shows which instance is where",
        )
    return {
        name: {
            "work_dir": host.work_dir,
            "temp_dir": host.temp_dir,
            "folders": folders[name],
            "instances": list(wanted.instances) or None,
            "since_s": wanted.since_s,
            "max_file_bytes": wanted.max_file_bytes,
        }
        for name, host in chosen.items()
    }


def _known(what: str, names: Sequence[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no {what} {name!r}.",
                where=f"--{what}",
                todo=f"one of {', '.join(known)}",
            )


def _collect(
    plan: Plan, config: Config, parameters: Mapping[str, dict[str, Any]]
) -> dict[str, jobs.Done]:
    say(f"packing the logs on {', '.join(parameters)}")

    def tell(host: str, done: jobs.Done) -> None:
        if done.result is not None:
            found = done.result
            say(f"{host}: {len(found['files'])} files, packed {size(found['bytes'])}")
        else:
            say(f"{host}: {str(done.error).splitlines()[0]}")

    return jobs.run(plan, config.settings, JOB, parameters, on_done=tell)


def bring(
    plan: Plan, config: Config, packed: Mapping[str, Mapping[str, Any]], part: Path
) -> dict[str, str]:
    """Have the archives here, in part, and off the hosts; hosts where that failed, and why.

    packed: path and sha256 of each host's archive.
    """
    if not packed:
        return {}
    control = control_folder(plan.environment)
    control.mkdir(parents=True, exist_ok=True, mode=0o700)
    inventory = control / "inventory-logs.json"
    text = json.dumps(fleet.inventory(plan, config.settings, {}), indent=1) + "\n"
    bundle.write(inventory, text.encode())
    variables = part / "variables.json"
    given = {
        "omnikit_hosts": ",".join(packed),
        "omnikit_log_archives": {host: found["path"] for host, found in packed.items()},
        "omnikit_into": str(part.resolve()),
    }
    variables.write_text(json.dumps(given), encoding="utf-8")
    failed: dict[str, str] = {}
    try:
        outcome = fleet.play(
            "fetch_log.yml", inventory, config.settings, variables_file=variables.resolve()
        )
    finally:
        variables.unlink()
    for event in outcome.failures:
        failed[event["host"]] = str(fleet.failure(event))
    for host, found in packed.items():
        archive = archive_of(part, host)
        if host in failed:
            continue
        if not archive.is_file():
            failed[host] = "its archive did not arrive."
        elif log_unpack.check_sum(archive) != found["sha256"]:
            failed[host] = "its archive arrived damaged; fetch again."
    return failed


def archive_of(part: Path, host: str) -> Path:
    """Where a host's archive arrives."""
    return part / f"{host}.tar.gz"


def _unpack(part: Path, host: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Unpack one host's archive into a folder of its name, and keep what was said about it."""
    archive = archive_of(part, host)
    try:
        log_unpack.unpack(archive, part / host)
    except ActionError as error:
        shutil.rmtree(part / host, ignore_errors=True)
        return {"error": str(error), "files": [], "left_out": []}
    finally:
        archive.unlink(missing_ok=True)
    kept = ("files", "left_out", "redacted", "time", "utc_offset_s")
    return {key: found[key] for key in kept}


def _index(
    environment: str,
    wanted: Wanted,
    parameters: Mapping[str, Any],
    about: Mapping[str, dict[str, Any]],
    failed: Mapping[str, str],
    part: Path,
) -> dict[str, Any]:
    errors = Errors()
    hosts: dict[str, Any] = {}
    for host in parameters:
        if host in failed:
            hosts[host] = {"error": failed[host], "files": [], "left_out": []}
            continue
        hosts[host] = about[host]
        for file in about[host]["files"]:
            _look_into(part, host, about[host], file, wanted.since_s, errors)
    return {
        "environment": environment,
        "fetched_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "since": wanted.since or None,
        "hosts": hosts,
        "errors": errors.as_data(),
    }


def _look_into(
    part: Path,
    host: str,
    about: Mapping[str, Any],
    file: dict[str, Any],
    since_s: Optional[float],
    errors: Errors,
) -> None:
    """Errors and times of one file. Times are the host's own."""
    zone = timezone(timedelta(seconds=about["utc_offset_s"]))
    latest = datetime.fromtimestamp(file["modified"], zone).replace(tzinfo=None)
    since = None
    if since_s is not None:
        begin = datetime.fromtimestamp(about["time"] - since_s, zone).replace(tzinfo=None)
        since = begin.isoformat(timespec="seconds")
    path = f"{host}/{file['path']}"
    with (part / path).open(encoding="utf-8", errors="replace", newline="\n") as lines:
        seen, file["first"], file["last"] = log_errors.scan(
            lines, log_errors.source_of(file["path"]), latest, since
        )
    if since is not None and file["last"] is not None and file["last"] < since:
        # Its clock or time zone is another one: it was written since then, so all of it counts.
        with (part / path).open(encoding="utf-8", errors="replace", newline="\n") as lines:
            seen, _, _ = log_errors.scan(lines, log_errors.source_of(file["path"]), latest)
    errors.add(host, path, seen)
