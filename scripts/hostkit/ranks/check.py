"""Is a rank table right: in itself, and for the instances that are planned? Pure.

Each check returns problems as sentences that name source, host and device; none is the answer of a
right table.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Iterable, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.ranks import ranktable
from hostkit.ranks.ranktable import DECODE, PREFILL, SCHEDULER, Report, Server


@dataclass(frozen=True)
class Member:
    """The part of an instance on one host."""

    host: str
    address: str
    devices: tuple[int, ...]


@dataclass(frozen=True)
class Instance:
    """One prefill or decode instance; members: its hosts, the master first."""

    name: str
    role: str
    members: tuple[Member, ...]


def require(problems: Sequence[str], todo: str) -> None:
    """Raise an InputError that shows all problems, if there are any."""
    if problems:
        raise InputError("\n".join(problems), todo=todo)


def check_local(table: Any, source: str, member: Optional[Member] = None) -> list[str]:
    """Problems of one host's table; with member: also against what is planned."""
    report = _report(source, [member] if member else [])
    ranktable.head(table, report)
    servers = ranktable.servers(table, report, count=str)
    if len(servers) > 1:
        report.say(f"it lists {len(servers)} hosts, expected 1")
    _ranks(servers, report)
    _unique(servers, report)
    if member:
        _as_planned(servers, [member], report)
    return report.problems


def check_merged(table: Any, source: str, members: Optional[Sequence[Member]] = None) -> list[str]:
    """Problems of the table of an instance over several hosts."""
    report = _report(source, members or [])
    ranktable.head(table, report)
    servers = ranktable.servers(table, report)
    _instance(servers, report)
    _unique(servers, report)
    if members is not None:
        _as_planned(servers, members, report)
    return report.problems


def check_global(
    table: Any, source: str, instances: Optional[Sequence[Instance]] = None
) -> list[str]:
    """Problems of the cluster's table; with instances: every address and device of the plan."""
    planned = [member for instance in instances or () for member in instance.members]
    report = _report(source, planned)
    groups = ranktable.groups(table, report)
    everyone: list[Server] = []
    for index, (group_id, group) in enumerate(groups):
        at = f"group {index}"
        if group_id != str(index):
            report.say(f"its group_id is {group_id!r}, expected {str(index)!r}", at)
        servers = ranktable.servers(group, report, at)
        if instances is not None and index < len(instances):
            at = f"{at} ({instances[index].name})"
            _as_planned(servers, instances[index].members, report, at)
        _instance(servers, report, at)
        everyone += servers
    if instances is not None and groups and len(groups) != len(instances):
        names = ", ".join(instance.name for instance in instances)
        report.say(f"it has {len(groups)} groups, expected {len(instances)}: {names}")
        there = {server.address for server in everyone}
        for address in dict.fromkeys(member.address for member in planned):
            if address not in there:
                report.say(f"{report.host(address)} is missing from it")
    _unique(everyone, report)
    return report.problems


def check_generated(table: Any, source: str) -> list[str]:
    """Problems of a table of mode gen or merge: groups are roles, each server ranks from 0."""
    report = Report(source)
    everyone: list[Server] = []
    for group_id, group in ranktable.groups(table, report):
        at = f"group {group_id}"
        if group_id not in (SCHEDULER, PREFILL, DECODE):
            report.say("expected 0 (scheduler), 1 (prefill) or 2 (decode)", at)
        servers = ranktable.servers(group, report, at, count=str)
        for server in servers:
            if group_id != SCHEDULER:
                _ranks([server], report, at)
        everyone += servers
    _unique(everyone, report)
    return report.problems


def _report(source: str, planned: Iterable[Member]) -> Report:
    return Report(source, {member.address: member.host for member in planned})


def _instance(servers: Sequence[Server], report: Report, at: str = "") -> None:
    """One entry per host, and ranks that run through all of them."""
    for address, count in Counter(server.address for server in servers).items():
        if count > 1:
            report.say(f"{report.host(address)} is listed {count} times", at)
    _ranks(servers, report, at)


def _ranks(servers: Sequence[Server], report: Report, at: str = "") -> None:
    """Ranks must be 0, 1, 2, … in order; the first that is not is named."""
    expected = 0
    for server in servers:
        if server.devices is None:
            report.say(f"{report.host(server.address)} has no device list", at)
        for device in server.devices or ():
            if device.rank != str(expected):
                report.say(
                    f"{report.host(server.address)}, device {device.device_id}: rank_id is "
                    f"{device.rank or 'blank'}, expected {expected}",
                    at,
                )
                return
            expected += 1


def _unique(servers: Sequence[Server], report: Report) -> None:
    """No device and no device address may be there twice."""
    entries = [(server.address, device) for server in servers for device in server.devices or ()]
    for (address, device_id), count in Counter((a, d.device_id) for a, d in entries).items():
        if count > 1:
            report.say(f"{report.host(address)}: device {device_id} is listed {count} times")
    owners: dict[str, str] = {}
    for address, device in entries:
        name = f"device {device.device_id} of {report.host(address)}"
        owner = owners.setdefault(device.address, name)
        if owner != name and device.address:
            report.say(f"{owner} and {name} have the same address {device.address}")


def _as_planned(
    servers: Sequence[Server], members: Sequence[Member], report: Report, at: str = ""
) -> None:
    """Hosts and devices must be those planned, in that order."""
    by_address = {server.address: server for server in servers}
    planned = [member.address for member in members]
    for member in members:
        server = by_address.get(member.address)
        if server is None:
            report.say(f"{report.host(member.address)} is missing", at)
            continue
        found = [device.device_id for device in server.devices or ()]
        if found != [str(device) for device in member.devices]:
            report.say(
                f"{report.host(member.address)} has devices {','.join(found) or 'none'}, "
                f"expected {','.join(map(str, member.devices))}",
                at,
            )
    for address in by_address:
        if address not in planned:
            report.say(f"{report.host(address)} is not part of the plan", at)
    if sorted(by_address) == sorted(planned) and list(by_address) != planned:
        report.say(
            f"the hosts are in the order {', '.join(by_address)}, expected {', '.join(planned)}", at
        )
