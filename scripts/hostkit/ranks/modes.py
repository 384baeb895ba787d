"""What scripts/gen_ranktable.py does in each of its modes: options in, checked tables out.

Asks the host's tools in mode gen and reads files in the others; writes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from hostkit.base.errors import InputError
from hostkit.base.log import say
from hostkit.base.values import whole
from hostkit.ranks import device_query, ranktable
from hostkit.ranks.check import check_generated, check_global, check_local, check_merged, require
from hostkit.ranks.device_query import Tools
from hostkit.ranks.ranktable import Table

# How often a busy hccn_tool is asked again, as a part of the time that it is given.
_BUSY_STEPS = 20


@dataclass
class Made:
    """Tables by file name, notes for people, and facts for programs."""

    tables: dict[str, Table]
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """The files' texts by name."""
        return {name: ranktable.dumps(table) for name, table in self.tables.items()}


def make(options: argparse.Namespace) -> Made:
    """The tables that the options ask for."""
    made = _MODES[options.mode](options)
    used = {"gen": ("api_server", "host_ip", *_LISTS), "merge": ("global_ranktable_list",)}
    used["merge-local"] = ("local_ranktable_list",)
    used["merge-all"] = ("api_server_list", *_LISTS)
    every = sorted({name for names in used.values() for name in names})
    for name in every:
        if getattr(options, name) and name not in used[options.mode]:
            made.notes.append(f"--{name.replace('_', '-')} means nothing to --mode {options.mode}")
    return made


_LISTS = ("prefill_server_list", "decode_server_list")


def _gen(options: argparse.Namespace) -> Made:
    prefill, decode = (_device_lists(getattr(options, name), name) for name in _LISTS)
    _check_lists(prefill, decode)
    if not (prefill or decode or options.api_server):
        raise InputError(
            "There is nothing to make: no device list and no --api-server.",
            todo="add --prefill-server-list 0,1,2,3 or --decode-server-list 0,1,2,3",
        )
    tools = Tools(
        hccn_tool=options.hccn_tool,
        hccn_conf=options.hccn_conf,
        npu_smi="npu-smi",
        ip="ip",
        timeout_s=options.timeout,
        interval_s=options.timeout / _BUSY_STEPS,
    )
    host, notes = device_query.host_address(tools, options.host_ip)
    devices = [device for ids in [*prefill, *decode] for device in ids]
    if devices and options.devices_source != device_query.HCCN_CONF:
        say(f"asking {options.hccn_tool} for the addresses of {len(devices)} devices")
    found, more = device_query.device_addresses(
        devices, tools, source=options.devices_source, host=host.address
    )
    ips = {device: answer.address for device, answer in found.items()}
    tables: dict[str, Table] = {}
    for ids in [*prefill, *decode]:
        ranktable.add_local(tables, ranktable.local_table(host.address, ids, ips), ids)
    origin = " (addresses of " + ", ".join(sorted({f.source for f in found.values()})) + ")"
    problems = [p for name, table in tables.items() for p in check_local(table, name + origin)]
    whole = ranktable.generated_table(
        host.address, api_server=options.api_server, prefill=prefill, decode=decode, device_ips=ips
    )
    name = ranktable.generated_name(host.address)
    if not problems:  # it would only repeat them
        problems = check_generated(whole, name + origin)
    require(problems, "correct the device addresses on this host, then run this again")
    if options.api_server:
        tables[ranktable.host_name(host.address)] = ranktable.host_table(host.address)
    facts = {
        "host_ip": host.address,
        "host_ip_source": host.source,
        "devices": {str(d): {"ip": f.address, "source": f.source} for d, f in found.items()},
    }
    return Made({**tables, name: whole}, [*notes, *more], facts)


def _device_lists(words: Sequence[str], name: str) -> list[list[int]]:
    lists = []
    for word in words:
        ids = [whole(device) for device in word.split(",")]
        if None in ids:
            raise InputError(
                f"Found {word!r}, expected device ids with commas and no spaces.",
                where=f"--{name.replace('_', '-')}",
                todo="write it such as 0,1,2,3, several instances such as 0,1 2,3",
            )
        lists.append([device for device in ids if device is not None])
    return lists


