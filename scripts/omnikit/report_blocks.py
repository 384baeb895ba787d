"""What a report's sections are made of: plain data that the template lays out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence

from omnikit.report_words import Words

Block = Mapping[str, Any]
_COLUMNS = 5  # that a phone has room for
NONE = "–"  # a cell without a value
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:]+")


class Shown(str):
    """A state in the reader's language, with the CSS class of its raw word."""

    kind: str

    def __new__(cls, shown: str, kind: str) -> Shown:
        """shown: as the reader sees it."""
        made = super().__new__(cls, shown)
        made.kind = kind
        return made


def state(raw: str, t: Words) -> Shown:
    """A state's cell."""
    return Shown(t.known(raw), mood(raw))


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
        wide = len(head) > _COLUMNS
        style = ("long wide" if wide else "long") if long else "wide" if wide else "plain"
        about = {"caption": caption, "head": head, "style": style, "named": named}
        self.blocks.append({"kind": "table", **about, "rows": shown, "right": right})

    def folded(self, summary: str, blocks: Sequence[Block]) -> None:
        """Blocks that are shown when their summary is opened."""
        self.blocks.append({"kind": "folded", "summary": summary, "blocks": blocks})

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
    if isinstance(value, Shown):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return NONE
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return str(value)


def printable(value: Any) -> Any:
    """Data in which no text has characters that a page cannot hold, or that turn its words round.

    Control characters, halves of surrogate pairs and marks of direction become U+FFFD.
    """
    if isinstance(value, dict):
        return {printable(key): printable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(child) for child in value]
    return _UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) else value


def mood(text: str) -> str:
    """The CSS class of a word that tells a state, or of a time, "" for any other text."""
    if isinstance(text, Shown):
        return text.kind
    if text in ("ready", "ok", "serves"):
        return "good"
    if text in ("failed", "unreachable", "stopped", "does not serve"):
        return "bad"
    if text in ("warning", "unknown", "starting", "cut off"):
        return "warn"
    if text == NONE:
        return "none"
    return "time" if _TIME.match(text) else ""
