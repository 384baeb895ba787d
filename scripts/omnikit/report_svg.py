"""Small pieces of SVG for reports: shapes and text, every value escaped, text cut to its place.

Colours are CSS classes of templates/environment_report.css, so that a drawing follows the page.
"""

from __future__ import annotations

import unicodedata
from html import escape
from typing import Sequence

# Of a sans-serif font, in parts of the font's size; wide enough that nothing runs out of its box.
_NARROW, _WIDE = 0.58, 1.02


def extent(text: str, size: float) -> float:
    """About how wide a text is, at a font size; both in the drawing's units."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return size * (wide * _WIDE + (len(text) - wide) * _NARROW)


def cut(text: str, size: float, room: float) -> str:
    """A text that fits into the room, with … where it was cut."""
    if extent(text, size) <= room:
        return text
    kept = text
    while kept and extent(kept + "…", size) > room:
        kept = kept[:-1]
    return kept + "…"


def words(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 12,
    room: float = 0,
    kind: str = "",
    end: bool = False,
) -> str:
    """A line of text. room: it is cut to that width, and whole as a tooltip; end: it ends at x."""
    shown = cut(text, size, room) if room else text
    tip = f"<title>{escape(text)}</title>" if shown != text else ""
    anchor = ' text-anchor="end"' if end else ""
    style = f' class="{kind}"' if kind else ""
    at = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"'
    return f"<text {at}{anchor}{style}>{tip}{escape(shown)}</text>"


def box(
    x: float, y: float, width: float, height: float, kind: str, *, round_: float = 0, tip: str = ""
) -> str:
    """A rectangle. tip: what a pointer over it shows."""
    title = f"<title>{escape(tip)}</title>" if tip else ""
    at = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"'
    corner = f' rx="{round_:g}"' if round_ else ""
    return f'<rect {at}{corner} class="{kind}">{title}</rect>'


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{way}" class="{kind}"/>'


def arrow(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points with a head at its end; its last stretch is level or upright."""
    (x0, y0), (x, y) = points[-2:]
    size = 6.0
    if x == x0:
        back = -size if y > y0 else size
        head = [(x - size * 0.7, y + back), (x + size * 0.7, y + back)]
    else:
        back = -size if x > x0 else size
        head = [(x + back, y - size * 0.7), (x + back, y + size * 0.7)]
    corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in [(x, y), *head])
    return line(points, f"line {kind}") + f'<polygon points="{corners}" class="head {kind}"/>'


def drawing(name: str, width: float, height: float, title: str, about: str, body: str) -> str:
    """A whole drawing. name: unique in the page; title, about: what it says in words."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
        f' aria-labelledby="{name}-title {name}-about" class="drawing {name}">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-about">{escape(about)}</desc>{body}</svg>'
    )
