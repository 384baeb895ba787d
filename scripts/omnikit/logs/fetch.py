"""Fetch the logs of all hosts of an environment into one folder, with an index and a summary."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any, Iterable, Mapping, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say, shown, table
from hostkit.logs.files import TOO_MUCH
from omnikit.config.config import Config
from omnikit.fleet import causes, fleet, jobs
from omnikit.fleet.causes import Seen
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

# Unpack an archive of logs that came from a host: nothing in it can leave its folder.

_BLOCK = 1 << 20


def check_sum(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            found.update(block)
    return found.hexdigest()


def unpack(archive: Path, into: Path) -> list[str]:
    """Write the archive's files below a folder, which is made; returns their paths in it.

    Only plain files with paths that stay below the folder are taken; anything else is an
    ActionError before that member is written. Files are readable by their owner alone.
    """
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = []
    try:
        with tarfile.open(archive, mode="r:gz") as source:
            for member in source:
                path = safe_path(member)
                if path is None:
                    continue
                target = into.joinpath(*path.parts)
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                content = source.extractfile(member)
                assert content is not None
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                target.chmod(0o600)
                names.append(str(path))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ActionError(
            f"the archive cannot be unpacked: {error}.",
            where=str(archive),
            todo="see that there is room (df -h), then fetch again: invoke fetch-logs",
        ) from error
    return names


def safe_path(member: tarfile.TarInfo) -> PurePosixPath | None:
    """The member's path when it is a plain file that stays below; None for a folder."""
    if member.isdir():
        return None
    path = PurePosixPath(member.name)
    bad = path.is_absolute() or ".." in path.parts or not path.parts or "\0" in member.name
    if bad or not member.isreg():
        raise ActionError(
            f"the archive has {member.name!r}, which is no plain file below it; nothing of it"
            " is kept.",
            todo="look at the host that it came from: who else writes there?",
        )
    return path


# The index of fetched logs and its text: files, times, errors by kind and host. Pure.

_KINDS = 40  # kinds of error in the text; the index has all
_EXAMPLE = 160


