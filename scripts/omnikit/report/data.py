"""Everything that a report of an environment shows, as data without secrets."""

from __future__ import annotations

import base64
import json
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import ToolkitError
from hostkit.base.log import say
from hostkit.base.redact import REDACTED
from hostkit.files import regular
from hostkit.ranks import ranktable
from omnikit.checks import environment as checks_environment
from omnikit.checks import report as checks_record
from omnikit.config import report
from omnikit.config.config import Config
from omnikit.config.layers import PROJECT, control_folder, resolve_path, shown_path
from omnikit.deploy import status
from omnikit.engine import pins as engine_pins
from omnikit.fleet import causes
from omnikit.plan.types import NodePlan, Plan
from omnikit.prepare import ranktables
from omnikit.profile import summary as profile_summary
from omnikit.report import words
from omnikit.report.words import Note, left_out
from omnikit.runs import releases
from omnikit.timeline import records, summary
from omnikit.topology.topology import make_plan
from omnikit.yaml import redact

# What other commands left on the control host that a report shows. Reads only; never raises for a
# file that is damaged: it is left out, with a note.

BENCHMARKS = 12  # results shown, the newest
PROFILES = 4  # shown, the newest
AUDIT = 40  # lines shown, the newest
KINDS = 30  # kinds of error shown
PICTURE_BYTES = 400 << 10  # of one picture
PICTURES_BYTES = 1200 << 10  # of all
LATENCIES = ("ttft", "tpot", "e2el")


def _file(path: Path) -> Path:
    """The same path. Raises OSError for a folder, and for a pipe, which would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    return path


def _json(path: Path) -> Any:
    return regular.parsed(_file(path))


def utc(text: str) -> str:
    """A time as all of a report's are: in UTC. One without a zone is of this machine's."""
    for read in (datetime.fromisoformat, lambda one: datetime.strptime(one, "%Y%m%d-%H%M%S")):
        with suppress(ValueError, OverflowError):
            return read(text).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text


def benchmarks(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """Results of load tests, the newest first: of invoke benchmark-serving, or of vLLM's own."""
    folder = control_folder(environment) / "benchmarks"
    found = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        with left_out(notes, path):
            data = _json(path)
            if isinstance(data, dict) and (_runs(data) or "request_throughput" in data):
                found.append((path.stat().st_mtime, path, _benchmark(path, data)))
    made: list[dict[str, Any]] = []
    left = PICTURES_BYTES
    for _, path, one in sorted(found, key=lambda one: -one[0])[:BENCHMARKS]:
        shared = made and path.parent == folder
        pictures = [] if shared else list(_pictures(path.parent, left, notes))
        left -= sum(len(picture["data"]) for picture in pictures)
        made.append({**one, "pictures": pictures})
    return made


