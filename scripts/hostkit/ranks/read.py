"""Read a rank table of any origin into entries, and say what is wrong with its form. Pure.

Standard library only: this module also runs on the hosts. Tables come from people's files, so
nothing about their form is taken for granted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from hostkit.ranks.device_facts import address_problem


@dataclass(frozen=True)
class Device:
    """One device entry, its texts as they stand in the table."""

    device_id: str
    address: str
    rank: str


@dataclass(frozen=True)
class Server:
    """One server entry. devices: None when it has no device list."""

    address: str
    devices: Optional[tuple[Device, ...]]


@dataclass
class Report:
    """Collects the problems of one table. names: host names by address, as far as known."""

    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def say(self, text: str, at: str = "") -> None:
        """Note a problem; at: the part of the table, if it has parts."""
        self.problems.append(f"{self.source}: {at}{': ' if at else ''}{text}.")

    def host(self, address: str) -> str:
        """How to name a host to a person."""
        name = self.names.get(address)
        return f"host {name} ({address})" if name and name != address else f"host {address}"


def head(table: Any, report: Report) -> None:
    """Check version and status."""
    for key, expected in (("version", "1.0"), ("status", "completed")):
        found = table.get(key) if isinstance(table, dict) else None
        if found != expected:
            report.say(f"{key} is {found!r}, expected {expected!r}")


def groups(table: Any, report: Report) -> list[tuple[str, Any]]:
    """The groups of a global table: group_id and content."""
    head(table, report)
    found = table.get("server_group_list") if isinstance(table, dict) else None
    if not isinstance(found, list) or not found:
        report.say("it has no server_group_list")
        return []
    return [(str(g.get("group_id")) if isinstance(g, dict) else "?", g) for g in found]


def servers(holder: Any, report: Report, at: str = "", *, count: type = int) -> list[Server]:
    """The server entries of a local table or of a group. count: the type of server_count."""
    entries = holder.get("server_list") if isinstance(holder, dict) else None
    if not isinstance(entries, list) or not entries:
        report.say("it has no server_list", at)
        return []
    found = holder.get("server_count")
    expected = count(len(entries))
    if found != expected or type(found) is not count:
        report.say(f"server_count is {found!r}, expected {expected!r}", at)
    return [_server(entry, report, at) for entry in entries]


def all_servers(table: Any) -> list[Server]:
    """All server entries of any kind of table, as far as they can be read."""
    ignored = Report("")
    if isinstance(table, dict) and "server_group_list" in table:
        return [s for _, group in groups(table, ignored) for s in servers(group, ignored)]
    return servers(table, ignored)


def _server(entry: Any, report: Report, at: str) -> Server:
    entry = entry if isinstance(entry, dict) else {}
    address = str(entry.get("server_ip") or "")
    problem = address_problem(address)
    if problem:
        report.say(f"the server_ip of a host {problem}", at)
    host = report.host(address or "?")
    if not str(entry.get("server_id") or "").strip():
        report.say(f"{host} has a blank server_id", at)
    listed = entry.get("device")
    if listed is None:
        return Server(address, None)
    if not isinstance(listed, list) or not listed:
        report.say(f"{host} has an empty device list", at)
        return Server(address, ())
    return Server(address, tuple(_device(device, report, at, host) for device in listed))


def _device(entry: Any, report: Report, at: str, host: str) -> Device:
    entry = entry if isinstance(entry, dict) else {}
    made = Device(*(str(entry.get(key) or "") for key in ("device_id", "device_ip", "rank_id")))
    for key, text in (("device_id", made.device_id), ("rank_id", made.rank)):
        if not (text.isascii() and text.isdigit() and isinstance(entry[key], str)):
            report.say(f"{host}: {key} is {entry.get(key)!r}, expected digits in quotes", at)
    problem = address_problem(made.address)
    if problem:
        report.say(f"{host}, device {made.device_id or '?'}: its address {problem}", at)
    return made
