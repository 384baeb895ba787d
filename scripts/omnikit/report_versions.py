"""What runs, or would run, in which version, and from where that is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Mapping, Sequence

from omnikit import engine_pins
from omnikit.config import Config
from omnikit.errors import ToolkitError
from omnikit.layers import PROJECT
from omnikit.topology import resolve_path

Row = tuple[str, str, str]
_FACTS = {
    "driver_version": "NPU driver",
    "firmware_version": "NPU firmware",
    "cann_version": "CANN",
    "engine": "container engine",
    "image_id": "image ID on the host",
    "python": "Python on the host",
}


def versions(
    config: Config, known: Sequence[Mapping[str, Any]], checks: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Name, version and where it is known from. known: releases, the newest first."""
    rows = [*_planned(config), *(_released(known[0]) if known else ()), *_found(checks)]
    return [dict(zip(("name", "version", "where"), row)) for row in rows]


def _planned(config: Config) -> list[Row]:
    about = config.settings
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    own = re.search(r'^version = "(.*)"', text, re.MULTILINE)
    rows = [
        ("omni-deploy-toolkit", own[1] if own else "?", "pyproject.toml"),
        ("engine", about.profile.engine, str(config.origin("profile", "engine"))),
        ("omni-infer", about.profile.omni_version, str(config.origin("profile", "omni_version"))),
        ("model", about.profile.model, str(config.origin("profile", "model"))),
    ]
    if about.engine.requirements and about.runtime == "process":
        path = resolve_path(about.engine.requirements, True)
        rows += [(name, pin, about.engine.requirements) for name, pin in _pins(path)]
    if about.runtime == "docker":
        rows.append(
            ("image", about.container.image or "-", str(config.origin("container", "image")))
        )
    return rows


def _pins(path: str) -> list[tuple[str, str]]:
    try:
        pins = engine_pins.read_pins(Path(path))
    except (OSError, ToolkitError):
        return []
    return [(n, v) for n, v in pins.items() if n.startswith("vllm") or n in ("torch", "nixl")]


def _released(last: Mapping[str, Any]) -> list[Row]:
    where = f"release {last['number']}"
    rows = [(f"image ID of {name}", id_, where) for name, id_ in last["images"].items()]
    if last["source"]:
        dirty = " (dirty)" if last["source"].get("dirty") else ""
        rows.append(("source", f"{last['source'].get('revision')}{dirty}", where))
    return rows


def _found(checks: Mapping[str, Any]) -> list[Row]:
    """What check-env found on the hosts: each version once, with the hosts that have it."""
    rows = []
    for fact, title in _FACTS.items():
        values: dict[str, list[str]] = {}
        for host, own_checks in checks.items():
            if own_checks["facts"].get(fact):
                values.setdefault(str(own_checks["facts"][fact]), []).append(host)
        rows += [(title, value, f"check-env: {', '.join(on)}") for value, on in values.items()]
    return rows
