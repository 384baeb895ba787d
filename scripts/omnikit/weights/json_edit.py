"""Changes single members of a JSON file's top level and leaves every other byte as it is. Pure.

Reading and writing a file anew would change its line breaks, its numbers (1e-06) and its escapes;
a difference should show what was changed and nothing else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Member:
    """One member: its value, and where key and value stand (start of both, end of the value)."""

    value: Any
    key_at: int
    value_at: int
    end: int


def members(text: str) -> dict[str, Member]:
    """The members of the object that a text is, in their order.

    Raises ValueError where the text is no JSON object or a key stands twice.
    """
    if not isinstance(json.loads(text), dict):
        raise ValueError("it is no JSON object ({...})")
    decoder = json.JSONDecoder()
    found: dict[str, Member] = {}
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        value_at = _skip(text, _skip(text, end) + 1)
        value, end = decoder.raw_decode(text, value_at)
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = Member(value, at, value_at, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def without(text: str, key: str) -> str:
    """The text without this member. Raises KeyError when there is none."""
    all_of_them = members(text)
    names, found = list(all_of_them), list(all_of_them.values())
    place = names.index(key) if key in all_of_them else -1
    if place < 0:
        raise KeyError(key)
    if place + 1 < len(found):
        start, end = found[place].key_at, found[place + 1].key_at
    else:  # the last: its comma is the one before it
        start = found[place - 1].end if place else found[place].key_at
        end = found[place].end
    edited = text[:start] + text[end:]
    expected = {name: member.value for name, member in all_of_them.items() if name != key}
    return _checked(edited, expected)


def with_value(text: str, key: str, value: Any) -> str:
    """The text with another value for this member. Raises KeyError when there is none."""
    all_of_them = members(text)
    member = all_of_them[key]
    edited = text[: member.value_at] + json.dumps(value) + text[member.end :]
    expected = {name: one.value for name, one in all_of_them.items()}
    return _checked(edited, {**expected, key: value})


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # the pattern matches nothing too
    return found.end()


def _checked(edited: str, expected: dict[str, Any]) -> str:
    """What was cut out of a text must read as what was meant."""
    if json.loads(edited) != expected:
        raise AssertionError("the edited JSON is not what was meant")
    return edited
