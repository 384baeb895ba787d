"""The steps of a deployment: their names, which are the tags, their order, and a choice of them."""

from __future__ import annotations

from typing import Sequence

from hostkit.base.errors import InputError

# In omni-infer's order. Each is also a tag of the exported playbook and a task of its own.
STEPS = ("run_docker", "sync_code", "pip_install", "ranktable", "run_server", "run_proxy")
# Tags that a deployment does not have: what to use instead.
_OTHERS = {
    "stop_server": "invoke stop",
    "fetch_log": "invoke fetch-logs",
    "clean_up": "invoke clean-up",
}


def choose(tags: str = "", skip: str = "") -> frozenset[str]:
    """The steps to do. tags, skip: names separated by commas; no tags means all.

    Raises InputError for a name that is no step.
    """
    wanted = named(tags) or frozenset(STEPS)
    left_out = [name for name in _split(skip) if name not in _OTHERS]
    return wanted - set(_checked(left_out, "--skip-tags"))


def named(tags: str) -> frozenset[str]:
    """The steps that were asked for by name."""
    return frozenset(_checked(_split(tags), "--tags"))


def _split(text: str) -> Sequence[str]:
    return [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]


def _checked(found: Sequence[str], where: str) -> Sequence[str]:
    for name in found:
        if name in _OTHERS:
            raise InputError(
                f"{name} is no part of a deployment.", where=where, todo=f"use: {_OTHERS[name]}"
            )
        if name not in STEPS:
            raise InputError(
                f"there is no step {name!r}.", where=where, todo=f"choose of: {', '.join(STEPS)}"
            )
    return found
