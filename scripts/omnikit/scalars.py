"""What a plain (unquoted) word of a configuration means: text, number, true, false or nothing."""

from __future__ import annotations

import re
from typing import Any

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?")
# More digits are an identifier, not a quantity; Python refuses to read thousands of them.
_DIGITS = 18
# Spellings that both YAML 1.1 and 1.2 agree on.
_WORDS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
# Plain words of which YAML 1.1 or 1.2 makes something that the writer rarely meant.
_SURPRISES = (
    (re.compile(r"(?i:yes|no|on|off|y|n|true|false)"), "write true or false, or quote it: '{}'"),
    (re.compile(r"[-+]?0[0-9_]+"), "drop the leading zero, or quote it: '{}'"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write the decimal number, or quote it: '{}'"),
    (re.compile(r"[-+]?[0-9][0-9_.]*_[0-9_.]*"), "drop the underscores, or quote it: '{}'"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "quote it: '{}'"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"), "quote it: '{}'"),
    (re.compile(r"(?i:[-+]?\.inf|\.nan)"), "write a number, or quote it: '{}'"),
)


class Surprise(ValueError):
    """A word that different readers read differently. advice: what to write instead."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


def read_plain(text: str) -> Any:
    """The value of a plain word. Raises Surprise."""
    if text in _NULLS:
        return None
    if text in _WORDS:
        return _WORDS[text]
    for pattern, advice in _SURPRISES:
        if pattern.fullmatch(text):
            raise Surprise("means different things to different YAML readers", advice.format(text))
    if not _FLOAT.fullmatch(text):
        return text
    if len(text) > _DIGITS:
        raise Surprise("has more digits than a number can keep", "quote it if it is text")
    if _INT.fullmatch(text):
        return int(text)
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Surprise("is larger than any number", "quote it if it is text")
    return number


def reads_as_text(text: str) -> bool:
    """Whether a plain word would be read as just this text."""
    try:
        return isinstance(read_plain(text), str)
    except Surprise:
        return False