def _runs(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    runs = data.get("runs")
    return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []


def _benchmark(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    name = path.parent.name if path.stem == "result" else path.stem
    return {
        "name": str(data.get("name") or name),
        "file": shown_path(path),
        "model": str(data.get("model") or data.get("model_id") or "-"),
        "time": utc(str(data.get("began") or data.get("date") or "-")),
        "cause": str(data.get("cause") or ""),
        "runs": [_own_run(run) for run in _runs(data)] or [_vllm_run(data)],
    }


def _own_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A level of invoke benchmark-serving."""

    def of(metric: str, which: str) -> Any:
        found = run.get(f"{metric}_ms")
        return found.get(which) if isinstance(found, dict) else None

    keys = ("concurrency", "rate", "completed", "failed", "requests_per_s", "output_tokens_per_s")
    made = {key: run.get(key) for key in keys}
    for metric in LATENCIES:
        made.update({f"{metric}_{which}": of(metric, which) for which in ("p50", "p99")})
    return made


def _vllm_run(data: Mapping[str, Any]) -> dict[str, Any]:
    """The result file of vLLM's bench serve."""
    completed, wanted = data.get("completed"), data.get("num_prompts")
    numbers = isinstance(completed, int) and isinstance(wanted, int)
    made = {
        "concurrency": data.get("max_concurrency"),
        "rate": data.get("request_rate"),
        "completed": completed,
        "failed": data.get("failed", wanted - completed if numbers else None),  # type: ignore[operator]
        "requests_per_s": data.get("request_throughput"),
        "output_tokens_per_s": data.get("output_throughput"),
    }
    for metric in LATENCIES:
        made[f"{metric}_p50"] = data.get(f"p50_{metric}_ms", data.get(f"median_{metric}_ms"))
        made[f"{metric}_p99"] = data.get(f"p99_{metric}_ms")
    return made


def _pictures(folder: Path, left: int, notes: list[Note]) -> Iterator[dict[str, str]]:
    """SVG files as data: addresses. As a picture an SVG runs no script and loads nothing."""
    for path in sorted(folder.glob("*.svg")):
        with left_out(notes, path):
            size = _file(path).stat().st_size
            if size > PICTURE_BYTES or size * 4 / 3 > left:
                continue
            data = "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
            left -= len(data)
            yield {"name": path.stem, "data": data}


def profiles(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """What profiles came to, the newest first: workers, first operators of each role, faults."""
    folder = control_folder(environment) / "profiles"
    made: list[dict[str, Any]] = []
    left = PICTURES_BYTES
    for path in sorted(folder.glob("*/summary.json"), reverse=True) if folder.is_dir() else ():
        with left_out(notes, path):
            one = _profile(_json(path))
            pictures = list(_pictures(path.parent, left, notes))
            left -= sum(len(picture["data"]) for picture in pictures)
            name = path.parent.name
            made.append({**one, "name": name, "file": shown_path(path), "pictures": pictures})
        if len(made) == PROFILES:
            break
    return made


def _profile(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "began": utc(str(data["began"])),
        "workers": profile_summary.worker_rows(data),
        "roles": {name: profile_summary.operator_rows(one) for name, one in data["roles"].items()},
        "notes": [str(note) for note in data["notes"]],
        "faults": [str(fault) for fault in data["faults"]],
    }


def log_errors(
    environment: str, notes: list[Note], above: Optional[Path] = None
) -> Optional[dict[str, Any]]:
    """The summary of the logs that were fetched last, with what is known of each error."""
    folder = above or PROJECT / "build" / "logs"
    for path in sorted(folder.glob(f"{environment}-*/index.json"), reverse=True):
        with left_out(notes, path):
            data = _json(path)
            if data["environment"] == environment:
                return _errors(path, data)
    return None


def _errors(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    known = {cause.name: cause for cause in causes.catalogue()}
    for one in index.get("errors", []):
        kind = kinds.setdefault(one["kind"], _new_kind(one))
        kind["count"] += int(one["count"])
        kind["hosts"].append(str(one["host"]))
        if one["first"] and (kind["first"] is None or one["first"] < kind["first"]):
            kind["first"] = one["first"]
        kind["last"] = max(filter(None, [kind["last"], one["last"]]), default=None)
        cause = known.get(one["name"] or "")
        kind["cause"], kind["remedy"] = (cause.cause, cause.remedy) if cause else ("", "")
    failed = {h: a["error"] for h, a in index.get("hosts", {}).items() if a.get("error")}
    return {
        "file": shown_path(path),
        "fetched_at": utc(str(index.get("fetched_at") or "-")),
        "since": index.get("since"),
        "not_fetched": failed,
        "kinds": list(kinds.values())[:KINDS],
        "more": max(0, len(kinds) - KINDS),
    }


def _new_kind(one: Mapping[str, Any]) -> dict[str, Any]:
    example = {key: str(one["example"][key]) for key in ("file", "line", "text")}
    made = {"kind": str(one["kind"]), "count": 0, "hosts": [], "first": None, "last": None}
    return {**made, "example": example}


def audit(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """Who changed the environment from here, when, and how it ended; the newest first."""
    path = control_folder(environment) / "audit.jsonl"
    lines: list[str] = []
    with left_out(notes, path):
        if path.exists():
            lines = _file(path).read_text(encoding="utf-8").splitlines()[-AUDIT:]
    found = []
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            found.append(
                {key: str(entry.get(key, "")) for key in ("time", "owner", "what", "result")}
            )
    return found


_LONGEST = 400  # characters of a setting's value
Row = tuple[str, str, str]
_FACTS = {
    "driver_version": "NPU driver",
    "firmware_version": "NPU firmware",
    "cann_version": "CANN",
    "engine": "container engine",
    "image_id": "image ID on the host",
    "python": "Python on the host",
}


def collect(config: Config, check: bool) -> dict[str, Any]:
    """Gather it. check: look at all hosts now, as check-env does. Status is asked now.

    What cannot be had, or is damaged, is named in notes: forms with holes, see notes. Raises
    InputError for a wrong configuration only.
    """
    plan = make_plan(config)
    name = plan.environment
    notes: list[Note] = []
    found = _status(config, plan, notes)
    if check:
        new = checks_environment.run(config, plan, [host.name for host in plan.hosts])
        checks_record.keep(name, new.checks, new.facts)
    checks = _checks(name, notes)
    known = _releases(name, notes)
    data = {
        "environment": name,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": plan_data(config, plan),
        "status": found,
        "checks": {host.name: checks[host.name] for host in plan.hosts if host.name in checks},
        "timeline": _timeline(name, notes),
        "releases": known,
        "audit": audit(name, notes),
        "versions": versions(config, known, checks),
        "ranktable": rank_tables(config, plan, notes),
        "settings": settings(config),
        "benchmarks": benchmarks(name, notes),
        "profiles": profiles(name, notes),
        "logs": log_errors(name, notes),
        "notes": notes,
    }
    cleaned: dict[str, Any] = redact.clean(data)
    return cleaned


def plan_data(config: Config, plan: Plan) -> dict[str, Any]:
    """Hosts, instances and proxy as planned."""
    address, port = plan.entry()
    proxy, made = plan.proxy, None
    if proxy:
        made = _of(proxy, "name", "host", "address", "port", "container")
        made.update(listen=f"{proxy.listen_host}:{proxy.port}", kind=config.settings.proxy.kind)
    return {
        "hosts": [_of(host, "name", "address") for host in plan.hosts],
        "nodes": [_node(node) for node in plan.nodes],
        "proxy": made,
        "entry": f"{address}:{port}",
        **_of(plan, "model_path", "served_name", "disaggregated"),
        "engine": config.settings.profile.engine,
        "runtime": config.settings.runtime,
        "device_kind": config.settings.engine.device_kind,
    }


def _node(node: NodePlan) -> dict[str, Any]:
    servers = [
        {**_of(one, "name", "dp_rank", "api_port", "kv_port"), "devices": list(one.devices)}
        for one in node.servers
    ]
    names = ("name", "role", "instance", "host", "address", "tensor_parallel", "dp_size")
    about = _of(node, *names, "kv_rank", "container")
    return {**about, "devices": list(node.devices), "servers": servers}


def _of(thing: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _status(config: Config, plan: Plan, notes: list[Note]) -> Optional[dict[str, Any]]:
    if status.is_deployed(config):
        say(f"asking the hosts of {config.environment} how their servers are")
    try:
        found = status.collect(config)
    except ToolkitError as error:
        form = "The state of the servers could not be asked: {reason}"
        words.add(notes, form, reason=str(error))
        return None
    if not found["asked"]:
        form = "Nothing was deployed from this machine; no host was asked for its state."
        words.add(notes, form)
    elif not found["ok"]:
        form = "{name} does not serve now: see the state of its servers."
        words.add(notes, form, name=config.environment)
    addresses = {host.name: str(host.address) for host in plan.hosts}
    words.away(notes, found["nodes"], addresses)
    return found


def _checks(environment: str, notes: list[Note]) -> dict[str, Any]:
    checks, faults = checks_record.read(environment)
    for fault in faults:
        words.damaged(notes, checks_record.path(environment), fault)
    return checks


def _releases(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """The newest first, each with all that is shown of it."""
    made = []
    with left_out(notes, releases.folder(environment)):
        for one in reversed(releases.all_of(environment)):
            with left_out(notes, one.folder / "about.json"):
                made.append(_release(one))
        for fault in releases.damaged(environment):
            words.add(notes, "left out: {fault}", fault=fault)
    return made


def _release(one: releases.Release) -> dict[str, Any]:
    about = one.about
    texts = {key: str(about.get(key) or "") for key in ("time", "owner", "note")}
    maps = {key: dict(about.get(key) or {}) for key in ("images", "source", "changed")}
    return {"number": one.number, **texts, **maps}


def _timeline(environment: str, notes: list[Note]) -> Optional[dict[str, Any]]:
    """Of the newest deployment, else of whatever else changed the environment."""

    def say(fault: str) -> None:
        words.add(notes, "left out: {fault}", fault=fault)

    record = records.newest(environment, say, records.DEPLOYMENTS)
    if record is None:
        return None
    with left_out(notes, record.path):
        return summary.as_data(record)
    return None


def settings(config: Config) -> list[dict[str, str]]:
    """What differs from configs/defaults.yaml: value, default and origin."""
    return [
        {
            "name": report.dotted(path),
            "value": _short(report.shown((path, node))),
            "default": _default(config, path),
            "origin": str(node.origin),
        }
        for path, node in report.leaves(config, changed=True)
    ]


def _default(config: Config, path: tuple[str, ...]) -> str:
    node = config.defaults.find(path)
    return "" if node is None else _short(report.shown((path, node)))


def _short(value: Any) -> str:
    text = value if value == REDACTED else report.one_line(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def rank_tables(config: Config, plan: Plan, notes: list[Note]) -> Optional[dict[str, Any]]:
    """The cluster's rank table that was built last, by instance; None where none is needed."""
    if not ranktables.needed(config, plan):
        return None
    made: dict[str, Any] = {"hosts": 0, "files": 0, "groups": []}
    with left_out(notes, ranktables.folder(plan.environment)):
        tables = ranktables.remembered(plan.environment)
        if not tables:
            return made
        made.update(hosts=len(tables), files=sum(len(own) for own in tables.values()))
        made["file"] = ranktable.MERGED_GLOBAL
        groups = json.loads(ranktables.cluster_text(tables))["server_group_list"]
        made["groups"] = [_group(group) for group in groups]
    return made


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    devices = [d for server in group["server_list"] for d in server.get("device", [])]
    ranks = sorted(int(d["rank_id"]) for d in devices)
    ips = [str(d["device_ip"]) for d in devices]
    return {
        "group": str(group["group_id"]),
        "servers": [str(server["server_ip"]) for server in group["server_list"]],
        "devices": len(devices),
        "ranks": f"{ranks[0]}-{ranks[-1]}" if ranks else "-",
        "device_ips": f"{ips[0]} … {ips[-1]}" if ips else "-",
    }


def versions(
    config: Config, known: Sequence[Mapping[str, Any]], checks: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Name, version and where it is known from. known: releases, the newest first."""
    rows = [*_planned(config), *(_released(known[0]) if known else ()), *_found(checks)]
    return [dict(zip(("name", "version", "where"), row)) for row in rows]


def _planned(config: Config) -> list[Row]:
    about = config.settings
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    own = re.search(r'^version = "(.*)"', text, re.MULTILINE)
    rows = [
        ("omni-deploy-toolkit", own[1] if own else "?", "pyproject.toml"),
        ("engine", about.profile.engine, str(config.origin("profile", "engine"))),
        ("omni-infer", about.profile.omni_version, str(config.origin("profile", "omni_version"))),
        ("model", about.profile.model, str(config.origin("profile", "model"))),
    ]
    if about.engine.requirements and about.runtime == "process":
        path = resolve_path(about.engine.requirements, True)
        rows += [(name, pin, about.engine.requirements) for name, pin in _pins(path)]
    if about.runtime == "docker":
        rows.append(
            ("image", about.container.image or "-", str(config.origin("container", "image")))
        )
    return rows


def _pins(path: str) -> list[tuple[str, str]]:
    try:
        pins = engine_pins.read_pins(Path(path))
    except (OSError, ToolkitError):
        return []
    return [(n, v) for n, v in pins.items() if n.startswith("vllm") or n in ("torch", "nixl")]


def _released(last: Mapping[str, Any]) -> list[Row]:
    where = f"release {last['number']}"
    rows = [(f"image ID of {name}", id_, where) for name, id_ in last["images"].items()]
    if last["source"]:
        dirty = " (dirty)" if last["source"].get("dirty") else ""
        rows.append(("source", f"{last['source'].get('revision')}{dirty}", where))
    return rows


def _found(checks: Mapping[str, Any]) -> list[Row]:
    """What check-env found on the hosts: each version once, with the hosts that have it."""
    rows = []
    for fact, title in _FACTS.items():
        values: dict[str, list[str]] = {}
        for host, own_checks in checks.items():
            if own_checks["facts"].get(fact):
                values.setdefault(str(own_checks["facts"][fact]), []).append(host)
        rows += [(title, value, f"check-env: {', '.join(on)}") for value, on in values.items()]
    return rows
