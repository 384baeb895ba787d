"""What check-env found: a table for people, then each warning and failure; kept for reports."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from hostkit.base.log import table
from hostkit.base.writing import write_private
from hostkit.checks.base import FAILED, OK, UNKNOWN, WARNING, Entry, is_fatal
from omnikit.config.layers import control_folder

# What check-env found last on each host, kept on the control host for reports.

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
    write_private(folder / FILE, (json.dumps(found) + "\n").encode())
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


Checks = Mapping[str, Sequence[Entry]]
_CELL = {OK: "ok", WARNING: "WARN", FAILED: "FAILED", UNKNOWN: "?"}
_WORST = (FAILED, WARNING, UNKNOWN, OK)
# Wider tables show hosts with equal columns as one.
_WIDTH = 100


def text(checks: Checks, *, everything: bool = False) -> str:
    """The whole report. everything: what is ok is shown in full too."""
    parts = [_table(checks)]
    shown = (FAILED, WARNING, UNKNOWN, *((OK,) if everything else ()))
    for state in shown:
        parts += _details(checks, state)
    parts.append(summary(checks))
    return "\n\n".join(part for part in parts if part)


def passed(checks: Checks) -> bool:
    """Whether no required check failed on any host."""
    return not any(is_fatal(one) for own in checks.values() for one in own)


def data(environment: str, checks: Checks, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The report for programs."""
    return {
        "environment": environment,
        "passed": passed(checks),
        "hosts": {
            host: {"checks": list(own), "facts": facts.get(host, {})}
            for host, own in checks.items()
        },
    }


def summary(checks: Checks) -> str:
    """The last line: how many checks, and the verdict."""
    hosts = f"{len(checks)} host{'s' if len(checks) > 1 else ''}"
    verdict = "ready" if passed(checks) else "not ready: what is FAILED must be mended first"
    return f"{hosts}: {counts(one for own in checks.values() for one in own)}; {verdict}"


def counts(entries: Iterable[Entry]) -> str:
    """How many checks came out how: "31 ok, 1 warning, 2 failed"."""
    states = [one["state"] for one in entries]
    words = [f"{states.count(OK)} ok"]
    for state, one, many in (
        (WARNING, "warning", "warnings"),
        (FAILED, "failed", "failed"),
        (UNKNOWN, "not known", "not known"),
    ):
        number = states.count(state)
        if number:
            words.append(f"{number} {one if number == 1 else many}")
    return ", ".join(words)


def _rows(checks: Checks) -> dict[str, str]:
    """Every check by id, with its title, in the order of the host that has most of it."""
    found: dict[str, str] = {}
    for own in sorted(checks.values(), key=len, reverse=True):
        for one in own:
            found.setdefault(one["id"], one["title"])
    return found


def _cell(own: Sequence[Entry], name: str) -> str:
    """The worst that a check came to on a host, "-" where it does not apply."""
    states = [one["state"] for one in own if one["id"] == name]
    return next((_CELL[state] for state in _WORST if state in states), "-")


def _table(checks: Checks) -> str:
    names = _rows(checks)
    columns = {host: [_cell(own, name) for name in names] for host, own in checks.items()}
    made = _drawn(names, columns)
    if max(map(len, made.splitlines())) <= _WIDTH:
        return made
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, cells in columns.items():
        groups.setdefault(tuple(cells), []).append(host)
    labelled = {
        own[0] if len(own) == 1 else f"{own[0]}+{len(own) - 1}": list(cells)
        for cells, own in groups.items()
    }
    legend = [
        f"{label}: {', '.join(own)}"
        for label, own in zip(labelled, groups.values())
        if len(own) > 1
    ]
    return "\n".join([_drawn(names, labelled), *legend])


def _drawn(names: Mapping[str, str], columns: Mapping[str, Sequence[str]]) -> str:
    rows = [
        [title, *(cells[number] for cells in columns.values())]
        for number, title in enumerate(names.values())
    ]
    return table(rows, ["check", *columns])


def _details(checks: Checks, state: str) -> list[str]:
    """What has a state, in the table's order, equal findings of several hosts together."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name in _rows(checks):
        for host, own in checks.items():
            for one in own:
                if one["id"] == name and one["state"] == state:
                    key = tuple(str(one[part]) for part in ("title", "found", "needed"))
                    groups.setdefault(key, {})[host] = str(one["todo"])
    return [_detail(state, todos, *key) for key, todos in groups.items()]


def _detail(state: str, todos: Mapping[str, str], title: str, found: str, needed: str) -> str:
    """One finding. todos: what to do by host; where it names the host, one stands for all."""
    hosts = list(todos)
    who = ", ".join(hosts) + (f" ({len(hosts)} hosts)" if len(hosts) > 1 else "")
    lines = [f"{_CELL[state]}  {title}", *_labelled("on", who), *_labelled("found", found)]
    lines += _labelled("needed", needed)
    if state != OK:
        alike = len(set(todos.values())) == 1
        label = "what to do" if alike else f"what to do for {hosts[0]}, and likewise for the others"
        lines += _labelled(label, todos[hosts[0]])
    return "\n".join(lines)


def _labelled(label: str, said: str) -> list[str]:
    if not said:
        return []
    first, *more = said.splitlines()
    return [f"  {label}: {first}", *(f"    {line}" for line in more)]
