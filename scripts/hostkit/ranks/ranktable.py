"""Rank tables: which device of which host is which rank. Pure data in, JSON out.

Standard library only: this module also runs on the hosts. The engine reads these files, so their
names, keys, key order and which numbers are strings are not ours to choose.
"""

from __future__ import annotations

import copy
import json
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.errors import InputError

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
