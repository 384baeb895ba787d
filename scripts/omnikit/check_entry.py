"""One line of what check-env found, as every check gives it. Pure."""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]
OK, WARNING, FAILED, UNKNOWN = "ok", "warning", "failed", "unknown"


def entry(
    name: str, title: str, ok: bool, *, required: bool, found: str, needed: str, todo: str
) -> Entry:
    """A check that holds or does not; one that is not required is at worst a warning."""
    bad = FAILED if required else WARNING
    return {
        "id": name,
        "title": title,
        "state": OK if ok else bad,
        "required": required,
        "found": found,
        "needed": needed,
        "todo": "" if ok else todo,
    }


def is_fatal(one: Entry) -> bool:
    """Whether a required check failed."""
    return one["state"] == FAILED and bool(one["required"])
