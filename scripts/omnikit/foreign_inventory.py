"""Ansible inventories for omni-infer: groups P, D and C, variables with Jinja expressions."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Optional

from omnikit.errors import InputError
from omnikit.foreign_groups import Inventory, collect
from omnikit.foreign_jinja import HostVariables, Variables
from omnikit.foreign_layout import PROXY_HOST, Layout, Member
from omnikit.foreign_login import login
from omnikit.foreign_settings import VARIABLES, put
from omnikit.foreign_values import devices, number, port, text
from omnikit.located import Node, Origin

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ROLES = {"P": "the prefill hosts", "D": "the decode hosts", "C": "the host of the proxy"}


def read(tree: Node, source: str, layer: int) -> Layout:
    """The layout that an inventory describes. Raises InputError: source:line."""
    return _Reader(collect(tree), Layout(source, layer)).layout()


class _Reader:
    def __init__(self, inventory: Inventory, made: Layout) -> None:
        self.inventory = inventory
        self.made = made
        self.hosts: dict[str, Variables] = {}

    def layout(self) -> Layout:
        groups = {name: self._group(name) for name in _ROLES}
        for host in groups["P"]:
            if host in groups["D"]:
                raise InputError(
                    f"the host {host} is in P and in D, which give it different settings.",
                    where=str(self.inventory.origins[host]),
                    todo="use two names with the same ansible_host",
                )
        self._variables()
        for rank, members in enumerate(self._prefill(groups["P"])):
            self.made.prefill.append(self._instance(members, "P", f"kv_rank {rank}"))
        self.made.decode = self._instance(groups["D"], "D", "the decode instance")
        self._names()
        self._proxy(groups["C"])
        self._settings(groups["P"][0])
        return self.made

    def _group(self, name: str) -> list[str]:
        hosts = self.inventory.hosts(name)
        if hosts:
            return hosts
        group = self.inventory.groups.get(name)
        known = [other for other in self.inventory.groups if other != "all"]
        near = [other for other in known if other.lower() == name.lower()]
        if group is None:
            where = self.inventory.groups["all"].origin if "all" in self.inventory.groups else None
            raise InputError(
                f"there is no group {name} ({_ROLES[name]}), found: {', '.join(known) or 'none'}"
                + (f"; is {near[0]} meant?" if near else "."),
                where=str(where or f"{self.made.source}:1"),
                todo="the groups P, D and C belong under all.children",
            )
        raise InputError(
            f"the group {name} has no hosts.",
            where=str(group.origin),
            todo=f"list {_ROLES[name]} under {name}.hosts",
        )

    def _variables(self) -> None:
        magic: dict[str, Any] = {
            "groups": {name: self.inventory.hosts(name) for name in self.inventory.groups},
            "hostvars": {},
        }
        for host in self.inventory.host_vars:
            own = {"group_names": [g for g in self.inventory.groups_of(host) if g != "all"]}
            values = self.inventory.variables(host)
            self.hosts[host] = Variables(host, values, {**magic, **own})
            magic["hostvars"][host] = HostVariables(self.hosts[host])

    def _prefill(self, hosts: list[str]) -> list[list[str]]:
        """The hosts of P by kv_rank; files from before there was one count node_rank instead."""
        named = [host for host in hosts if "kv_rank" in self.hosts[host]]
        key = "kv_rank" if named else "node_rank"
        ranked: dict[int, list[str]] = {}
        for host in hosts:
            wanted = self._needed(host, key, "P", "kv_rank: 0")
            ranked.setdefault(number(wanted, f"{key} of {host}", 0, 9999).value, []).append(host)
        for expected, (rank, members) in enumerate(sorted(ranked.items())):
            if rank != expected:
                raise InputError(
                    f"{key} of {members[0]} is {rank}, and no prefill host has {expected}.",
                    where=str(self.hosts[members[0]].node(key).origin),
                    todo=f"number the prefill instances 0 to {len(ranked) - 1}; hosts of one"
                    " instance have the same number",
                )
        return [members for _, members in sorted(ranked.items())]

    def _instance(self, hosts: list[str], group: str, label: str) -> list[Member]:
        """One instance: its hosts in order, the master first."""
        ranks = {host: self._rank(host) for host in hosts}
        ordered = sorted(hosts, key=lambda host: ranks[host])  # stable: else as in the file
        if len(ordered) > 1:
            if group == "D":  # several masters say more than equal node_ranks
                self._one_master(ordered, group, label)
            self._distinct(ordered, ranks, label)
            self._one_master(ordered, group, label)
        return [self._member(host, group) for host in ordered]

    def _rank(self, host: str) -> int:
        if "node_rank" not in self.hosts[host]:
            return 0
        rank: int = number(
            self.hosts[host].node("node_rank"), f"node_rank of {host}", 0, 9999
        ).value
        return rank

    def _distinct(self, hosts: list[str], ranks: dict[str, int], label: str) -> None:
        for before, host in zip(hosts, hosts[1:]):
            both = all("node_rank" in self.hosts[name] for name in (before, host))
            if both and ranks[before] == ranks[host]:
                raise InputError(
                    f"{before} and {host} of {label} have the same node_rank {ranks[host]}.",
                    where=str(self.hosts[host].node("node_rank").origin),
                    todo="number the hosts of an instance 0, 1, 2, …; hosts of different prefill"
                    " instances differ in kv_rank",
                )

    def _one_master(self, hosts: list[str], group: str, label: str) -> None:
        """host_ip of every host of an instance is the address of its first one."""
        master = self._address(hosts[0])
        several = ""
        if group == "D":
            several = " (only one decode instance is supported: all hosts of D form it)"
        for host in hosts:
            if "host_ip" not in self.hosts[host]:
                continue
            found = self.hosts[host].node("host_ip")
            if found.value != master.value:
                raise InputError(
                    f"host_ip of {host} is {found.value}, the master of {label} is {hosts[0]}"
                    f" with {master.value} ({master.origin}){several}.",
                    where=str(found.origin),
                    todo=f'write host_ip: "{master.value}" for every host of the instance;'
                    " the master is the one with node_rank 0",
                )

    def _member(self, host: str, group: str) -> Member:
        variables = self.hosts[host]
        label = f"{host} of group {group}"
        settings = login(variables, label, self.made.notes)
        return Member(
            host=self.made.host(host, self._address(host), settings, label),
            label=label,
            where=self.inventory.origins[host],
            master_port=port(
                self._needed(host, "node_port", group, "node_port: 8000"), f"node_port of {host}"
            ),
            api_port=port(
                self._needed(host, "api_port", group, "api_port: 9000"), f"api_port of {host}"
            ),
            devices=devices(
                self._needed(
                    host,
                    "ascend_rt_visible_devices",
                    group,
                    'ascend_rt_visible_devices: "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"',
                ),
                f"ascend_rt_visible_devices of {host}",
            ),
            node_name=host if _NODE_NAME.fullmatch(host) else None,
        )

    def _address(self, host: str) -> Node:
        """ansible_host; a host without one is reached by its name."""
        for name in ("ansible_host", "ansible_ssh_host"):
            if name in self.hosts[host]:
                return text(self.hosts[host].node(name), f"{name} of {host}")
        return Node(host, self.inventory.origins[host])

    def _needed(self, host: str, name: str, group: str, example: str) -> Node:
        variables = self.hosts[host]
        if name in variables:
            return variables.node(name)
        near = get_close_matches(name, variables.names(), n=1, cutoff=0.7)
        where: Origin = self.inventory.origins[host]
        if near and near[0] in self.inventory.host_vars[host]:
            where = self.inventory.host_vars[host][near[0]].origin
        raise InputError(
            f"{host} of group {group} has no {name}"
            + (f", is {near[0]!r} meant for it?" if near and near[0] != name else "."),
            where=str(where),
            todo=f"add to the host or its group: {example}",
        )

    def _names(self) -> None:
        """Only names that differ from those that the plan gives anyway are worth a setting."""
        prefill = [m for members in self.made.prefill for m in members]
        for letter, members in (("p", prefill), ("d", self.made.decode)):
            for k, m in enumerate(members):
                m.node_name = None if m.node_name == f"{letter}{k}" else m.node_name

    def _proxy(self, hosts: list[str]) -> None:
        if len(hosts) > 1:
            raise InputError(
                f"found {len(hosts)} hosts in C, expected one: there is one proxy.",
                where=str(self.inventory.origins[hosts[1]]),
                todo="keep the host that clients connect to",
            )
        host, variables = hosts[0], self.hosts[hosts[0]]
        listen: Optional[Node] = None
        for name in ("node_port", "proxy_port"):
            if listen is None and name in variables:
                listen = port(variables.node(name), f"{name} of {host}")
        self.made.proxy_port = listen
        settings = login(variables, host, self.made.notes)
        name = PROXY_HOST if host in {h.name for h in self.made.hosts.values()} else host
        self.made.proxy = self.made.host(name, self._address(host), settings, "the proxy")

    def _settings(self, host: str) -> None:
        for name, ours in VARIABLES.items():
            if name in self.hosts[host]:
                put(self.made, ours, self.hosts[host].node(name), name)
