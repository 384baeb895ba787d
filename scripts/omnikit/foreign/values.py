"""Single values of other tools' files: checked, converted, and their mistakes explained."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Collection, Iterable, Optional

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.yaml.located import Node

_DIGITS = re.compile(r"[0-9]{1,9}")
_DEVICES = re.compile(r"(0|[1-9][0-9]{0,3})(,(0|[1-9][0-9]{0,3}))*")


def wrong(node: Node, label: str, wanted: str, todo: str) -> InputError:
    """Found beside expected, for the value of a key."""
    return InputError(
        f"{label}: found {shown(node)}, expected {wanted}.", where=str(node.origin), todo=todo
    )


def shown(node: Node) -> str:
    """A value in a message."""
    if node.value is None:
        return "nothing"
    if isinstance(node.value, dict):
        return "a map"
    if isinstance(node.value, list):
        return "a list"
    if isinstance(node.value, Hidden):
        return str(node.value)
    text = repr(node.value)
    return text if len(text) <= 80 else text[:77] + "..."


def entries(node: Node, label: str) -> dict[str, Node]:
    """The entries of a map that must not be empty."""
    if not isinstance(node.value, dict) or not node.value:
        wanted = "a map with at least one entry"
        raise wrong(node, label, wanted, "write its entries indented below, key: value")
    found: dict[str, Node] = node.value
    return found


def unknown(node: Node, key: str, label: str, known: Iterable[str]) -> InputError:
    """The error for a key that the format does not have, with the nearest that it has."""
    near = get_close_matches(key, list(known), n=1, cutoff=0.5)
    return InputError(
        f"unknown key {key!r} in {label}" + (f", is it {near[0]!r}?" if near else "."),
        where=str(node.key_origins.get(key, node.origin)),
        todo="known here: " + ", ".join(known),
    )


def check_keys(
    node: Node, label: str, known: Collection[str], notes: Optional[list[str]] = None
) -> dict[str, Node]:
    """The entries of a map that has no other keys than these; with notes, see not_known."""
    found = entries(node, label)
    for key in found:
        if key not in known:
            not_known(node, key, label, known, notes)
    return found


def not_known(
    node: Node, key: str, label: str, known: Iterable[str], notes: Optional[list[str]]
) -> None:
    """A key that the format does not have: what looks like a typing mistake is an error, another
    one is added to notes. Without notes, each is an error."""
    if notes is None or get_close_matches(key, list(known), n=1, cutoff=0.75):
        raise unknown(node, key, label, known)
    origin = node.key_origins.get(key, node.origin)
    notes.append(f"{origin}: {key} in {label}: not used: omni_cli's file has no such key")


def required(node: Node, key: str, label: str, example: str) -> Node:
    """The value of a key that must be there and not empty."""
    found = node.child(key)
    if found is None:
        near = get_close_matches(key, list(node.value), n=1, cutoff=0.6)
        raise InputError(
            f"{label}: {key} is missing" + (f", is it {near[0]!r}?" if near else "."),
            where=str(node.key_origins.get(near[0], node.origin) if near else node.origin),
            todo=f"add: {key}: {example}",
        )
    if found.value in (None, "", [], {}):
        raise wrong(found, f"{label}: {key}", f"something like {example}", "give the value")
    return found


def text(node: Node, label: str) -> Node:
    """One word or line of text; a number becomes the text that it was."""
    if isinstance(node.value, (bool, dict, list)) or node.value in (None, ""):
        raise wrong(node, label, "text", "quote it if it looks like something else")
    return node if isinstance(node.value, str) else Node(str(node.value), node.origin)


def number(node: Node, label: str, low: int, high: int) -> Node:
    """A whole number in a range, also when it is written as text."""
    value = node.value
    if isinstance(value, str) and not isinstance(value, Hidden):
        value = int(value) if _DIGITS.fullmatch(value.strip()) else None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(node, label, f"a whole number from {low} to {high}", "write the number alone")
    return Node(value, node.origin)


def port(node: Node, label: str) -> Node:
    """A port number."""
    return number(node, label, 1, 65535)


def devices(node: Node, label: str) -> Node:
    """Device ids "0,1,2,3" as our range "0-3"; they must count up by one, without spaces."""
    value = str(node.value) if isinstance(node.value, int) else node.value
    wanted = 'device ids that count up by one, with commas and without spaces, like "0,1,2,3"'
    if isinstance(value, bool) or not isinstance(value, (str, list)):
        raise wrong(node, label, wanted, "name every id")
    words = [str(v.value) for v in value] if isinstance(value, list) else re.split(r"[,\s]+", value)
    ids = sorted({int(word) for word in words if word.isdigit() and len(word) < 5})
    meant = ",".join(map(str, ids))
    good = isinstance(value, str) and _DEVICES.fullmatch(value) and meant == value
    if not good or ids[-1] - ids[0] + 1 != len(ids):
        counts_up = bool(ids) and ids[-1] - ids[0] + 1 == len(ids)
        advice = f'write "{meant}" if that is meant' if counts_up else "name every id"
        raise wrong(node, label, wanted, advice)
    short = str(ids[0]) if len(ids) == 1 else f"{ids[0]}-{ids[-1]}"
    return Node(short, node.origin)
