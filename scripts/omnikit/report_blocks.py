"""What a report's sections are made of: plain data that the template lays out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence

Block = Mapping[str, Any]
_COLUMNS = 5  # that a phone has room for
NONE = "–"  # a cell without a value
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:]+")


@dataclass
class Section:
    """A heading and what stands below it. key: its address in the page."""

    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def text(self, text: str, kind: str = "") -> None:
        """A paragraph."""
        self.blocks.append({"kind": "text", "text": text, "style": kind})

    def heading(self, text: str) -> None:
        """A heading below the section's own."""
        self.blocks.append({"kind": "heading", "text": text})

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values."""
        self.blocks.append({"kind": "facts", "facts": facts})

    def table(
        self,
        caption: str,
        head: Sequence[str],
        rows: Sequence[Sequence[Any]],
        numbers: str = "",
        *,
        long: bool = False,
        named: bool = False,
    ) -> None:
        """A table; the first cell of a row is its heading. numbers: the columns of numbers, each
        as a digit. long: its cells are. named: the caption is shown, not only read aloud.

        On a phone the cells of wide and long tables stand below each other, each with its name.
        """
        shown = [[cell(value) for value in row] for row in rows]
        right = {int(digit, 36) for digit in numbers}
        style = "long" if long else "wide" if len(head) > _COLUMNS else "plain"
        about = {"caption": caption, "head": head, "style": style, "named": named}
        self.blocks.append({"kind": "table", **about, "rows": shown, "right": right})

    def drawing(
        self, wide: str, narrow: str, legend: Optional[Sequence[tuple[str, str]]] = None
    ) -> None:
        """SVG for large and for small screens, with the meaning of its colours."""
        self.blocks.append(
            {"kind": "drawing", "wide": wide, "narrow": narrow, "legend": legend or ()}
        )

    def picture(self, words: str, data: str) -> None:
        """A picture from a data: address."""
        self.blocks.append({"kind": "picture", "words": words, "data": data})


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value in (None, "", "-"):
        return NONE
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return str(value)


def mood(text: str) -> str:
    """The CSS class of a word that tells a state, or of a time, "" for any other text."""
    if text in ("ready", "ok", "serves", "正常服务"):
        return "good"
    if text in ("failed", "unreachable", "stopped", "does not serve", "未提供服务"):
        return "bad"
    if text in ("warning", "unknown", "starting", "cut off"):
        return "warn"
    if text == NONE:
        return "none"
    return "time" if _TIME.match(text) else ""
