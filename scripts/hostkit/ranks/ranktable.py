"""Rank tables: which device of which host is which rank, made, read from any origin, and written.

The engine reads these files, so their names, keys, key order and which numbers are strings are not
ours to choose. Those that are read come from people: nothing about their form is taken for granted.
"""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from hostkit.base.writing import written
from hostkit.files import regular
from hostkit.ranks.device_facts import address_problem

Table = dict[str, Any]

MERGED_LOCAL = "local_ranktable_merge.json"
MERGED_GLOBAL = "global_ranktable_merge.json"
# Groups of the table that mode gen writes; in the merged global table groups are instances.
SCHEDULER, PREFILL, DECODE = "0", "1", "2"


def local_name(host_ip: str, devices: Sequence[int]) -> str:
    """File name of the table of one host's devices."""
    return f"local_ranktable_{host_ip}_{''.join(map(str, devices))}.json"


def add_local(tables: dict[str, Table], table: Table, devices: Sequence[int]) -> None:
    """Put a host's local table under its file name. Two that would share a name are an error.

    The engine's naming joins ids without a separator: devices 1,12 and 11,2 are both 112.
    """
    host_ip = table["server_list"][0]["server_ip"]
    name = local_name(host_ip, devices)
    if tables.setdefault(name, table) != table:
        other = ",".join(d["device_id"] for d in tables[name]["server_list"][0]["device"])
        raise InputError(
            f"The tables of devices {other} and of devices {','.join(map(str, devices))} would "
            f"both be {name}.",
            where=f"host {host_ip}",
            todo="give the instances of this host other devices, or in another order",
        )


def host_name(host_ip: str) -> str:
    """File name of the table of a host without devices (an API server's)."""
    return f"local_ranktable_{host_ip}_host.json"


def generated_name(host_ip: str) -> str:
    """File name of one host's own global table."""
    return f"global_ranktable_{host_ip}.json"


def dumps(table: Table) -> str:
    """The file's text: equal tables give equal bytes."""
    return json.dumps(table, indent=4, ensure_ascii=False) + "\n"


def local_table(host_ip: str, devices: Sequence[int], device_ips: Mapping[int, str]) -> Table:
    """The table of one host's devices, ranks from 0 in the order given."""
    return _table(
        group_id="0", server_count="1", server_list=[_server(host_ip, devices, device_ips)]
    )


def host_table(host_ip: str) -> Table:
    """The table of a host without devices."""
    return _table(group_id="0", server_count="1", server_list=[_server(host_ip)])


def merge_local(tables: Sequence[Table]) -> Table:
    """The table of an instance over several hosts, its master's first; ranks run through all."""
    servers = [copy.deepcopy(server) for table in tables for server in table["server_list"]]
    rank = 0
    for server in servers:
        for device in server["device"]:
            device["rank_id"] = str(rank)
            rank += 1
    return _table(group_id="0", server_count=len(servers), server_list=servers)


def global_table(prefill: Sequence[Table], decode: Sequence[Table]) -> Table:
    """The table of the whole cluster: a group per instance, prefill in kv_rank order, then decode.

    Each instance gives its local table, or its merged one with the ranks as they are there.
    """
    groups = [
        _group(str(index), len(table["server_list"]), table["server_list"])
        for index, table in enumerate([*prefill, *decode])
    ]
    return _table(server_group_list=groups)


def generated_table(
    host_ip: str,
    *,
    api_server: bool,
    prefill: Sequence[Sequence[int]],
    decode: Sequence[Sequence[int]],
    device_ips: Mapping[int, str],
) -> Table:
    """One host's own global table: what it offers as scheduler, prefill and decode."""
    groups = []
    if api_server:
        groups.append(_group(SCHEDULER, "1", [_server(host_ip)]))
    for group_id, lists in ((PREFILL, prefill), (DECODE, decode)):
        if lists:
            servers = [_server(host_ip, devices, device_ips) for devices in lists]
            groups.append(_group(group_id, str(len(servers)), servers))
    return _table(server_group_list=groups)


