"""Secrets taken out of what commands show, by the rules that logs are fetched by."""

from __future__ import annotations

import math
from typing import Any, Mapping, Sequence

from hostkit.base.redact import REDACTED, Redactor, is_secret

_PLACES = {("keys", "private_key")}  # has a secret's name and is the path of a file
_REFERENCE = ("file", "variable")  # where a secret is, see schema_base.Secret


def text(value: str) -> str:
    """A text, of one line or many, without its secrets."""
    redactor = Redactor()
    return "".join(redactor.line(line) for line in value.splitlines(keepends=True))


def words(values: Sequence[Any]) -> list[Any]:
    """The words of a command without its secrets: --api-key VALUE, --api-key=VALUE, NAME=VALUE."""
    made: list[Any] = []
    expected = False  # the value of the option before
    for value in values:
        word = value if isinstance(value, str) else ""
        name, equals, rest = word.partition("=")
        if expected and not word.startswith("--"):
            made.append(REDACTED)
        elif equals and rest and is_secret(name):
            made.append(f"{name}={REDACTED}")
        else:
            made.append(clean(value))
        expected = word.startswith("-") and not equals and is_secret(name)
    return made


def variables(values: Mapping[str, str]) -> dict[str, str]:
    """Environment variables without their secrets."""
    return {name: REDACTED if v and is_secret(name) else text(v) for name, v in values.items()}


def setting(path: Sequence[str], value: Any) -> Any:
    """A setting's value as it may be shown; path: its name, step by step."""
    if tuple(path) in _PLACES:
        return value
    if path[-1] not in _REFERENCE and any(is_secret(step) for step in path):
        return REDACTED if _holds(value) else value
    return clean(value)


def clean(value: Any) -> Any:
    """Data with every secret in it replaced: by the name of its key, or by its form.

    A number that is none (NaN, infinity) becomes None, so that JSON can be made of it.
    """
    if isinstance(value, dict):
        return {
            text(str(key)): REDACTED if _holds(child) and is_secret(str(key)) else clean(child)
            for key, child in value.items()
        }
    if isinstance(value, (list, tuple)):
        return words(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return text(value) if isinstance(value, str) else value


def _holds(value: Any) -> bool:
    """Whether a value can be a secret; an empty one, yes and no, or a reference to one is none."""
    if isinstance(value, dict) and set(value) <= {*_REFERENCE, "literal"}:
        return False
    return bool(value) and not isinstance(value, bool)