def _check_lists(prefill: Sequence[Sequence[int]], decode: Sequence[Sequence[int]]) -> None:
    seen: set[int] = set()
    for ids in [*prefill, *decode]:
        for device in ids:
            if device in seen:
                raise InputError(
                    f"Device {device} is given twice.",
                    where="--prefill-server-list and --decode-server-list",
                    todo="give each device to one instance only",
                )
            seen.add(device)
    for role, lists in (("prefill", prefill), ("decode", decode)):
        sizes = [len(ids) for ids in lists]
        if len(set(sizes)) > 1:
            raise InputError(
                f"The {role} instances have {', '.join(map(str, sizes))} devices, "
                "expected the same number in each (their tensor-parallel size).",
                where=f"--{role}-server-list",
            )


def _merge(options: argparse.Namespace) -> Made:
    paths = options.global_ranktable_list
    _at_least(2, paths, "--global-ranktable-list", "the global tables of two hosts or more")
    tables = [_load(Path(path), check_generated) for path in paths]
    merged = ranktable.merge_generated(tables)
    schedulers = [g for g in merged["server_group_list"] if g["group_id"] == ranktable.SCHEDULER]
    count = len(schedulers[0]["server_list"]) if schedulers else 0
    if count != 1:
        raise InputError(
            f"{count} of these tables have a group 0 (scheduler), expected exactly one.",
            where="--global-ranktable-list",
            todo="use --api-server on exactly one host in --mode gen",
        )
    require(check_generated(merged, "the merged table"), _SAME_TODO)
    return Made({ranktable.MERGED_GLOBAL: merged})


def _merge_local(options: argparse.Namespace) -> Made:
    paths = options.local_ranktable_list
    _at_least(
        2, paths, "--local-ranktable-list", "the local tables of two hosts or more, master first"
    )
    tables = [_load(Path(path), check_local) for path in paths]
    merged = ranktable.merge_local(tables)
    require(check_merged(merged, "the merged table"), _SAME_TODO)
    return Made({ranktable.MERGED_LOCAL: merged})


def _merge_all(options: argparse.Namespace) -> Made:
    roles = []
    for name in _LISTS:
        paths = getattr(options, name)
        option = f"--{name.replace('_', '-')}"
        _at_least(1, paths, option, "the table file of each instance")
        roles.append([_load(Path(path), _check_either) for path in paths])
    for path in options.api_server_list:
        _load(Path(path), _check_host)
    cluster = ranktable.global_table(*roles)
    require(check_global(cluster, "the merged table"), _SAME_TODO)
    return Made({ranktable.MERGED_GLOBAL: cluster})


_SAME_TODO = "make the hosts' tables anew with --mode gen, and list each file once"


def _check_either(table: Any, source: str) -> list[str]:
    """An instance's table: a local one, or a merged one (its server_count is a number)."""
    count = table.get("server_count") if isinstance(table, dict) else None
    return check_merged(table, source) if isinstance(count, int) else check_local(table, source)


def _check_host(table: Any, source: str) -> list[str]:
    """A host's table without devices; one with devices will do too."""
    report = ranktable.Report(source)
    ranktable.servers(table, report, count=str)
    return report.problems


def _load(path: Path, check: Callable[[Any, str], list[str]]) -> Table:
    table = ranktable.load(path)
    require(check(table, str(path)), "make that file anew with --mode gen or merge-local")
    assert isinstance(table, dict)
    return table


def _at_least(count: int, paths: Sequence[str], option: str, expected: str) -> None:
    if len(paths) < count:
        given = f"{len(paths)} file{'' if len(paths) == 1 else 's'}"
        raise InputError(f"{given} given, expected {expected}.", where=option)


_MODES: dict[str, Callable[[argparse.Namespace], Made]] = {
    "gen": _gen,
    "merge": _merge,
    "merge-local": _merge_local,
    "merge-all": _merge_all,
}
