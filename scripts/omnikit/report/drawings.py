"""What a report draws, as data: templates/environment_report.html.j2 lays it out by CSS.

Places along the time axis are percentages, so that one drawing fits a phone and a desktop.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from omnikit.deploy.plan_report import ranges
from omnikit.report.words import Words
from omnikit.timeline.progress import Span
from omnikit.timeline.records import lanes
from omnikit.timeline.summary import GOOD, went_well

Data = Mapping[str, Any]
ROLES = ("prefill", "decode", "colocated")
CROSS = "✕"  # marks failures: colours alone do not tell them apart on grey paper, or to everyone
COLOURS = 6  # steps with a colour and a number of their own: those that took longest
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_WIDE, _NARROW = 16, 5  # seconds that have room along the axis, on a desktop and on a phone
_MANY = 16  # hosts with high bars


def topology(plan: Data, states: Mapping[str, str], t: Words) -> dict[str, Any]:
    """The proxy, the hosts by role, and what flows between them.

    plan: see data.plan_data; states: of nodes and proxy, by name.
    """
    proxy, own = plan["proxy"], members(plan["nodes"])
    frames: list[dict[str, Any]] = []
    for role in ROLES:
        nodes = [node for node in plan["nodes"] if node["role"] == role]
        if nodes:
            facts = list(_facts(nodes, plan["disaggregated"], t))
            cards = [_card(node, own[node["name"]], states, t) for node in nodes]
            title = f"{t(role)}: {_many(nodes, t)}"
            frames.append({"role": role, "title": title, "facts": facts, "cards": cards})
    about = []
    if proxy:
        place = f"{proxy['host']}, {proxy['listen']}"
        state = _state(states.get(proxy["name"], ""), t)
        title = f"{proxy['name']} {t('proxy')}"
        proxy = {"title": title, "lines": [place], "devices": [], **state}
        about.append(f"{title}: {place} {state['state']}".strip())
    about += [f"{frame['title']}; {', '.join(frame['facts'])}" for frame in frames]
    several = (node for node in plan["nodes"] if own[node["name"]][2] > 1)
    about += [f"{n['name']}: {t('instance')} {member(own[n['name']], t)}" for n in several]
    names = [t(frame["role"]) for frame in frames[:2]]
    about += [f"{t('requests')}: {t('proxy')} → {name}" for name in names if proxy]
    about += [f"{t('KV transfer')}: {' → '.join(names)}"] if len(names) > 1 else []
    title = t("Hosts, instances and what flows between them")
    return {"about": f"{title}: {'; '.join(about)}", "proxy": proxy, "frames": frames}


def _many(nodes: Sequence[Data], t: Words) -> str:
    instances = len({node["instance"] for node in nodes})
    hosts = len({node["host"] for node in nodes})
    if instances == 1:
        form = "1 instance on 1 host" if hosts == 1 else "1 instance on {hosts} hosts"
    else:
        form = "{instances} instances on {hosts} hosts"
        form = "{instances} instances on 1 host" if hosts == 1 else form
    return t(form, instances=instances, hosts=hosts)


def _facts(nodes: Sequence[Data], disaggregated: bool, t: Words) -> Iterator[str]:
    devices = sum(len(node["devices"]) for node in nodes)
    servers = [server for node in nodes for server in node["servers"]]
    yield t("{devices} devices", devices=devices) if devices else t("no devices")
    yield f"API {ports(servers, 'api_port')}"
    if disaggregated:
        yield f"KV {ports(servers, 'kv_port')}"


def _card(
    node: Data, own: tuple[str, int, int], states: Mapping[str, str], t: Words
) -> dict[str, Any]:
    same = node["host"] == node["name"]
    lines = [node["address"] if same else f"{node['host']} {node['address']}"]
    lines += [member(own, t)] if own[2] > 1 else []
    lines.append(f"API {ports(node['servers'], 'api_port')}")
    devices = node["devices"]
    lines.append(f"{t('devices')} {ranges(devices)}" if devices else t("no devices"))
    users = {device: server for server in node["servers"] for device in server["devices"]}
    tips = []
    for device in devices:
        tip, server = f"{node['host']} {t('device')} {device}", users.get(device)
        if server:
            tip += f": {server['name']}, API {server['api_port']}, dp {server['dp_rank']}"
        tips.append(tip)
    state = _state(states.get(node["name"], ""), t)
    return {"title": node["name"], "lines": lines, "devices": tips, **state}


def _state(raw: str, t: Words) -> dict[str, str]:
    """A state in words, and its CSS class."""
    bad = raw in ("failed", "unreachable", "stopped")
    kind = "good" if raw in ("ready", "ok") else "bad" if bad else "soft"
    return {"state": t.known(raw), "kind": kind}


def members(nodes: Sequence[Data]) -> dict[str, tuple[str, int, int]]:
    """Of each node, by name: its instance's first node, which of its hosts it is, of how many."""
    found: dict[str, tuple[str, int, int]] = {}
    for node in nodes:
        key = (node["role"], node["instance"])
        own = [one["name"] for one in nodes if (one["role"], one["instance"]) == key]
        found[node["name"]] = (own[0], own.index(node["name"]) + 1, len(own))
    return found


