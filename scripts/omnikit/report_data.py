"""Everything that a report of an environment shows, as data without secrets."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Mapping, Optional

from omnikit import (
    check_record,
    config_report,
    engine_pins,
    environment_checks,
    ranktable,
    ranktables,
    redact,
    releases,
    report_files,
    status,
    timeline_records,
    timeline_report,
)
from omnikit.config import Config
from omnikit.errors import InputError, ToolkitError
from omnikit.host_redact import REDACTED
from omnikit.layers import PROJECT
from omnikit.log import say
from omnikit.plan_types import NodePlan, Plan
from omnikit.topology import make_plan, resolve_path

_FACTS = {
    "driver_version": "NPU driver",
    "firmware_version": "NPU firmware",
    "cann_version": "CANN",
    "engine": "container engine",
    "image_id": "image on the host",
    "python": "Python on the host",
}
_LONGEST = 400  # characters of a setting's value


def collect(config: Config, check: bool) -> dict[str, Any]:
    """Gather it. check: look at all hosts now, as check-env does. Status is asked now.

    What cannot be had is named in notes. Raises InputError for a wrong configuration only.
    """
    plan = make_plan(config)
    name = plan.environment
    notes: list[str] = []
    if check:
        found = environment_checks.run(config, plan, [host.name for host in plan.hosts])
        check_record.keep(name, found.checks, found.facts)
    checks = check_record.last(name)
    known = releases.all_of(name)
    data = {
        "environment": name,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": plan_data(config, plan),
        "status": _status(config, notes),
        "checks": {host.name: checks[host.name] for host in plan.hosts if host.name in checks},
        "timeline": _timeline(name, notes),
        "releases": [{"number": one.number, **one.about} for one in reversed(known)],
        "audit": report_files.audit(name),
        "versions": versions(config, known, checks),
        "ranktable": rank_tables(config, plan, notes),
        "settings": settings(config),
        "benchmarks": report_files.benchmarks(name),
        "profiles": report_files.profiles(name),
        "logs": report_files.log_errors(name),
        "notes": notes,
    }
    cleaned: dict[str, Any] = redact.clean(data)
    return cleaned


def plan_data(config: Config, plan: Plan) -> dict[str, Any]:
    """Hosts, instances and proxy as planned."""
    address, port = plan.entry()
    proxy = plan.proxy
    return {
        "hosts": [{"name": host.name, "address": host.address} for host in plan.hosts],
        "nodes": [_node(node) for node in plan.nodes],
        "proxy": proxy
        and {
            "name": proxy.name,
            "host": proxy.host,
            "address": proxy.address,
            "listen": f"{proxy.listen_host}:{proxy.port}",
            "port": proxy.port,
            "kind": config.settings.proxy.kind,
            "container": proxy.container,
        },
        "entry": f"{address}:{port}",
        "model_path": plan.model_path,
        "served_name": plan.served_name,
        "engine": config.settings.profile.engine,
        "runtime": config.settings.runtime,
        "disaggregated": plan.disaggregated,
        "device_kind": config.settings.engine.device_kind,
    }


def _node(node: NodePlan) -> dict[str, Any]:
    return {
        "name": node.name,
        "role": node.role,
        "instance": node.instance,
        "host": node.host,
        "address": node.address,
        "devices": list(node.devices),
        "tensor_parallel": node.tensor_parallel,
        "dp_size": node.dp_size,
        "kv_rank": node.kv_rank,
        "container": node.container,
        "servers": [
            {
                "name": server.name,
                "devices": list(server.devices),
                "dp_rank": server.dp_rank,
                "api_port": server.api_port,
                "kv_port": server.kv_port,
            }
            for server in node.servers
        ],
    }


def _status(config: Config, notes: list[str]) -> Optional[dict[str, Any]]:
    say(f"asking the hosts of {config.environment} how their servers are")
    try:
        found = status.collect(config)
    except ToolkitError as error:
        notes.append(f"The state of the servers could not be asked. {error}")
        return None
    away = {n["host"]: n["reason"] for n in found["nodes"] if n["state"] == "unreachable"}
    notes += [str(reason) for reason in away.values()]
    if not away and not found["ok"]:
        notes.append(f"{config.environment} does not serve now: see the state of its servers.")
    return found


def _timeline(environment: str, notes: list[str]) -> Optional[dict[str, Any]]:
    """Of the newest deployment, else of whatever else changed the environment."""
    if not timeline_records.paths(environment):
        return None
    try:
        newest = timeline_records.find(environment)
        records = map(timeline_records.read, timeline_records.paths(environment))
        deployed = (one for one in records if one.what in ("deploy", "rollback"))
        return timeline_report.as_data(next(deployed, newest))
    except InputError as error:
        notes.append(f"The newest record of a deployment is damaged. {error}")
        return None


def settings(config: Config) -> list[dict[str, str]]:
    """What differs from configs/defaults.yaml: value, default and origin."""
    return [
        {
            "name": config_report.dotted(path),
            "value": _short(config_report.shown((path, node))),
            "default": _default(config, path),
            "origin": str(node.origin),
        }
        for path, node in config_report.leaves(config, changed=True)
    ]


def _default(config: Config, path: tuple[str, ...]) -> str:
    node = config.defaults.find(path)
    return "" if node is None else _short(config_report.shown((path, node)))


def _short(value: Any) -> str:
    text = value if value == REDACTED else config_report.one_line(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def versions(
    config: Config, known: list[releases.Release], checks: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What runs or would run in which version, and from where that is known."""
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
        image = about.container.image or "-"
        rows.append(("image", image, str(config.origin("container", "image"))))
    if known:
        last = known[-1]
        where = f"release {last.number}"
        rows += [(f"image {name}", id_, where) for name, id_ in last.about["images"].items()]
        if last.about["source"]:
            dirty = " (dirty)" if last.about["source"].get("dirty") else ""
            rows.append(("source", f"{last.about['source'].get('revision')}{dirty}", where))
    for fact, title in _FACTS.items():
        values: dict[str, list[str]] = {}
        for host, own_checks in checks.items():
            if own_checks.get("facts", {}).get(fact):
                values.setdefault(str(own_checks["facts"][fact]), []).append(host)
        rows += [(title, value, f"check-env: {', '.join(on)}") for value, on in values.items()]
    return [dict(zip(("name", "version", "where"), row)) for row in rows]


def _pins(path: str) -> list[tuple[str, str]]:
    from pathlib import Path

    try:
        pins = engine_pins.read_pins(Path(path))
    except (OSError, ToolkitError):
        return []
    return [(n, v) for n, v in pins.items() if n.startswith("vllm") or n in ("torch", "nixl")]


def rank_tables(config: Config, plan: Plan, notes: list[str]) -> Optional[dict[str, Any]]:
    """The cluster's rank table that was built last, by instance; None where none is needed."""
    if not ranktables.needed(config, plan):
        return None
    tables = ranktables.remembered(plan.environment)
    made: dict[str, Any] = {"hosts": len(tables), "files": 0, "groups": []}
    made["files"] = sum(len(own) for own in tables.values())
    if not tables:
        return made
    try:
        groups = json.loads(ranktables.cluster_text(tables))["server_group_list"]
        made["groups"] = [_group(group) for group in groups]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        notes.append(f"The rank table kept for {plan.environment} cannot be read: {error}.")
    made["file"] = ranktable.MERGED_GLOBAL
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
