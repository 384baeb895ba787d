"""The first part of a report: what the environment is, and how it was deployed."""

from __future__ import annotations

import re
from typing import Any, Mapping

from omnikit import report_gantt, report_topology
from omnikit.report_blocks import Section, Shown, state
from omnikit.report_words import Words
from omnikit.status import NOT_DEPLOYED
from omnikit.timeline_where import GOOD

Data = Mapping[str, Any]
WIDE, NARROW = 960, 336  # of drawings, in CSS pixels
_PATH = 60  # stretches of the critical path


def overview(data: Data, t: Words) -> Section:
    """The state in a few lines."""
    made = Section("overview", t("Overview"))
    plan, status, timeline = data["plan"], data["status"], data["timeline"]
    state = Shown(t("not known"), "warn")
    if status is not None and not status["asked"]:
        state = Shown(t.known(NOT_DEPLOYED), "soft")
    elif status is not None:
        state = Shown(t("serves"), "good") if status["ok"] else Shown(t("does not serve"), "bad")
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
        shown = f"{timeline['began']}, {timeline['seconds']:.1f} s, {t.known(timeline['result'])}"
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
    status, plan = data["status"], data["plan"]
    asked = status is not None and status["asked"]
    states = {n["node"]: n["state"] for n in (status["nodes"] if asked else ())}
    for name, (head, _, _) in report_topology.members(plan["nodes"]).items():
        if head in states:
            states.setdefault(name, states[head])  # its servers are its head's
    made.drawing(
        report_topology.draw("topology-wide", plan, states, WIDE, t),
        report_topology.draw("topology-narrow", plan, states, NARROW, t),
        [("asks", t("requests")), ("kv", t("KV transfer"))] if plan["proxy"] else (),
    )
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
            _result(s["result"], t),
        ]
        for s in found["steps"]
    ]
    head = ["step", "seconds", "share", "hosts", "slowest host", "result"]
    made.heading(t("Steps"))
    made.table(t("Steps"), [t(word) for word in head], rows, "123")
    rows = [
        [
            name,
            f"{one['seconds']:.1f}",
            f"{one['waiting_for_engines_s']:.1f}",
            _result(one["result"], t),
        ]
        for name, one in found["hosts"].items()
    ]
    head = [t("host"), t("seconds"), t("waiting for engines, s"), t("result")]
    made.heading(t("Hosts"))
    bad = any(one["result"] != GOOD for one in found["hosts"].values())
    made.table(t("Hosts"), head, rows, "12", long=bad)
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


def _result(raw: str, t: Words) -> Shown:
    """How a step or host ended: GOOD, or "failed on p5; unreachable: p3" (see timeline_where)."""
    if raw == GOOD:
        return state(raw, t)
    if not t.chinese:
        return Shown(raw, "bad")
    parts = [re.match(r"(.+?)(?: on |: )(.+)", part) for part in raw.split("; ")]
    told = [f"{t.known(part[1])}：{part[2]}" if part else raw for part in parts]
    return Shown("；".join(told), "bad")