def member(one: tuple[str, int, int], t: Words) -> str:
    """Which part of which instance a node is, in words."""
    head, number, of = one
    form = "{instance}, host {number} of {of}"
    return head if of == 1 else t(form, instance=head, number=number, of=of)


def ports(servers: Sequence[Data], kind: str) -> str:
    """The ports of some servers, as ranges; "-" where they have none."""
    return ranges(sorted({server[kind] for server in servers})) or "-"


def gantt(timeline: Data, t: Words) -> dict[str, Any]:
    """Rows for each host, with a bar for each step and server. timeline: see timeline.summary."""
    spans = [
        Span(s["step"], s["host"], s["start"], s["end"], s["result"]) for s in timeline["spans"]
    ]
    engines = timeline["engines"]
    total = max([timeline["seconds"], *(s.end for s in spans), *(e["end"] for e in engines), 0.1])
    kinds = colours(timeline)
    hosts = list(dict.fromkeys([*(s.host for s in spans), *(e["host"] for e in engines)]))
    rows = []
    for host in hosts:
        label = host
        for lane in lanes([span for span in spans if span.host == host]):
            bars = [_bar(kinds[s.step], s.start, s.end, total, not went_well(s)) for s in lane]
            for bar, s in zip(bars, lane):
                bar["tip"] = f"{s.step}, {s.host}: {s.seconds:.1f} s, {s.result}"
            rows.append({"label": label, "kind": "steps", "bars": bars})
            label = ""
        for one in (engine for engine in engines if engine["host"] == host):
            bad, seconds = one["result"] != "ready", one["end"] - one["start"]
            bar = _bar("server", max(0.0, one["start"]), one["end"], total, bad)
            name = t("{node} starts", node=one["node"])
            bar["tip"] = f"{name}: {seconds:.1f} s, {one['result']}"
            label = one["node"] if one["node"] != host else ""
            rows.append({"label": label, "kind": "server", "bars": [bar]})
    about = f"{t('Where the time of the last deployment went')}: {_about(timeline, t)}"
    seconds = list(_axis(total))
    return {"about": about, "rows": rows, "axis": seconds, "high": len(hosts) <= _MANY}


def _bar(kind: str, start: float, end: float, total: float, bad: bool) -> dict[str, Any]:
    places = {"left": 100 * start / total, "width": 100 * (end - start) / total}
    return {"kind": kind, "number": _number(kind), "bad": bad, **places}


def _axis(total: float) -> Iterator[dict[str, Any]]:
    """Seconds along the top, as many as have room. main: on a phone too."""
    hours = 3600 * -(-total // (3600 * _WIDE))
    step = next((s for s in _STEPS if total / s <= _WIDE), hours)
    each = -(-total // (step * _NARROW))
    for number in range(int(0.9 * total / step) + 1):  # the last has room for its word
        left = 100 * number * step / total
        yield {"left": left, "label": f"{number * step:g} s", "main": number % each == 0}


def _about(timeline: Data, t: Words) -> str:
    """The drawing in words, for who cannot see it."""
    said = []
    for step in timeline["steps"]:
        bad = "" if step["result"] == GOOD else f", {step['result']}"
        said.append(f"{step['step']}: {step['seconds']:.1f} s, {step['slowest']}{bad}")
    for engine in timeline["engines"]:
        if engine["result"] != "ready":
            said.append(f"{t('{node} starts', node=engine['node'])}: {engine['result']}")
    return "; ".join(said)


def colours(timeline: Data) -> dict[str, str]:
    """The CSS class of every step: step1 and so on, step0 for the many short ones."""
    names = [step["step"] for step in timeline["steps"]]
    return {name: f"step{n + 1 if n < COLOURS else 0}" for n, name in enumerate(names)}


def _number(kind: str) -> str:
    """Of a step with a colour of its own, as the legend has it: for who sees no colours."""
    return kind[4:] if kind.startswith("step") and kind != "step0" else ""


def legend(timeline: Data, t: Words) -> Sequence[tuple[str, str]]:
    """CSS class and words of every colour and sign that the drawing uses."""
    kinds = colours(timeline)
    found = [(kind, f"{_number(kind)}: {name}") for name, kind in kinds.items() if _number(kind)]
    if "step0" in kinds.values():
        found.append(("step0", t("other steps")))
    if timeline["engines"]:
        found.append(("server", t("start of a server")))
    engines = all(engine["result"] == "ready" for engine in timeline["engines"])
    if not engines or any(step["result"] != GOOD for step in timeline["steps"]):
        found.append(("wrong", f"{CROSS} {t('failed')}"))
    return found
