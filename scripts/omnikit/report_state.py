"""The second part of a report: its servers now, its instances as planned, its hosts as checked."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

from omnikit import report_blocks, report_topology
from omnikit.check_entry import FAILED, OK, WARNING
from omnikit.plan_report import ranges
from omnikit.report_blocks import Section
from omnikit.report_words import Words
from omnikit.status import span

Data = Mapping[str, Any]
Node = Mapping[str, Any]
_SERVER_HEAD = ("name", "role", "host", "port", "state", "uptime", "running", "waiting", "KV use")
_NODE_HEAD = ("node", "role", "host", "state", "servers ready", "running", "waiting", "most KV use")


def state(data: Data, t: Words) -> Section:
    """Every server as it was when it was asked; those of one node together, where it has many."""
    made = Section("state", t("State"))
    status = data["status"]
    if status is None:
        made.text(t("The state was not to be had."))
        return made
    if not status["asked"]:
        made.text(t("Nothing was deployed from this machine; no host was asked for its state."))
        return made
    if any(len(node["servers"]) > 1 for node in status["nodes"]):
        _grouped(made, status["nodes"], t)
    else:
        _servers(made, t("State"), status["nodes"], t)
    done = status["completion"]
    if done is not None:
        form = "One completion was answered: {found}" if done["passed"] else ""
        made.text(t(form or "The completion failed: {found}", found=done["found"]))
    return made


def _grouped(made: Section, nodes: Sequence[Node], t: Words) -> None:
    """A row for each node, then the servers that are in another state; all when it is opened."""
    rows = []
    for node in nodes:
        servers = node["servers"]
        ready = sum(server["state"] == "ready" for server in servers)
        kv = [s["kv_usage"] for s in servers if s.get("kv_usage") is not None]
        about = [node["node"], t(node["role"]), node["host"], report_blocks.state(node["state"], t)]
        share = f"{ready}/{len(servers)}" if servers else None
        sums = [_sum(servers, key) for key in ("running", "waiting")]
        rows.append([*about, share, *sums, _percent(max(kv, default=None))])
    made.table(t("State"), [t(word) for word in _NODE_HEAD], rows, "4567")
    bad = [{**node, "servers": _apart(node)} for node in nodes if _apart(node)]
    if bad:
        made.heading(t("Servers that are not ready"))
        _servers(made, t("Servers that are not ready"), bad, t)
    every = Section("", "")
    _servers(every, t("All servers"), nodes, t)
    count = sum(len(node["servers"]) for node in nodes)
    made.folded(t("All servers ({number})", number=count), every.blocks)


def _apart(node: Node) -> list[Mapping[str, Any]]:
    """The servers that are not ready, unless all are as the row of their node says."""
    servers = node["servers"]
    if all(server["state"] == node["state"] for server in servers):
        return []
    return [server for server in servers if server["state"] != "ready"]


def _sum(servers: Sequence[Mapping[str, Any]], key: str) -> Optional[float]:
    found = [server[key] for server in servers if server.get(key) is not None]
    return sum(found) if found else None


def _percent(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.1%}"


def _servers(made: Section, caption: str, nodes: Sequence[Node], t: Words) -> None:
    rows = []
    for node in nodes:
        for server in node["servers"] or [{"name": node["node"], "state": node["state"]}]:
            about = [server["name"], t(node["role"]), node["host"], server.get("port")]
            about += [report_blocks.state(server["state"], t), span(server.get("uptime_s"))]
            about += [server.get("running"), server.get("waiting")]
            rows.append([*about, _percent(server.get("kv_usage"))])
    made.table(caption, [t(word) for word in _SERVER_HEAD], rows, "3678")


def instances(data: Data, t: Words) -> Section:
    """The plan as a table: all that the drawing shows."""
    made = Section("instances", t("Instances"))
    plan = data["plan"]
    members = report_topology.members(plan["nodes"])
    rows = [
        [
            node["name"],
            report_topology.member(members[node["name"]], t),
            t(node["role"]),
            node["host"],
            node["address"],
            ranges(node["devices"]),
            report_topology.ports(node["servers"], "api_port"),
            report_topology.ports(node["servers"], "kv_port"),
            node["kv_rank"],
            node["tensor_parallel"],
            node["dp_size"],
            ranges([server["dp_rank"] for server in node["servers"]]),
            node["container"],
        ]
        for node in plan["nodes"]
    ]
    proxy = plan["proxy"]
    if proxy:
        place = [proxy["name"], "", t("proxy"), proxy["host"], proxy["address"], "", proxy["port"]]
        rows.append([*place, "", "", "", "", "", proxy["container"]])
    head = ["node", "instance", "role", "host", "address", "devices", "API ports", "KV ports"]
    head += ["kv_rank", "tp", "dp", "dp ranks", "container"]
    made.table(t("Instances"), [t(word) for word in head], rows, "89a")
    return made


def checks(data: Data, t: Words) -> Section:
    """What check-env found, in numbers by host, and all that is not ok in full."""
    made = Section("checks", t("Host checks"))
    if not data["checks"]:
        made.text(t("No host was checked yet: invoke check-env, or this report with --check."))
        return made
    rows = []
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, own in data["checks"].items():
        states = [one["state"] for one in own["checks"]]
        counts = [states.count(OK), states.count(WARNING), states.count(FAILED)]
        rest = len(states) - sum(counts)
        verdict = FAILED if counts[2] else WARNING if counts[1] else OK
        shown = report_blocks.state(verdict, t)
        rows.append([host, shown, *counts, rest, own["time"]])
        for one in own["checks"]:
            if one["state"] != OK:
                key = tuple(str(one[k]) for k in ("title", "state", "found", "needed", "todo"))
                groups.setdefault(key, []).append(host)
    head = ["host", "state", "ok", "warnings", "failed", "not known", "checked at"]
    made.table(t("Host checks"), [t(word) for word in head], rows, "2345")
    if groups:
        made.heading(t("What is not ok"))
        ordered = sorted(groups.items(), key=lambda one: one[0][1] != FAILED)
        rows = [
            [t.known(k[0]), report_blocks.state(k[1], t), ", ".join(on), *k[2:]]
            for k, on in ordered
        ]
        head = ["check", "state", "hosts", "found", "needed", "what to do"]
        made.table(t("What is not ok"), [t(word) for word in head], rows, long=True)
    return made
