"""The errors of a verification as a picture: SVG, without a library."""

from __future__ import annotations

from typing import Any, Sequence
from xml.sax.saxutils import escape

_LEFT, _RIGHT, _ROW, _TOP = 260, 80, 30, 60
_WIDTH = 860
_MAX, _MEAN = "#b5472f", "#2f6db5"


def errors(kinds: Sequence[dict[str, Any]], bound: float) -> str:
    """Bars of the largest and the mean error of each kind, in steps, and the bound as a line."""
    height = _TOP + _ROW * len(kinds) + 40
    reach = max([bound, *(kind["max_error_steps"] for kind in kinds)]) * 1.1 or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / reach
    title = "Rounding error in steps of the row's scale"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' font-family="sans-serif" font-size="13" role="img" aria-label="{title}">',
        f"<title>{title}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="16" fill="#1b1b1b">{title}</text>',
        _legend(_LEFT, "largest", _MAX),
        _legend(_LEFT + 110, "mean", _MEAN),
    ]
    for number, kind in enumerate(kinds):
        y = _TOP + number * _ROW
        largest, mean = kind["max_error_steps"], kind["mean_error_steps"]
        name = escape(kind["kind"])
        lines += [
            f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end" fill="#1b1b1b">{name}</text>',
            _bar(y + 2, 9, largest * scale, _MAX),
            _bar(y + 12, 9, mean * scale, _MEAN),
            f'<text x="{_LEFT + largest * scale + 6:.1f}" y="{y + 12}" fill="#1b1b1b"'
            f' font-size="11">{largest:.4f}</text>',
        ]
    x, bottom = _LEFT + bound * scale, _TOP + _ROW * len(kinds)
    lines += [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{bottom}" stroke="#1b1b1b"'
        ' stroke-dasharray="4 3"/>',
        f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" fill="#1b1b1b">'
        f"bound {bound:.4f}</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bar(y: int, height: int, width: float, colour: str) -> str:
    return f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _legend(x: int, text: str, colour: str) -> str:
    return (
        f'<rect x="{x}" y="34" width="12" height="12" fill="{colour}"/>'
        f'<text x="{x + 18}" y="45" fill="#1b1b1b">{text}</text>'
    )
