"""Secrets taken out of everything that a report shows, by the rules that logs are fetched by."""

from __future__ import annotations

from typing import Any

from omnikit.host_redact import REDACTED, Redactor


def is_secret(name: str) -> bool:
    """Whether a setting, variable or flag of this name holds a secret."""
    return REDACTED in Redactor().line(f"{name.lstrip('-')}: {'x' * 12}")


def text(value: str) -> str:
    """A text, of one line or many, without its secrets."""
    redactor = Redactor()
    return "".join(redactor.line(line) for line in value.splitlines(keepends=True))


def words(values: list[Any]) -> bool:
    """Whether words of a command, taken together, hold a secret."""
    line = " ".join(str(value) for value in values)
    return text(line) != line


def clean(value: Any) -> Any:
    """Data with every secret in it replaced: by the name of its key, or by its form."""
    if isinstance(value, dict):
        return {
            text(str(key)): REDACTED
            if isinstance(child, str) and child and is_secret(str(key))
            else clean(child)
            for key, child in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [clean(child) for child in value]
    return text(value) if isinstance(value, str) else value
