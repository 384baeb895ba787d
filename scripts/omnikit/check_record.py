"""What check-env found last on each host, kept on the control host for reports."""

from __future__ import annotations

import json
import time
from typing import Any, Mapping, Sequence

from omnikit import bundle
from omnikit.check_entry import Entry
from omnikit.deployment import control_folder

FILE = "checks.json"


def keep(
    environment: str, checks: Mapping[str, Sequence[Entry]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Keep the checks of these hosts, beside what is known of others; returns all that is kept."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = last(environment)
    for host, own in checks.items():
        found[host] = {"time": now, "checks": list(own), "facts": facts.get(host, {})}
    folder = control_folder(environment)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    bundle.write(folder / FILE, (json.dumps(found) + "\n").encode())
    return found


def last(environment: str) -> dict[str, Any]:
    """By host: time, checks and facts; empty where none were made, or the file is damaged."""
    try:
        found = json.loads((control_folder(environment) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    whole = {"time", "checks", "facts"}
    return {host: own for host, own in found.items() if whole <= set(own)}