class Errors:
    """Counts errors by kind and host."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, host: str, file: str, seen: Iterable[Seen]) -> None:
        """The errors of one file."""
        for one in seen:
            entry = self._found.setdefault(
                (one.kind, host),
                {
                    "kind": one.kind,
                    "name": one.name or None,
                    "host": host,
                    "count": 0,
                    "first": one.time,
                    "last": one.time,
                    "files": [],
                    "example": {"file": file, "line": one.line, "text": one.text},
                },
            )
            entry["count"] += 1
            if one.time is not None:
                if entry["first"] is None or one.time < entry["first"]:
                    entry["first"] = one.time
                    entry["example"] = {"file": file, "line": one.line, "text": one.text}
                entry["last"] = max(entry["last"] or one.time, one.time)
            if file not in entry["files"]:
                entry["files"].append(file)

    def as_data(self) -> list[dict[str, Any]]:
        """All kinds: the known first, then by the time of their first appearance."""
        return sorted(
            self._found.values(),
            key=lambda e: (e["name"] is None, e["first"] or "9", e["kind"], e["host"]),
        )


def as_text(index: Mapping[str, Any]) -> str:
    """summary.txt."""
    parts = [f"logs of {index['environment']}, fetched {index['fetched_at']}"]
    if index["since"]:
        parts[0] += f", of the last {index['since']}"
    failed = {host: h["error"] for host, h in index["hosts"].items() if h.get("error")}
    for host, error in failed.items():
        parts.append(f"NOT FETCHED from {host}: {error}")
    parts.append(_files(index["hosts"]))
    parts += _left_out(index["hosts"])
    if _too_much(index["hosts"], index["since"]):
        parts.append(
            "What was left out for its size: invoke fetch-logs --all brings it; see logs.fetch_mib"
            " and logs.fetch_file_mib."
        )
    parts.append(_errors(index["errors"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _files(hosts: Mapping[str, Any]) -> str:
    rows = []
    for host, about in hosts.items():
        for file in about.get("files", []):
            notes = []
            if file["cut_bytes"]:
                notes.append(f"its first {size(file['cut_bytes'])} were left out")
            if file["redacted_lines"]:
                notes.append(f"{file['redacted_lines']} lines with secrets redacted")
            rows.append(
                [
                    host,
                    file["path"],
                    size(file["bytes"]),
                    file["first"] or "-",
                    file["last"] or "-",
                    "; ".join(notes),
                ]
            )
    header = ["host", "file", "size", "first line", "last line", ""]
    return table(rows, header) if rows else "no log file was fetched"


def _left_out(hosts: Mapping[str, Any]) -> list[str]:
    found = []
    for host, about in hosts.items():
        by_reason: dict[str, list[str]] = {}
        for one in about.get("left_out", []):
            by_reason.setdefault(one["why"], []).append(one["path"])
        found += [
            f"left out on {host} ({why}): {', '.join(paths)}" for why, paths in by_reason.items()
        ]
    return found


def _too_much(hosts: Mapping[str, Any], since: Optional[str]) -> bool:
    """Whether anything was left out for its size, or may have been."""
    files = [file for about in hosts.values() for file in about.get("files", [])]
    left_out = [one for about in hosts.values() for one in about.get("left_out", [])]
    cut = not since and any(file["cut_bytes"] for file in files)
    return cut or any(one["why"] == TOO_MUCH for one in left_out)


def _errors(errors: Sequence[Mapping[str, Any]]) -> str:
    if not errors:
        return "no errors were found"
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for one in errors:
        kinds.setdefault(one["kind"], []).append(one)
    lines = [f"errors by kind ({len(kinds)}), times as the logs say them:"]
    for kind, hosts in list(kinds.items())[:_KINDS]:
        lines += ["", kind if not hosts[0]["name"] else f"{kind}: {causes.entry(kind).cause}"]
        rows = [
            [f"  {e['host']}", f"{e['count']} x", e["first"] or "-", e["last"] or "-"]
            for e in hosts
        ]
        lines += table(rows, ["  host", "", "first", "last"]).splitlines()
        example = min(hosts, key=lambda e: e["first"] or "9")["example"]
        lines.append(f"  {example['file']}:{example['line']}: {example['text'].strip()[:_EXAMPLE]}")
        if hosts[0]["name"]:
            lines.append(f"  what to do: {causes.entry(kind).remedy}")
    if len(kinds) > _KINDS:
        lines += ["", f"and {len(kinds) - _KINDS} more kinds, all in index.json"]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


JOB = "logs"


@dataclass(frozen=True)
class Wanted:
    """hosts, instances: only these; none means all. since: as given, with its seconds.
    max_file_bytes: of larger files only the end; max_bytes: of all files of a host, the newest
    first. out: where the folder is made.
    """

    hosts: Sequence[str]
    instances: Sequence[str]
    since: str
    since_s: Optional[float]
    max_file_bytes: Optional[int]
    max_bytes: Optional[int]
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
        (part / "summary.txt").write_text(shown(as_text(index)), encoding="utf-8")
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
            "max_bytes": wanted.max_bytes,
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
    inventory = fleet.hosts_of(plan, config.settings)
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
        elif check_sum(archive) != found["sha256"]:
            failed[host] = "its archive arrived damaged; fetch again."
    return failed


def archive_of(part: Path, host: str) -> Path:
    """Where a host's archive arrives."""
    return part / f"{host}.tar.gz"


def _unpack(part: Path, host: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Unpack one host's archive into a folder of its name, and keep what was said about it."""
    archive = archive_of(part, host)
    try:
        unpack(archive, part / host)
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
        seen, file["first"], file["last"] = causes.scan(
            lines, causes.source_of(file["path"]), latest, since
        )
    if since is not None and file["last"] is not None and file["last"] < since:
        # Its clock or time zone is another one: it was written since then, so all of it counts.
        with (part / path).open(encoding="utf-8", errors="replace", newline="\n") as lines:
            seen, _, _ = causes.scan(lines, causes.source_of(file["path"]), latest)
    errors.add(host, path, seen)