def merge_generated(tables: Sequence[Table]) -> Table:
    """The hosts' own global tables as one, group by group."""
    groups = []
    for group_id in (SCHEDULER, PREFILL, DECODE):
        servers = [
            server
            for table in tables
            for group in table["server_group_list"]
            if group["group_id"] == group_id
            for server in group["server_list"]
        ]
        if servers:
            groups.append(_group(group_id, str(len(servers)), servers))
    return _table(server_group_list=groups)


def _table(**content: Any) -> Table:
    return {"version": "1.0", "status": "completed", **content}


def _group(group_id: str, count: Any, servers: Sequence[Table]) -> Table:
    return {
        "group_id": group_id,
        "server_count": count,
        "server_list": copy.deepcopy(list(servers)),
    }


def _server(
    host_ip: str,
    devices: Optional[Sequence[int]] = None,
    device_ips: Optional[Mapping[int, str]] = None,
) -> Table:
    server: Table = {"server_id": host_ip, "server_ip": host_ip}
    if devices is not None:
        server["device"] = [
            {
                "device_id": str(device),
                "device_ip": _ip(host_ip, device, device_ips),
                "rank_id": str(rank),
            }
            for rank, device in enumerate(devices)
        ]
    return server


def _ip(host_ip: str, device: int, device_ips: Optional[Mapping[int, str]]) -> str:
    address = (device_ips or {}).get(device)
    if address is None:
        known = ", ".join(map(str, sorted(device_ips or {}))) or "none"
        raise InputError(
            f"The address of device {device} is not known (known devices: {known}).",
            where=f"host {host_ip}",
            todo=f"hccn_tool -i {device} -ip -g on that host must print a line ipaddr:…",
        )
    return address


def load(path: Path) -> Any:
    """The table in a file, as it is there."""
    todo = "give the path of a rank table that --mode gen or merge-local wrote"
    try:
        return regular.parsed(path)
    except OSError as error:
        raise InputError(
            f"cannot read it: {error.strerror}.", where=str(path), todo=todo
        ) from error
    except ValueError as error:
        raise InputError(f"it is not JSON: {error}.", where=str(path), todo=todo) from error


def state(path: Path, text: str) -> str:
    """What writing text there would do: created, rewritten or unchanged."""
    try:
        return "unchanged" if regular.data(path) == text.encode() else "rewritten"
    except FileNotFoundError:
        return "created"
    except OSError as error:
        raise InputError(
            f"cannot look at it: {error.strerror}.", where=str(path), todo="choose --save-dir DIR"
        ) from error


def save_all(folder: Path, texts: Mapping[str, str], *, dry_run: bool) -> dict[str, str]:
    """Write files by name into a folder; an unchanged one is not touched. Their states by name.

    All are written beside their names first and renamed last: a full disk leaves no half table.
    """
    states = {name: state(folder / name, text) for name, text in texts.items()}
    if dry_run:
        return states
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder: {error.strerror}.",
            where=str(folder),
            todo="choose a folder that you may write: --save-dir DIR",
        ) from error
    try:
        with ExitStack() as pending:
            for name, text in texts.items():
                if states[name] != "unchanged":
                    beside = pending.enter_context(written(folder / name))
                    beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ActionError(
            f"cannot write there: {error.strerror}.",
            where=str(folder),
            todo="check the folder's owner, permissions and free space, or choose --save-dir DIR",
        ) from error
    return states


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
    return [_read_server(entry, report, at) for entry in entries]


def all_servers(table: Any) -> list[Server]:
    """All server entries of any kind of table, as far as they can be read."""
    ignored = Report("")
    if isinstance(table, dict) and "server_group_list" in table:
        return [s for _, group in groups(table, ignored) for s in servers(group, ignored)]
    return servers(table, ignored)


def _read_server(entry: Any, report: Report, at: str) -> Server:
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
