"""Settings given for one run: --set options and OMNIKIT_ variables, as layers."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Mapping, Sequence

from omnikit import layers
from omnikit.errors import InputError
from omnikit.located import Node, Origin
from omnikit.strict_yaml import SECRETS, parse_value

PREFIX = "OMNIKIT_"
# Variables of ours that are no settings.
NOT_SETTINGS = ("OMNIKIT_ENVIRONMENT", "OMNIKIT_CI")

# A step of a dotted name; quotes keep the dots of a host's name together.
_STEP = re.compile(r'"([^"]+)"|([^."]+)')
_EXAMPLE = "for example: --set server.args.max-model-len=8192"


def option_layer(assignments: Sequence[str]) -> Node:
    """The layer of --set section.key=value; a later one wins. Raises InputError."""
    made = Node({}, Origin("--set", 0, layers.OPTIONS))
    for text in assignments:
        key, equals, value = text.partition("=")
        steps = _steps(key)
        if not equals or not steps:
            hidden = any(word in text.lower() for word in SECRETS)
            found = "" if hidden else f"found {text[:80]!r}, "
            raise InputError(f"{found}expected section.key=value.", where="--set", todo=_EXAMPLE)
        made = layers.merge(made, _nested(steps, value, Origin(f"--set {key}", 0, layers.OPTIONS)))
    return made


def _steps(key: str) -> list[str]:
    """The steps of section."a.b".key; empty when malformed."""
    steps: list[str] = []
    rest = key.strip()
    while rest:
        match = _STEP.match(rest)
        if not match or rest[match.end() : match.end() + 1] not in ("", "."):
            return []
        steps.append(match[1] or match[2])
        if match.end() == len(rest) - 1:  # a dot at the end
            return []
        rest = rest[match.end() + 1 :]
    return steps


def variable_layer(environ: Mapping[str, str], known: Node) -> Node:
    """The layer of OMNIKIT_SECTION__KEY variables; __ separates the levels.

    known: the layers below, whose spelling of a key (upper or lower case) is taken; environment
    variables of the servers keep the case that they are given in.
    """
    made = Node({}, Origin("environment", 0, layers.VARIABLES))
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        origin = Origin(name, 0, layers.VARIABLES)
        words = name[len(PREFIX) :].split("__")
        if len(words) == 1 and words[0].lower() not in known.value:
            near = get_close_matches(name, NOT_SETTINGS[:1], n=1, cutoff=0.8)
            if near:
                raise InputError(f"unknown variable, is it {near[0]}?", where=name)
        made = layers.merge(made, _nested(_spelled(words, known), environ[name], origin))
    return made


def _spelled(words: Sequence[str], known: Node) -> list[str]:
    steps: list[str] = []
    for word in words:
        here = known.find(tuple(steps))
        keys = list(here.value) if here is not None and isinstance(here.value, dict) else []
        same = [key for key in keys if key.lower() == word.lower()]
        as_given = word if steps[-1:] == ["env"] else word.lower()
        steps.append(as_given if as_given in keys or not same else same[0])
    return steps


def _nested(steps: Sequence[str], text: str, origin: Origin) -> Node:
    node = parse_value(text, origin, secret=any(step in SECRETS for step in steps))
    for step in reversed(steps):
        node = Node({step: node}, origin, {step: origin})
    return node
