"""Likely causes of a failed server, from the catalogue configs/failures.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional, Sequence

from omnikit.layers import PROJECT


@dataclass(frozen=True)
class Cause:
    """One entry of the catalogue."""

    name: str
    pattern: str
    cause: str
    remedy: str


@lru_cache(maxsize=1)
def catalogue() -> tuple[Cause, ...]:
    """All known failures, in order."""
    import yaml

    text = (PROJECT / "configs" / "failures.yaml").read_text(encoding="utf-8")
    return tuple(Cause(**entry) for entry in yaml.safe_load(text))


def likely_cause(lines: Sequence[str]) -> Optional[Cause]:
    """The first known failure that these log lines show."""
    text = "\n".join(lines)
    return next((c for c in catalogue() if re.search(c.pattern, text)), None)


def describe(node: dict[str, Any], tail_lines: int) -> str:
    """A failed node for a person: which server, how it ended, its last lines, why, what to do."""
    parts = []
    for server in node["servers"]:
        if server["state"] != "failed":
            continue
        end = server.get("exit")
        how = f"ended with exit status {end}" if end is not None else "does not run any more"
        if node.get("reason"):
            how = node["reason"]
        if server.get("reason"):
            how = server["reason"]
        lines = server.get("tail") or []
        parts.append(f"{server['name']} {how}. Its last lines ({server['log']}):")
        parts.extend(f"    {line}" for line in lines[-tail_lines:])
        cause = likely_cause([*lines, how, f"exit status {end}"])
        if cause is not None:
            parts.append(f"  Likely cause: {cause.cause}\n  What to do: {cause.remedy}")
        break  # the others were ended because of the first
    if not parts and node.get("reason"):
        log = node["servers"][0]["log"] if node["servers"] else ""
        parts.append(f"{node['node']}: {node['reason']} (log: {log})")
    return "\n".join(parts) or f"{node['node']} failed."
