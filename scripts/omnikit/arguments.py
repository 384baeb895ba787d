"""Settings as the words of a vLLM command line, and the planned facts put into them."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import Any, Collection, Iterator, Mapping

from omnikit.errors import InputError
from omnikit.located import Node

_OPENING = "${plan."
_FACT = re.compile(r"\$\{plan\.([a-z_]+)\}")
_NUMBER = re.compile(r"-[0-9.]+")


def fill(value: Any, facts: Mapping[str, Any]) -> Any:
    """A value with every ${plan.NAME} replaced by that fact (see check_references).

    A value that is nothing but one reference takes the fact's own type.
    """
    if isinstance(value, str):
        if _OPENING not in value:
            return value
        whole = _FACT.fullmatch(value)
        if whole:
            return facts[whole[1]]
        return _FACT.sub(lambda match: str(facts[match[1]]), value)
    if isinstance(value, dict):
        return {key: fill(child, facts) for key, child in value.items()}
    if isinstance(value, list):
        return [fill(child, facts) for child in value]
    return value


def references(value: Any) -> set[str]:
    """The facts that a value refers to."""
    if isinstance(value, str):
        return set(_FACT.findall(value)) if _OPENING in value else set()
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list)):
        return set()
    return set().union(*(references(child) for child in children))


def check_references(tree: Node, known: Collection[str]) -> None:
    """Refuse what looks like a reference and is none. Raises InputError with the place."""
    for text, node in _texts(tree):
        if _OPENING not in text:
            continue
        names = _FACT.findall(text)
        unknown = next((name for name in names if name not in known), None)
        if unknown is None and text.count(_OPENING) == len(names):
            continue
        shown = f"{_OPENING}{unknown}}}" if unknown else text[text.index(_OPENING) :][:40]
        near = get_close_matches(unknown or "", list(known), n=1)
        raise InputError(
            f"{shown} is no planned fact" + (f", is it ${{plan.{near[0]}}}?" if near else "."),
            where=str(node.origin),
            todo="known are: " + ", ".join(sorted(known)),
        )


def _texts(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield key, node
            yield from _texts(child)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from _texts(child)
    elif isinstance(node.value, str):
        yield node.value, node


def flag_words(name: str, value: Any) -> tuple[str, ...]:
    """One flag and its value as words: true is a bare flag, false and null are no flag."""
    if value is None or value is False:
        return ()
    flag = f"--{name}"
    if value is True:
        return (flag,)
    if isinstance(value, dict):
        return (flag, json.dumps(value, separators=(", ", ": "), ensure_ascii=False))
    if isinstance(value, list):
        return (flag, *(str(word) for word in value))
    text = str(value)
    if text.startswith("-") and not _NUMBER.fullmatch(text):
        return (f"{flag}={text}",)  # as a word of its own it would be read as a flag
    return (flag, text)


def env_text(value: Any) -> str:
    """An environment variable's value as text; booleans as 1 and 0."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)
