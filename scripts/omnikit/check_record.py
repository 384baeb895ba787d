"""What check-env found last on each host, kept on the control host for reports."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from omnikit import bundle
from omnikit.check_entry import Entry
from omnikit.deployment import control_folder

FILE = "checks.json"
_PARTS = ("id", "title", "state", "found", "needed", "todo")


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
    return read(environment)[0]


def read(environment: str) -> tuple[dict[str, Any], list[str]]:
    """What last says, and what is wrong with the file or with hosts that were left out."""
    try:
        found = json.loads(path(environment).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, RecursionError) as error:
        return {}, [str(error)]
    if not isinstance(found, dict):
        return {}, ["it has no hosts"]
    whole = {host: own for host, own in found.items() if _is_whole(own)}
    return whole, [f"the checks of host {host}" for host in found if host not in whole]


def path(environment: str) -> Path:
    """Where they are kept."""
    return control_folder(environment) / FILE


def _is_whole(own: Any) -> bool:
    if not isinstance(own, dict) or not isinstance(own.get("facts"), dict) or "time" not in own:
        return False
    checks = own.get("checks")
    return isinstance(checks, list) and all(
        isinstance(one, dict) and set(_PARTS) <= set(one) for one in checks
    )
