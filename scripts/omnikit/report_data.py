"""Everything that a report of an environment shows, as data without secrets."""

from __future__ import annotations

import json
import time
from typing import Any, Mapping, Optional

from omnikit import (
    check_record,
    config_report,
    environment_checks,
    ranktable,
    ranktables,
    redact,
    releases,
    report_files,
    report_notes,
    report_versions,
    status,
    timeline_records,
    timeline_report,
)
from omnikit.config import Config
from omnikit.errors import ToolkitError
from omnikit.host_redact import REDACTED
from omnikit.log import say
from omnikit.plan_types import NodePlan, Plan
from omnikit.report_notes import Note, left_out
from omnikit.topology import make_plan

_LONGEST = 400  # characters of a setting's value


def collect(config: Config, check: bool) -> dict[str, Any]:
    """Gather it. check: look at all hosts now, as check-env does. Status is asked now.

    What cannot be had, or is damaged, is named in notes: forms with holes, see report_notes. Raises
    InputError for a wrong configuration only.
    """
    plan = make_plan(config)
    name = plan.environment
    notes: list[Note] = []
    found = _status(config, plan, notes)
    if check:
        new = environment_checks.run(config, plan, [host.name for host in plan.hosts])
        check_record.keep(name, new.checks, new.facts)
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
        "audit": report_files.audit(name, notes),
        "versions": report_versions.versions(config, known, checks),
        "ranktable": rank_tables(config, plan, notes),
        "settings": settings(config),
        "benchmarks": report_files.benchmarks(name, notes),
        "profiles": report_files.profiles(name, notes),
        "logs": report_files.log_errors(name, notes),
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


def _status(config: Config, plan: Plan, notes: list[Note]) -> Optional[dict[str, Any]]:
    if status.is_deployed(config):
        say(f"asking the hosts of {config.environment} how their servers are")
    try:
        found = status.collect(config)
    except ToolkitError as error:
        form = "The state of the servers could not be asked: {reason}"
        report_notes.add(notes, form, reason=str(error))
        return None
    if not found["asked"]:
        form = "Nothing was deployed from this machine; no host was asked for its state."
        report_notes.add(notes, form)
    elif not found["ok"]:
        form = "{name} does not serve now: see the state of its servers."
        report_notes.add(notes, form, name=config.environment)
    addresses = {host.name: str(host.address) for host in plan.hosts}
    report_notes.away(notes, found["nodes"], addresses)
    return found


def _checks(environment: str, notes: list[Note]) -> dict[str, Any]:
    checks, faults = check_record.read(environment)
    for fault in faults:
        report_notes.damaged(notes, check_record.path(environment), fault)
    return checks


def _releases(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """The newest first, each with all that is shown of it."""
    made = []
    with left_out(notes, releases.folder(environment)):
        for one in reversed(releases.all_of(environment)):
            with left_out(notes, one.folder / "about.json"):
                made.append(_release(one))
        for fault in releases.damaged(environment):
            report_notes.add(notes, "left out: {fault}", fault=fault)
    return made


def _release(one: releases.Release) -> dict[str, Any]:
    about = one.about
    texts = {key: str(about.get(key) or "") for key in ("time", "owner", "note")}
    maps = {key: dict(about.get(key) or {}) for key in ("images", "source", "changed")}
    return {"number": one.number, **texts, **maps}


def _timeline(environment: str, notes: list[Note]) -> Optional[dict[str, Any]]:
    """Of the newest deployment, else of whatever else changed the environment."""

    def say(fault: str) -> None:
        report_notes.add(notes, "left out: {fault}", fault=fault)

    record = timeline_records.newest(environment, say, timeline_records.DEPLOYMENTS)
    if record is None:
        return None
    with left_out(notes, record.path):
        return timeline_report.as_data(record)
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
