"""The rank tables of a whole environment: instances of a plan, and the files that they make. Pure.

Runs on the control host, in one pass, from the device addresses that the hosts reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Mapping, Protocol, Sequence

from omnikit import ranktable
from omnikit.errors import InputError
from omnikit.ranktable import Table
from omnikit.ranktable_check import (
    Instance,
    Member,
    check_global,
    check_local,
    check_merged,
    require,
)

# By host name: its device addresses by device id.
DeviceIps = Mapping[str, Mapping[int, str]]


class PlannedNode(Protocol):
    """What is asked of a plan's node: the part of an instance that runs on one host."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def instance(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def node_rank(self) -> int: ...
    @property
    def devices(self) -> tuple[int, ...]: ...


def instances(nodes: Iterable[PlannedNode]) -> tuple[Instance, ...]:
    """The instances in the order of the global table: prefill by number, then decode.

    Co-located servers need no rank table and are left out.
    """
    found: dict[tuple[int, int], list[PlannedNode]] = {}
    order = {"prefill": 0, "decode": 1}
    for node in nodes:
        if node.role in order:
            found.setdefault((order[node.role], node.instance), []).append(node)
    made = []
    for key in sorted(found):
        parts = sorted(found[key], key=lambda node: node.node_rank)
        members = tuple(Member(node.host, node.address, tuple(node.devices)) for node in parts)
        made.append(Instance(parts[0].name, parts[0].role, members))
    return tuple(made)


@dataclass(frozen=True)
class Tables:
    """All tables of an environment. local: per member of each instance, in plan order.

    own: per instance, the table that its engine reads (RANK_TABLE_FILE_PATH).
    """

    instances: tuple[Instance, ...]
    local: tuple[tuple[Table, ...], ...]
    own: tuple[Table, ...]
    cluster: Table


def build(planned: Sequence[Instance], device_ips: DeviceIps) -> Tables:
    """All tables, validated against the plan. Raises InputError with every problem found."""
    local = tuple(
        tuple(
            ranktable.local_table(m.address, m.devices, device_ips.get(m.host, {}))
            for m in instance.members
        )
        for instance in planned
    )
    own = tuple(t[0] if len(t) == 1 else ranktable.merge_local(t) for t in local)
    roles = [instance.role for instance in planned]
    cluster = ranktable.global_table(
        [table for table, role in zip(own, roles) if role == "prefill"],
        [table for table, role in zip(own, roles) if role == "decode"],
    )
    tables = Tables(tuple(planned), local, own, cluster)
    require(_problems(tables), "invoke check-ranktable compares the plan with the hosts")
    return tables


def _problems(tables: Tables) -> list[str]:
    problems = check_global(tables.cluster, ranktable.MERGED_GLOBAL, tables.instances)
    if problems:  # the others would repeat the same
        return problems
    for instance, local, own in zip(tables.instances, tables.local, tables.own):
        for member, table in zip(instance.members, local):
            name = ranktable.local_name(member.address, member.devices)
            problems += check_local(table, name, member)
        if len(local) > 1:
            source = f"{ranktable.MERGED_LOCAL} of {instance.name}"
            problems += check_merged(own, source, instance.members)
    return problems


def files(tables: Tables, global_dir: str) -> dict[str, dict[str, str]]:
    """The files of each host, by path below its rank table folder.

    global_dir: the folder of the cluster's table there.
    """
    made: dict[str, dict[str, Table]] = {}
    merged: dict[str, str] = {}
    for instance, local, own in zip(tables.instances, tables.local, tables.own):
        for member, table in zip(instance.members, local):
            there = made.setdefault(member.host, {})
            ranktable.add_local(there, table, member.devices)
            if len(local) == 1:
                continue
            if merged.setdefault(member.host, instance.name) != instance.name:
                raise InputError(
                    f"{merged[member.host]} and {instance.name} both run on several hosts and meet "
                    f"on this one; both tables would be {ranktable.MERGED_LOCAL}.",
                    where=f"host {member.host}",
                    todo="give one of the two other hosts",
                )
            there[ranktable.MERGED_LOCAL] = own
    for there in made.values():
        there[f"{global_dir}/{ranktable.MERGED_GLOBAL}"] = tables.cluster
    texts: dict[int, str] = {}  # by identity: many hosts share the large tables
    for there in made.values():
        for table in there.values():
            if id(table) not in texts:
                texts[id(table)] = ranktable.dumps(table)
    return {
        host: {path: texts[id(table)] for path, table in there.items()}
        for host, there in made.items()
    }
