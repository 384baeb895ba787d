"""A deployment's timeline as SVG: a row for each host, a bar for each step and server.

Bars have numbers and failures a cross: colours alone do not tell them apart on grey paper, or to
everyone.
"""

from __future__ import annotations

from html import escape
from typing import Any, Mapping, Sequence

from omnikit.report_svg import box, drawing, extent, line, words
from omnikit.report_words import Words
from omnikit.timeline import Span
from omnikit.timeline_trace import lanes
from omnikit.timeline_where import GOOD, went_well

CROSS = "✕"
COLOURS = 6  # steps with a colour of their own: those that took longest
_EDGE, _AXIS = 8, 22
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


def colours(timeline: Mapping[str, Any]) -> dict[str, str]:
    """The CSS class of every step: step1 and so on, step0 for the many short ones."""
    names = [step["step"] for step in timeline["steps"]]
    return {name: f"step{n + 1 if n < COLOURS else 0}" for n, name in enumerate(names)}


def draw(name: str, timeline: Mapping[str, Any], width: int, t: Words) -> str:
    """The drawing. timeline: see timeline_report.as_data."""
    spans = [
        Span(s["step"], s["host"], s["start"], s["end"], s["result"]) for s in timeline["spans"]
    ]
    engines = list(timeline["engines"])
    hosts = list(dict.fromkeys([*(s.host for s in spans), *(e["host"] for e in engines)]))
    longest = max(
        [extent(host, 11) for host in hosts] + [extent(e["node"], 11) + 6 for e in engines]
    )
    left = min(longest + 10, width * 0.3)
    total = max([timeline["seconds"], *(s.end for s in spans), *(e["end"] for e in engines), 0.1])
    scale = (width - left - _EDGE) / total
    bar = 11 if len(hosts) > 16 else 14  # numbers in them can be read, also on paper
    kinds = colours(timeline)
    parts: list[str] = []
    y: float = _AXIS
    for host in hosts:
        for number, lane in enumerate(lanes([span for span in spans if span.host == host])):
            if number == 0:
                parts.append(words(left - 6, y + bar - 2, host, size=11, room=left - 8, end=True))
            parts += [_bar(span, left + span.start * scale, y, scale, bar, kinds) for span in lane]
            y += bar + 3
        for engine in (one for one in engines if one["host"] == host):
            y = _engine(parts, engine, left, y, scale, t)
        y += 2
    behind = _axis(total, left, scale, y)
    title = t("Where the time of the last deployment went")
    return drawing(name, width, y + 4, title, _about(timeline, t), "".join([*behind, *parts]))


def _about(timeline: Mapping[str, Any], t: Words) -> str:
    """The drawing in words, for who cannot see it."""
    said = []
    for step in timeline["steps"]:
        bad = "" if step["result"] == GOOD else f", {step['result']}"
        said.append(f"{step['step']}: {step['seconds']:.1f} s, {step['slowest']}{bad}")
    for engine in timeline["engines"]:
        if engine["result"] != "ready":
            said.append(f"{t('{node} starts', node=engine['node'])}: {engine['result']}")
    return "; ".join(said)


def _bar(
    span: Span, x: float, y: float, scale: float, height: float, kinds: Mapping[str, str]
) -> str:
    bad = not went_well(span)
    kind = kinds[span.step]
    tip = f"{span.step}, {span.host}: {span.seconds:.1f} s, {span.result}"
    wide = max(1.5, span.seconds * scale)
    made = box(x, y, wide, height, f"bar {kind}{' wrong' if bad else ''}", tip=tip)
    size = height - 2
    number = _number(kind)
    if number and wide >= extent(number, size) + (4 * size if bad else 4):
        at = x + wide / 2 - (1.5 * size if bad else 0)  # beside the cross
        made += _mark(at, y + height - 2, number, size, "fill:var(--ground)")
    return made + (_cross(x + wide / 2, y + height - 2, size, tip) if bad else "")


def _number(kind: str) -> str:
    """Of a step with a colour of its own, as the legend has it."""
    return "" if kind == "step0" else kind[len("step") :]


def _cross(x: float, y: float, size: float, tip: str) -> str:
    """What marks a failure. It has an edge: it may be wider than its bar, and stand on others."""
    style = "fill:var(--bad);stroke:var(--ground);stroke-width:3px;paint-order:stroke"
    return _mark(x, y, CROSS, size + 2, f"{style};font-weight:700", tip)


def _mark(x: float, y: float, text: str, size: float, style: str, tip: str = "") -> str:
    """A sign in the middle of a bar; a style of its own wins over the page's colour of texts."""
    title = f"<title>{escape(tip)}</title>" if tip else ""
    at = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="middle"'
    return f'<text {at} style="{style}">{title}{text}</text>'


def _engine(
    parts: list[str], engine: Mapping[str, Any], left: float, y: float, scale: float, t: Words
) -> float:
    seconds = engine["end"] - engine["start"]
    tip = f"{t('{node} starts', node=engine['node'])}: {seconds:.1f} s, {engine['result']}"
    bad = engine["result"] != "ready"
    kind = "bar server wrong" if bad else "bar server"
    x = left + max(0.0, engine["start"]) * scale
    if engine["node"] != engine["host"]:
        name = engine["node"]
        parts.append(words(left - 6, y + 7, name, size=11, room=left - 12, kind="soft", end=True))
    wide = max(1.5, seconds * scale)
    parts.append(box(x, y, wide, 7, kind, tip=tip))
    if bad:
        parts.append(_cross(x + wide / 2, y + 7, 8, tip))
    return y + 11


def _axis(total: float, left: float, scale: float, bottom: float) -> list[str]:
    """Seconds along the top, as many as have room."""
    step = next((s for s in _STEPS if s * scale >= 52), total)
    made = []
    for number in range(int(total / step) + 1):
        x = left + number * step * scale
        made.append(line([(x, _AXIS - 5), (x, bottom)], "grid"))
        label = f"{number * step:g} s"
        end = x + extent(label, 11) > left + total * scale + _EDGE
        made.append(words(x, _AXIS - 9, label, size=11, kind="soft", end=end))
    return made


def legend(timeline: Mapping[str, Any], t: Words) -> Sequence[tuple[str, str]]:
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
