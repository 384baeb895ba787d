"""The two rank tables, read as omni-infer v0.4.1's engine reads them.

omni/accelerators/pd/ranktable/{global_info,local_info,device}.py; the last check, that the own
table is a group of the global one, is find_group_by_local_info of the releases after it (v0.4.1
looks its cluster up the same way and links the wrong devices where it finds nothing).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from vllm.twin.log import Fault

_PLACE = '  File "/workspace/omniinfer/omni/accelerators/pd/ranktable/'


@dataclass(frozen=True)
class Device:
    """One NPU. rank: its place in its instance."""

    id: int
    ip: str
    rank: int
    server_ip: str


@dataclass(frozen=True)
class Group:
    """An instance: cluster is the number of its first device through all groups."""

    id: int
    cluster: int
    devices: tuple[Device, ...]

    @property
    def host_ip(self) -> str:
        return self.devices[0].server_ip


@dataclass(frozen=True)
class Tables:
    """All instances, and the own one."""

    prefill: tuple[Group, ...]
    decode: tuple[Group, ...]
    own: Group


def read(env: Mapping[str, str]) -> Tables:
    """Read both tables by the variables that name them."""
    lists = [group.split(",") for group in _needed(env, "GLOBAL_DECODE_SERVER_IP_LIST").split(";")]
    prefill, decode = int(env.get("PREFILL_POD_NUM", "1")), int(env.get("DECODE_POD_NUM", "1"))
    if len(lists) != decode:
        raise Fault(
            f"ValueError: --global_dec_server_list size ({len(lists)}) NOT equal"
            f" DECODE_POD_NUM ({decode})",
            f'{_PLACE}global_info.py", line 47, in __init__',
        )
    whole = _load(env, "GLOBAL_RANK_TABLE_FILE_PATH", "global_info.py")
    own = _load(env, "RANK_TABLE_FILE_PATH", "local_info.py")
    try:
        groups = _groups(whole["server_group_list"], prefill, lists[0])
        listed = _servers(own["server_list"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Fault(
            f"{type(error).__name__}: {error}", f'{_PLACE}device.py", line 6, in __init__'
        ) from error
    names = [group.id for group in groups]
    if not set(range(prefill + decode)) <= set(names):
        # group_dict_org.get(...) is None for a group that is not there.
        raise Fault(
            "AttributeError: 'NoneType' object has no attribute 'server_list'",
            f'{_PLACE}global_info.py", line 224, in decode_group_server_list',
        )
    by_id = {group.id: group for group in groups}
    found = Tables(
        tuple(by_id[i] for i in range(prefill)),
        tuple(by_id[i] for i in range(prefill, prefill + decode)),
        _own(env, groups, listed),
    )
    known = {device.server_ip for group in found.decode for device in group.devices}
    for ip in lists[0]:
        if ip not in known:
            raise Fault(
                f"ValueError: ({ip}) NOT in gloal_ranktable, please check the"
                " DECODE_SERVER_IP_LIST env)",
                f'{_PLACE}global_info.py", line 254, in decode_group_server_list',
            )
    return found


def _needed(env: Mapping[str, str], name: str) -> str:
    if name not in env:
        raise Fault(
            "AttributeError: 'NoneType' object has no attribute 'split'",
            f'    self.global_decode_server_ip_list = os.getenv("{name}").split(",")',
        )
    return env[name]


def _load(env: Mapping[str, str], name: str, module: str) -> dict[str, Any]:
    trace = f'{_PLACE}{module}", line 30, in get_ranktable_dict'
    if name not in env:
        raise Fault(f"ValueError: Env `{name}` is required for pd separate.", trace)
    try:
        return dict(json.loads(Path(env[name]).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise Fault(
            f"FileNotFoundError: [Errno 2] No such file or directory: '{env[name]}'", trace
        ) from error
    except ValueError as error:
        raise Fault(
            f"json.decoder.JSONDecodeError: {error} in the rank table {env[name]}", trace
        ) from error


def _servers(entries: list[Any]) -> list[Device]:
    return [
        Device(int(d["device_id"]), d["device_ip"], int(d["rank_id"]), entry["server_ip"])
        for entry in entries
        for d in entry["device"]
    ]


def _groups(entries: list[Any], prefill: int, order: list[str]) -> list[Group]:
    """Groups as they stand; decode's servers in the order of the list (sort_server_list)."""
    made, cluster = [], 0
    for entry in entries:
        servers = entry["server_list"]
        if int(entry["group_id"]) >= prefill:
            servers = [s for ip in order for s in servers if s["server_ip"] == ip] or servers
        devices = [
            Device(d.id, d.ip, rank, d.server_ip) for rank, d in enumerate(_servers(servers))
        ]
        made.append(Group(int(entry["group_id"]), cluster, tuple(devices)))
        cluster += len(devices)
    return made


def _own(env: Mapping[str, str], groups: list[Group], listed: list[Device]) -> Group:
    """device.py, Server.__eq__: the same addresses of server and devices."""
    if env.get("ROLE") != "prefill":
        known = {device.server_ip for device in listed}
        for ip in _needed(env, "LOCAL_DECODE_SERVER_IP_LIST").split(","):
            if ip not in known:
                raise Fault(
                    f"ValueError: ({ip}) NOT in local_ranktable, please check the"
                    " DECODE_SERVER_IP_LIST env)",
                    f'{_PLACE}local_info.py", line 61, in init_server',
                )
    mine = sorted((device.server_ip, device.ip) for device in listed)
    for group in groups:
        if sorted((device.server_ip, device.ip) for device in group.devices) == mine:
            return group
    ips = sorted({device.server_ip for device in listed})
    raise Fault(
        f"ValueError: Local info group Group(server_list={ips}) not found."
        f" Server ip {ips[0] if ips else ''} is not in the groups.",
        f'{_PLACE}rank_table.py", line 114, in find_group_by_local_info',
    )
