"""A deployment's timeline as SVG: a row for each host, a bar for each step and server."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from omnikit.report_svg import box, drawing, extent, line, words
from omnikit.report_words import Words
from omnikit.timeline import Span
from omnikit.timeline_trace import lanes

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
    bar = 9 if len(hosts) > 16 else 14
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
    about = "; ".join(
        f"{step['step']}: {step['seconds']:.1f} s, {step['slowest']}" for step in timeline["steps"]
    )
    title = t("Where the time of the last deployment went")
    return drawing(name, width, y + 4, title, about, "".join([*behind, *parts]))


def _bar(
    span: Span, x: float, y: float, scale: float, height: float, kinds: Mapping[str, str]
) -> str:
    bad = "" if span.result in ("ok", "changed") else " wrong"
    tip = f"{span.step}, {span.host}: {span.seconds:.1f} s, {span.result}"
    wide = max(1.5, span.seconds * scale)
    return box(x, y, wide, height, f"bar {kinds[span.step]}{bad}", tip=tip)


def _engine(
    parts: list[str], engine: Mapping[str, Any], left: float, y: float, scale: float, t: Words
) -> float:
    seconds = engine["end"] - engine["start"]
    tip = f"{t('{node} starts', node=engine['node'])}: {seconds:.1f} s, {engine['result']}"
    kind = "bar server" if engine["result"] == "ready" else "bar server wrong"
    x = left + max(0.0, engine["start"]) * scale
    if engine["node"] != engine["host"]:
        name = engine["node"]
        parts.append(words(left - 6, y + 7, name, size=11, room=left - 12, kind="soft", end=True))
    parts.append(box(x, y, max(1.5, seconds * scale), 7, kind, tip=tip))
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
    """CSS class and words of every colour that the drawing uses."""
    kinds = colours(timeline)
    found = [(kind, name) for name, kind in kinds.items() if kind != "step0"]
    if "step0" in kinds.values():
        found.append(("step0", t("other steps")))
    if timeline["engines"]:
        found.append(("server", t("start of a server")))
    return found
