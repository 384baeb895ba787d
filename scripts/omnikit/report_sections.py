"""The first half of a report: what the environment is, how it is, and how it was deployed."""

from __future__ import annotations

import re
from typing import Any, Mapping

from omnikit import report_gantt, report_topology
from omnikit.check_entry import FAILED, OK, WARNING
from omnikit.plan_report import ranges
from omnikit.report_blocks import Section
from omnikit.report_words import Words
from omnikit.status import span
from omnikit.timeline_where import GOOD

Data = Mapping[str, Any]
WIDE, NARROW = 960, 336  # of drawings, in CSS pixels
_PATH = 60  # stretches of the critical path


def overview(data: Data, t: Words) -> Section:
    """The state in a few lines."""
    made = Section("overview", t("Overview"))
    plan, status, timeline = data["plan"], data["status"], data["timeline"]
    state = t("not known")
    if status is not None:
        state = t("serves") if status["ok"] else t("does not serve")
    nodes = plan["nodes"]
    roles = {
        role: len({n["instance"] for n in nodes if n["role"] == role}) for role in _roles(nodes)
    }
    devices = sum(len(node["devices"]) for node in nodes)
    facts = [
        (t("state"), state),
        (t("entry"), plan["entry"]),
        (t("model"), plan["model_path"]),
        (t("served as"), plan["served_name"]),
        (t("engine"), plan["engine"]),
        (t("runtime"), plan["runtime"]),
        (t("hosts"), str(len(plan["hosts"]))),
        (t("instances"), ", ".join(f"{number} {t(role)}" for role, number in roles.items())),
        (t("devices"), str(devices) if devices else t("no devices")),
    ]
    if timeline:
        shown = f"{timeline['began']}, {timeline['seconds']:.1f} s, {timeline['result']}"
        facts.append((t("last deployment"), shown))
    if data["releases"]:
        last = data["releases"][0]
        facts.append((t("present release"), f"{last['number']}, {last['time']}"))
    made.facts(facts)
    return made


def _roles(nodes: Any) -> list[str]:
    return list(dict.fromkeys(node["role"] for node in nodes))


def topology(data: Data, t: Words) -> Section:
    """The drawing."""
    made = Section("topology", t("Topology"))
    states = {n["node"]: n["state"] for n in (data["status"] or {}).get("nodes", [])}
    made.drawing(
        report_topology.draw("topology-wide", data["plan"], states, WIDE, t),
        report_topology.draw("topology-narrow", data["plan"], states, NARROW, t),
        [("asks", t("requests")), ("kv", t("KV transfer"))] if data["plan"]["proxy"] else (),
    )
    return made


def state(data: Data, t: Words) -> Section:
    """Every server as it was when it was asked."""
    made = Section("state", t("State"))
    status = data["status"]
    if status is None:
        made.text(t("The state was not to be had."))
        return made
    rows = []
    for node in status["nodes"]:
        for server in node["servers"] or [{"name": node["node"], "state": node["state"]}]:
            kv = server.get("kv_usage")
            rows.append(
                [
                    server["name"],
                    t(node["role"]),
                    node["host"],
                    server.get("port"),
                    server["state"],
                    span(server.get("uptime_s")),
                    server.get("running"),
                    server.get("waiting"),
                    None if kv is None else f"{kv:.1%}",
                ]
            )
    head = ["name", "role", "host", "port", "state", "uptime", "running", "waiting", "KV use"]
    made.table(t("State"), [t(word) for word in head], rows, "3678")
    done = status["completion"]
    if done is not None:
        form = "One completion was answered: {found}" if done["passed"] else ""
        made.text(t(form or "The completion failed: {found}", found=done["found"]))
    return made


