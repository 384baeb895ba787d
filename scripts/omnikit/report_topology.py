"""An environment's topology as SVG: the proxy, the hosts by role, and what flows between them.

It is stacked from top to bottom, so that the same drawing fits a phone and a desktop: only the
number of hosts beside each other differs.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from omnikit.plan_report import ranges
from omnikit.report_svg import arrow, box, drawing, extent, words
from omnikit.report_words import Words

_EDGE = 8  # around everything
_GUTTER = 30  # at the left, for what goes past a frame
_GAP = 8
_CARD = 124  # least width of a host's card
_MOST = 230
_SQUARE, _PER_ROW = 11, 8
_BETWEEN = 46  # from frame to frame
_LINE = 16
ROLES = ("prefill", "decode", "colocated")


class _Topology:
    def __init__(self, plan: Mapping[str, Any], states: Mapping[str, str], width: int, t: Words):
        self.plan, self.states, self.width, self.t = plan, states, width, t
        self.members = members(plan["nodes"])
        self.left = _EDGE + (_GUTTER if plan["proxy"] and plan["disaggregated"] else 0)
        self.parts: list[str] = []
        self.about: list[str] = []

    def draw(self, name: str) -> str:
        y: float = _EDGE
        proxy = self.plan["proxy"]
        if proxy:
            y = self._proxy(proxy, y)
        frames: list[tuple[str, float, float]] = []
        for role in ROLES:
            nodes = [node for node in self.plan["nodes"] if node["role"] == role]
            if nodes:
                top = y + (_BETWEEN if frames or proxy else 0)
                y = self._frame(role, nodes, top)
                frames.append((role, top, y))
        self._links(frames, bool(proxy))
        title = self.t("Hosts, instances and what flows between them")
        about = "; ".join(self.about)
        return drawing(name, self.width, y + _EDGE, title, about, "".join(self.parts))

    def _proxy(self, proxy: Mapping[str, Any], y: float) -> float:
        wide = min(320.0, self.width - self.left - _EDGE)
        state = self.states.get(proxy["name"], "")
        place = f"{proxy['host']}, {proxy['listen']}"
        self.parts.append(box(self.left, y, wide, 44, f"card {_kind(state)}", round_=6))
        self._title(self.left + 10, y + 18, f"{proxy['name']} {self.t('proxy')}", state, wide - 20)
        self.parts.append(words(self.left + 10, y + 35, place, room=wide - 20, kind="soft"))
        self.about.append(
            f"{self.t('proxy')} {proxy['name']}: {place} {self.t.known(state)}".strip()
        )
        return y + 44

    def _title(self, x: float, y: float, name: str, state: str, room: float) -> None:
        said = f"● {self.t.known(state)}" if state else ""
        own = extent(said, 11) + 6 if state else 0
        self.parts.append(words(x, y, name, size=13, room=room - own, kind="strong"))
        if state:
            self.parts.append(words(x + room, y, said, size=11, kind=_kind(state), end=True))

    def _frame(self, role: str, nodes: Sequence[Mapping[str, Any]], y: float) -> float:
        wide = self.width - self.left - _EDGE
        inner = wide - 2 * 10
        columns = max(1, int((inner + _GAP) // (_CARD + _GAP)))
        card = min(_MOST, (inner + _GAP) / min(columns, max(len(nodes), 1)) - _GAP)
        rows = max(-(-len(node["devices"]) // _PER_ROW) for node in nodes)
        tall = 62 + (rows * (_SQUARE + 2) + 18 if rows else 16)
        if any(self.members[node["name"]][2] > 1 for node in nodes):
            tall += _LINE
        deep = -(-len(nodes) // columns)
        first, facts = self._said(role, nodes)
        lines = wrapped(facts, 12, inner)
        head = 26 + len(lines) * _LINE
        height = head + deep * (tall + _GAP) + 4
        self.parts.append(box(self.left, y, wide, height, f"frame {role}", round_=8))
        self.parts.append(words(self.left + 10, y + 17, first, size=13, room=inner, kind="strong"))
        for number, text in enumerate(lines):
            at = y + 33 + number * _LINE
            self.parts.append(words(self.left + 10, at, text, room=inner, kind="soft"))
        self.about.append(f"{first}; {', '.join(facts)}")
        for number, node in enumerate(nodes):
            x = self.left + 10 + (number % columns) * (card + _GAP)
            self._card(node, x, y + head + (number // columns) * (tall + _GAP), card, tall)
        return y + height

    def _said(self, role: str, nodes: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
        """A frame's heading and what stands below it."""
        t = self.t
        instances = len({node["instance"] for node in nodes})
        hosts = len({node["host"] for node in nodes})
        if instances == 1:
            many = t("1 instance on {hosts} hosts", hosts=hosts)
            many = t("1 instance on 1 host") if hosts == 1 else many
        elif hosts == 1:
            many = t("{instances} instances on 1 host", instances=instances)
        else:
            many = t("{instances} instances on {hosts} hosts", instances=instances, hosts=hosts)
        devices = sum(len(node["devices"]) for node in nodes)
        servers = [server for node in nodes for server in node["servers"]]
        said = [t("{devices} devices", devices=devices)] if devices else [t("no devices")]
        said.append(f"API {ports(servers, 'api_port')}")
        if self.plan["disaggregated"]:
            said.append(f"KV {ports(servers, 'kv_port')}")
        return f"{t(role)}: {many}", said

    def _card(self, node: Mapping[str, Any], x: float, y: float, wide: float, tall: float) -> None:
        state = self.states.get(node["name"], "")
        self.parts.append(box(x, y, wide, tall, f"card {_kind(state)}", round_=5))
        room = wide - 18
        self._title(x + 9, y + 17, node["name"], state, room)
        same = node["host"] == node["name"]
        place = node["address"] if same else f"{node['host']} {node['address']}"
        self.parts.append(words(x + 9, y + 34, place, room=room, kind="soft"))
        if self.members[node["name"]][2] > 1:
            own = member(self.members[node["name"]], self.t)
            self.parts.append(words(x + 9, y + 50, own, size=11, room=room, kind="soft"))
            self.about.append(f"{node['name']}: {self.t('instance')} {own}")
            y += _LINE
        api = f"API {ports(node['servers'], 'api_port')}"
        self.parts.append(words(x + 9, y + 50, api, room=room, kind="soft"))
        if not node["devices"]:
            none = self.t("no devices")
            self.parts.append(words(x + 9, y + 66, none, room=room, kind="soft"))
            return
        shown = f"{self.t('devices')} {ranges(node['devices'])}"
        self.parts.append(words(x + 9, y + 66, shown, room=room, kind="soft"))
        users = {d: server for server in node["servers"] for d in server["devices"]}
        for number, device in enumerate(node["devices"]):
            row, column = divmod(number, _PER_ROW)
            server = users.get(device)
            tip = f"{node['host']} {self.t('device')} {device}"
            if server:
                tip += f": {server['name']}, API {server['api_port']}, dp {server['dp_rank']}"
            at = (x + 9 + column * (_SQUARE + 3), y + 72 + row * (_SQUARE + 2))
            self.parts.append(box(*at, _SQUARE, _SQUARE, f"square {node['role']}", tip=tip))

    def _links(self, frames: Sequence[tuple[str, float, float]], proxy: bool) -> None:
        t, left = self.t, self.left
        if proxy and frames:
            first, top = frames[0][0], frames[0][1]
            x = left + 24
            self.parts.append(arrow([(x, _EDGE + 44), (x, top)], "asks"))
            self.parts.append(words(x + 10, top - 18, t("requests"), kind="soft"))
            self.about.append(f"{t('requests')}: {t('proxy')} → {t(first)}")
        if len(frames) < 2:
            return
        (first, _, low), (second, top, bottom) = frames[:2]
        x = left + 110
        self.parts.append(arrow([(x, low), (x, top)], "kv"))
        self.parts.append(words(x + 10, top - 18, t("KV transfer"), kind="soft"))
        self.about.append(f"{t('KV transfer')}: {t(first)} → {t(second)}")
        if proxy:
            middle, x = top + (bottom - top) / 2, _EDGE + 8
            way = [(left, _EDGE + 22), (x, _EDGE + 22), (x, middle), (left, middle)]
            self.parts.append(arrow(way, "asks"))
            self.about.append(f"{t('requests')}: {t('proxy')} → {t(second)}")


def draw(
    name: str, plan: Mapping[str, Any], states: Mapping[str, str], width: int, t: Words
) -> str:
    """The drawing. plan: see report_data.plan_data; states: of instances and proxy, by name."""
    return _Topology(plan, states, width, t).draw(name)


def members(nodes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int, int]]:
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


def wrapped(facts: Sequence[str], size: float, room: float) -> list[str]:
    """Facts in as few lines as have room for them."""
    lines: list[str] = []
    for fact in facts:
        longer = f"{lines[-1]} · {fact}" if lines else fact
        if lines and extent(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(fact)
    return lines


def ports(servers: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The ports of some servers, as ranges; "-" where they have none."""
    return ranges(sorted({server[kind] for server in servers})) or "-"


def _kind(state: str) -> str:
    """The CSS class of a state."""
    if state in ("ready", "ok"):
        return "good"
    return "bad" if state in ("failed", "unreachable", "stopped") else "mild"