def instances(data: Data, t: Words) -> Section:
    """The plan as a table: all that the drawing shows."""
    made = Section("instances", t("Instances"))
    rows = [
        [
            node["name"],
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
        for node in data["plan"]["nodes"]
    ]
    proxy = data["plan"]["proxy"]
    if proxy:
        place = [proxy["name"], t("proxy"), proxy["host"], proxy["address"], "", proxy["port"]]
        rows.append([*place, "", "", "", "", "", proxy["container"]])
    head = ["instance", "role", "host", "address", "devices", "API ports", "KV ports", "kv_rank"]
    head += ["tp", "dp", "dp ranks", "container"]
    made.table(t("Instances"), [t(word) for word in head], rows, "789")
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
        rows.append([host, verdict, *counts, rest, own["time"]])
        for one in own["checks"]:
            if one["state"] != OK:
                key = tuple(str(one[k]) for k in ("title", "state", "found", "needed", "todo"))
                groups.setdefault(key, []).append(host)
    head = ["host", "state", "ok", "warnings", "failed", "not known", "checked at"]
    made.table(t("Host checks"), [t(word) for word in head], rows, "2345")
    if groups:
        made.heading(t("What is not ok"))
        shown = sorted(groups.items(), key=lambda one: one[0][1] != FAILED)
        rows = [[k[0], k[1], ", ".join(on), *k[2:]] for k, on in shown]
        head = ["check", "state", "hosts", "found", "needed", "what to do"]
        made.table(t("What is not ok"), [t(word) for word in head], rows, long=True)
    return made


def timeline(data: Data, t: Words) -> Section:
    """Where the time of the last deployment went."""
    made = Section("timeline", t("Deploy timeline"))
    found = data["timeline"]
    if not found:
        made.text(t("No deployment was recorded here."))
        return made
    about = {key: found[key] for key in ("command", "began", "result")}
    about.update(owner=found["owner"].split(":")[0], seconds=f"{found['seconds']:.1f}")
    made.text(t("{command}, {began}, by {owner}: {seconds} s, {result}", **about))
    if found["error"]:
        for line in found["error"].splitlines():  # it may have the tail of a log
            made.text(line, "bad")
    if not found["spans"]:
        return made
    waited, share = f"{found['waiting_for_engines_s']:.1f}", f"{found['waiting_for_engines']:.0%}"
    made.text(t("Waiting for engines: {seconds} s ({share}).", seconds=waited, share=share))
    made.drawing(
        report_gantt.draw("gantt-wide", found, WIDE, t),
        report_gantt.draw("gantt-narrow", found, NARROW, t),
        report_gantt.legend(found, t),
    )
    total = found["seconds"] or 1.0
    rows = [
        [
            s["step"],
            f"{s['seconds']:.1f}",
            f"{s['seconds'] / total:.0%}",
            s["hosts"],
            s["slowest"],
            s["result"],
        ]
        for s in found["steps"]
    ]
    head = ["step", "seconds", "share", "hosts", "slowest host", "result"]
    made.heading(t("Steps"))
    made.table(t("Steps"), [t(word) for word in head], rows, "123")
    rows = [
        [name, f"{one['seconds']:.1f}", f"{one['waiting_for_engines_s']:.1f}", one["result"]]
        for name, one in found["hosts"].items()
    ]
    head = [t("host"), t("seconds"), _waiting(t), t("result")]
    made.heading(t("hosts").capitalize())
    bad = any(one["result"] != GOOD for one in found["hosts"].values())
    made.table(t("hosts").capitalize(), head, rows, "12", long=bad)
    path = found["critical_path"][:_PATH]
    rows = [
        [
            f"{part['at']:.1f}",
            f"{part['seconds']:.1f}",
            part["host"],
            part["step"] if part["host"] else t("between steps"),
        ]
        for part in path
    ]
    head = ["at second", "seconds", "host", "step"]
    made.heading(t("Critical path: what the end waited for"))
    caption = t("Critical path: what the end waited for")
    made.table(caption, [t(word) for word in head], rows, "01")
    return made


def _waiting(t: Words) -> str:
    """What the sentence on waiting begins with, as the title of a column."""
    sentence = t("Waiting for engines: {seconds} s ({share}).", seconds="", share="")
    return re.split("[:：]", sentence)[0]
