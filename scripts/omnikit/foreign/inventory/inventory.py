"""Ansible inventories for omni-infer: groups P, D and C, variables with Jinja expressions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Iterable, Iterator, Mapping, Optional

from hostkit.base.errors import InputError
from omnikit.foreign import own
from omnikit.foreign.inventory.jinja import HostVariables, Variables
from omnikit.foreign.inventory.login import login
from omnikit.foreign.inventory.profile import has_profiles, read_profiles
from omnikit.foreign.layout import PROXY_HOST, Host, Layout, Member
from omnikit.foreign.settings import (
    KNOWN,
    VARIABLES,
    devices,
    entries,
    number,
    port,
    put,
    put_variables,
    text,
    unknown,
    wrong,
)
from omnikit.yaml.node import Node, Origin

# Groups, hosts and variables of a YAML inventory, merged as Ansible merges them.

_KEYS = ("hosts", "vars", "children")
_RANGE = re.compile(r"\[[0-9a-zA-Z]+:[0-9a-zA-Z:]+\]")


@dataclass
class Group:
    """One group, from all places that speak of it."""

    origin: Origin
    vars: dict[str, Node] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)


@dataclass
class Inventory:
    """Everything of an inventory. host_vars and origins: by host name."""

    groups: dict[str, Group] = field(default_factory=dict)
    host_vars: dict[str, dict[str, Node]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def hosts(self, group: str) -> list[str]:
        """The hosts of a group and of the groups in it, in the order of the file."""
        return list(dict.fromkeys(self._hosts(group, ())))

    def _hosts(self, group: str, above: tuple[str, ...]) -> Iterator[str]:
        found = self.groups.get(group)
        if found is None or group in above:
            return
        yield from found.hosts
        for child in found.children:
            yield from self._hosts(child, (*above, group))

    def groups_of(self, host: str) -> list[str]:
        """The groups of a host, the more general first, as their variables override each other."""
        mine = [name for name in self.groups if name == "all" or host in self.hosts(name)]
        return sorted(mine, key=lambda name: (self._depth(name, ()), name))

    def _depth(self, group: str, below: tuple[str, ...]) -> int:
        if group == "all" or group in below:
            return 0
        parents = [name for name, found in self.groups.items() if group in found.children]
        return 1 + max((self._depth(name, (*below, group)) for name in parents), default=0)

    def variables(self, host: str) -> dict[str, Node]:
        """A host's variables: its own over its groups' over those of all."""
        merged: dict[str, Node] = {}
        for name in self.groups_of(host):
            merged.update(self.groups[name].vars)
        merged.update(self.host_vars[host])
        return merged


def collect(tree: Node) -> Inventory:
    """The inventory of a file. Raises InputError."""
    made = Inventory()
    for name, node in tree.value.items():
        _collect(made, name, node, tree.key_origins[name])
    return made


def _collect(made: Inventory, name: str, node: Node, origin: Origin) -> None:
    group = made.groups.setdefault(name, Group(origin))
    for key, child in _entries(node, f"the group {name}").items():
        if key not in _KEYS:
            raise unknown(node, key, f"the group {name}", _KEYS)
        for entry, value in _entries(child, f"{key} of the group {name}").items():
            where = child.key_origins[entry]
            if key == "vars":
                group.vars[entry] = value
            elif key == "children":
                group.children.append(entry)
                _collect(made, entry, value, where)
            else:
                _host(made, group, entry, value, where)


def _host(made: Inventory, group: Group, name: str, node: Node, where: Origin) -> None:
    if _RANGE.search(name):
        raise InputError(
            f"the host range {name} is not read here.",
            where=str(where),
            todo="write each host out; ansible-inventory -i FILE --list --yaml does it for you",
        )
    group.hosts.append(name)
    made.origins.setdefault(name, where)
    made.host_vars.setdefault(name, {}).update(_entries(node, f"the host {name}"))


def _entries(node: Node, label: str) -> dict[str, Node]:
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise wrong(node, label, "a map (name: value)", "is a colon missing, or a dash too many?")
    found: dict[str, Node] = node.value
    return found


# Whether an inventory is one of the releases that the toolkit deploys.

# Groups of later releases, what they stand for, and why they are not deployed.
_REFUSED = {
    "E": (
        "encoders of their own",
        "the toolkit has no such role: prefill and decode would have to be told where its features"
        " are (--ec-transfer-config)",
    ),
    "M": (
        "a pool of KV in a Mooncake store",
        "omni-infer installs and starts it from a repository that is not public",
    ),
}
_DECODE = re.compile(r"D([0-9]+)")
_ONE_DECODE = "the decode instance"
# What a variable called role may say of a host of each group.
_SAID = {"P": ("P", "prefill"), "D": ("D", "M", "S", "decode"), "C": ("C", "proxy")}


def refuse_later(inventory: Inventory) -> None:
    """Raise InputError for groups that are not deployed."""
    for name, (what, why) in _REFUSED.items():
        if inventory.hosts(name):
            raise InputError(
                f"the group {name} stands for {what}, which is not deployed here: {why}.",
                where=str(inventory.groups[name].origin),
                todo="remove the group, or deploy it with omni-infer's own playbook",
            )


def decode_instances(inventory: Inventory) -> list[tuple[str, list[str]]]:
    """The hosts of each decode instance, and what messages call it: D, or its groups D0, D1, …

    As omni-infer's elastic playbook and its roles have it. One such group alone is there for order:
    all hosts of D are the instance. Raises InputError.
    """
    decode = inventory.groups.get("D")
    numbered = {
        int(match[1]): name
        for name in (decode.children if decode else ())
        if (match := _DECODE.fullmatch(name)) and inventory.hosts(name)
    }
    everybody = inventory.hosts("D")
    if len(numbered) < 2:
        return [(_ONE_DECODE, everybody)] if everybody else []
    groups = [numbered[number] for number in sorted(numbered)]
    for host in everybody:
        mine = [name for name in groups if host in inventory.hosts(name)]
        if len(mine) != 1:
            found = " and in ".join(mine) if mine else f"none of its groups {', '.join(groups)}"
            raise InputError(
                f"{host} of group D is in {found}: each of these groups is a decode instance.",
                where=str(inventory.origins[host]),
                todo="list each host of D in one of them; or all directly in D, as one instance",
            )
    return [(f"the decode instance {name}", inventory.hosts(name)) for name in groups]


def role(variables: Variables, host: str, group: str, is_master: bool) -> list[str]:
    """A note for a variable role that says another thing than the group, or of decode's master."""
    if "role" not in variables:
        return []
    said = variables.node("role")
    wanted = _SAID[group]
    if group == "D" and said.value in ("M", "S"):
        wanted = ("M",) if is_master else ("S",)
    if said.value in wanted:
        return []
    return [
        f"{said.origin}: role: {said.value} is not used: {host} is in the group {group}, where it"
        f" would be {wanted[0]}"
    ]


# Variables that nothing here reads, said with the reason or with the name that was meant.

_MOONCAKE = (
    "only the LMCache connector needs it, and this release hands KV over by AscendHcclConnectorV1"
)
_OWN_COMMANDS = (
    "the toolkit makes its commands itself: invoke plan shows them, the sections container, server,"
    " roles and proxy change them"
)
_OWN_PLACES = "the toolkit keeps it below paths.work_dir on each host"
_OWN_LOGIN = "hosts are reached in the toolkit's own way: see hosts, keys and fleet in its settings"
# Names, and why nothing comes of them.
_REASONS = (
    (r"etcd_\w+|mooncake_\w+|MOONCAKE_\w+|LMCACHE_\w+|generate_\w*mooncake\w*", _MOONCAKE),
    (r"\w+_cmd(_[pdc])?|PD_RUN_CORE_AFFINITY_CMD", _OWN_COMMANDS),
    (r"run_\w+_profile|\w+_profile", _OWN_COMMANDS),
    (r"SCRIPTS_PATH|ranktable_save_path|RANKTABLE_SAVE_PATH", _OWN_PLACES),
    (
        r"global_port_base|base_api_port|proxy_port|port_offset",
        "no host's node_port or api_port is computed from it",
    ),
    (r"proc_bind_\w+", "servers are bound to cores by CPU_AFFINITY_CONF alone"),
    (
        r"ansible_become\w*",
        "everything is done as the user who logs in: give ansible_user the rights it needs",
    ),
    (r"ansible_\w+", _OWN_LOGIN),
    (
        r"node_rank|kv_rank|role|host_ip|api_port|ascend_rt_visible_devices",
        "it says nothing about a proxy, or about a host that overrides it",
    ),
)


def reason(name: str, known: Iterable[str]) -> str:
    """Why a variable has no effect."""
    for pattern, why in _REASONS:
        if re.fullmatch(pattern, name):
            return why
    near = get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"nothing here reads it, is {near[0]} meant?" if near else "nothing here reads it"


def notes(found: Iterable[tuple[str, Origin]], known: Iterable[str]) -> list[str]:
    """One note for all variables of one file that have the same reason, with their lines."""
    grouped: dict[tuple[str, str], list[tuple[str, Origin]]] = {}
    for name, origin in sorted(found, key=lambda item: (item[1].source, item[1].line)):
        group = grouped.setdefault((origin.source, reason(name, known)), [])
        if (name, origin) not in group:
            group.append((name, origin))
    made = []
    for (_, why), ((name, origin), *others) in grouped.items():
        more = "".join(f", {other} (line {where.line})" for other, where in others)
        made.append(f"{origin}: {name}{more}: not used: {why}")
    return made


def in_inventory(
    inventory: Inventory, used: Mapping[str, Variables], known: Iterable[str]
) -> list[str]:
    """Notes for all of an inventory that nobody looked at. used: its hosts that are deployed."""
    looked = next(iter(used.values()))  # what was read is known to all of them
    left: list[tuple[str, Origin]] = []
    for name, group in inventory.groups.items():
        hosts = [host for host in used if name in inventory.groups_of(host)]
        for variable, node in _of_others(group.vars):
            mine = [inventory.variables(host)[variable] for host in hosts]
            replaced = bool(mine) and all(n is not node and looked.was_read(n) for n in mine)
            if not replaced and _is_left(node, looked):
                left.append((variable, node.origin))
    for host in used:
        for variable, node in _of_others(inventory.host_vars[host]):
            if _is_left(node, looked):
                left.append((variable, node.origin))
    read = [
        name
        for host in used
        for name, node in inventory.variables(host).items()
        if looked.was_read(node)
    ]
    hosts = [
        f"{origin}: the host {host} is not used: it is in none of the groups P, D and C"
        for host, origin in inventory.origins.items()
        if host not in used
    ]
    return [*hosts, *notes(left, [*known, *dict.fromkeys(read)])]


def _of_others(variables: Mapping[str, Node]) -> list[tuple[str, Node]]:
    """All but those that the toolkit adds for its own playbooks."""
    return [item for item in variables.items() if not item[0].startswith("omnikit_")]


def _is_left(node: Node, looked: Variables) -> bool:
    return node.value not in (None, "") and not looked.was_read(node)


# The playbook's variables, in a file of variables or in a playbook of omni-infer itself.


def read_playbook(tree: Node, source: str, layer: int) -> Layout:
    """The settings in a file of variables (NAME: value) or in a playbook's environment: and vars:.

    Raises InputError: source:line.
    """
    made = Layout(source, layer)
    values: dict[str, Node] = {}
    for play in tree.value if isinstance(tree.value, list) else [Node({"vars": tree}, tree.origin)]:
        for part in ("vars", "environment"):
            found = play.child(part)
            if found is not None and found.value is not None:
                values.update(entries(found, part))
        for part in ("tasks", "roles", "pre_tasks", "post_tasks", "import_playbook"):
            if play.child(part) is not None:
                made.notes.append(
                    f"{play.key_origins[part]}: {part} of the playbook are not run: only its"
                    " environment: and vars: are read, the steps are the toolkit's"
                )
    code_path = values.pop("CODE_PATH", None) if has_profiles(values) else None
    variables = Variables("the playbook", values, {})
    if has_profiles(values):
        read_profiles(made, variables)
    if code_path is not None:
        made.notes.append(
            f"{code_path.origin}: CODE_PATH: not used: with this playbook the image has the source;"
            " see paths.local_code_dir for a copy"
        )
    put_variables(made, {"the playbook": variables})
    left = [
        (name, node.origin)
        for name, node in values.items()
        if node.value not in (None, "") and not variables.was_read(node)
    ]
    made.notes += notes(left, VARIABLES)
    return made


_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ROLES = {"P": "the prefill hosts", "D": "the decode hosts", "C": "the host of the proxy"}
# Servers that do both, in inventories that the toolkit wrote.
_BOTH = "S"


def read(tree: Node, source: str, layer: int) -> Layout:
    """The layout that an inventory describes. Raises InputError: source:line."""
    return _Reader(collect(tree), Layout(source, layer)).layout()


class _Reader:
    def __init__(self, inventory: Inventory, made: Layout) -> None:
        self.inventory = inventory
        self.made = made
        self.hosts: dict[str, Variables] = {}
        self.read: set[int] = set()

    def layout(self) -> Layout:
        refuse_later(self.inventory)
        both = self.inventory.hosts(_BOTH)
        groups = {
            name: self.inventory.hosts(name) if both else self._group(name) for name in _ROLES
        }
        for host in groups["P"]:
            if host in groups["D"]:
                raise InputError(
                    f"the host {host} is in P and in D, which give it different settings.",
                    where=str(self.inventory.origins[host]),
                    todo="use two names with the same ansible_host",
                )
        self._variables()
        used = {host: self.hosts[host] for group in (both, *groups.values()) for host in group}
        self._own(next(iter(used.values())))
        for made, group, hosts in (
            (self.made.prefill, "P", groups["P"]),
            (self.made.colocated, _BOTH, both),
        ):
            for rank, members in enumerate(self._ranked(hosts, group)):
                made.append(self._instance(members, group, f"kv_rank {rank}"))
        for label, hosts in decode_instances(self.inventory):
            self.made.decode.append(self._instance(hosts, "D", label))
        self._names()
        if groups["C"]:
            self._proxy(groups["C"])
        masters = [members[0].where for members in self.made.decode]
        for group, members in groups.items():
            for host in members:
                is_master = any(self.inventory.origins[host] is where for where in masters)
                self.made.notes += role(self.hosts[host], host, group, is_master)
        put_variables(self.made, used)
        self.made.notes += in_inventory(self.inventory, used, KNOWN)
        return self.made

    def _own(self, variables: Variables) -> None:
        """What the toolkit says besides, where it wrote the inventory."""
        if own.ENVIRONMENT in variables:
            self.made.name = str(variables.value(own.ENVIRONMENT))
        if own.MACHINES in variables:
            self.made.machines = list(variables.value(own.MACHINES))
        if own.SETTINGS in variables:
            self.made.settings.update(own.settings(variables.raw(own.SETTINGS), self.made.layer))

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
            self.hosts[host] = Variables(host, values, {**magic, **own}, self.read)
            magic["hostvars"][host] = HostVariables(self.hosts[host])

    def _ranked(self, hosts: list[str], group: str) -> list[list[str]]:
        """The hosts by kv_rank; files from before there was one count node_rank instead."""
        named = [host for host in hosts if "kv_rank" in self.hosts[host]]
        key = "kv_rank" if named else "node_rank"
        ranked: dict[int, list[str]] = {}
        for host in hosts:
            wanted = self._needed(host, key, group, "kv_rank: 0")
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
        if not any("node_rank" in self.hosts[host] for host in hosts):
            ranks = {host: 0 if self._is_master(host) else 1 for host in hosts}
        ordered = sorted(hosts, key=lambda host: ranks[host])  # stable: else as in the file
        if len(ordered) > 1:
            if group == "D":  # several masters say more than equal node_ranks
                self._one_master(ordered, group, label)
            self._distinct(ordered, ranks, label)
        self._one_master(ordered, group, label)
        return [self._member(host, group) for host in ordered]

    def _is_master(self, host: str) -> bool:
        if "host_ip" not in self.hosts[host]:
            return False
        return bool(self.hosts[host].node("host_ip").value == self._address(host).value)

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
        if label == _ONE_DECODE:
            several = (
                " (only one decode instance is supported without groups D0, D1, … below D: all"
                " hosts of D form it)"
            )
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
        label = f"{host} of group {group}"
        variables = self.hosts[host]
        server = variables.raw(own.SERVER) if own.SERVER in variables else None
        return Member(
            host=self._host(host, host, label),
            label=label,
            where=self.inventory.origins[host],
            master_port=port(
                self._needed(host, "node_port", group, "node_port: 8000"), f"node_port of {host}"
            ),
            api_port=port(
                self._needed(host, "api_port", group, "api_port: 9000"), f"api_port of {host}"
            ),
            devices=self._devices(host, group),
            node_name=host if _NODE_NAME.fullmatch(host) else None,
            exact=own.MACHINE in variables,
            server=server and own.tree(server, self.made.layer),
        )

    def _devices(self, host: str, group: str) -> Node:
        if own.DEVICES in self.hosts[host].names():
            return self.hosts[host].raw(own.DEVICES)
        name = "ascend_rt_visible_devices"
        example = f'{name}: "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"'
        return devices(self._needed(host, name, group, example), f"{name} of {host}")

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
        decode = [m for members in self.made.decode for m in members]
        for letter, members in (("p", prefill), ("d", decode)):
            for k, m in enumerate(m for m in members if not m.exact):
                m.node_name = None if m.node_name == f"{letter}{k}" else m.node_name

    def _proxy(self, hosts: list[str]) -> None:
        if len(hosts) > 1:
            raise InputError(
                f"found {len(hosts)} hosts in C, expected one: there is one proxy.",
                where=str(self.inventory.origins[hosts[1]]),
                todo="keep the host that clients connect to",
            )
        host, variables = hosts[0], self.hosts[hosts[0]]
        if "host_ip" in variables and not self._is_master(host):
            self._one_master(hosts, "C", "the proxy")
        self._rank(host)  # looked at: there is but one proxy
        listen: Optional[Node] = None
        for name in ("node_port", "proxy_port"):
            if listen is None and name in variables:
                listen = port(variables.node(name), f"{name} of {host}")
        self.made.proxy_port = listen
        name = PROXY_HOST if host in {h.name for h in self.made.hosts.values()} else host
        self.made.proxy = self._host(host, name, "the proxy")

    def _host(self, host: str, name: str, label: str) -> Host:
        """The machine behind a host of the inventory, with how it is reached."""
        variables = self.hosts[host]
        settings = login(variables, label, self.made.notes)
        machine = str(variables.value(own.MACHINE)) if own.MACHINE in variables else None
        apart = variables.raw(own.HOST).value if own.HOST in variables else {}
        settings = {key: n for key, n in {**settings, **apart}.items() if n.value is not None}
        if own.HOST_SERVER in variables:
            settings["server"] = own.tree(variables.raw(own.HOST_SERVER), self.made.layer)
        recorded = settings.pop("known_hosts", None)
        if recorded is not None and machine is None:
            put(self.made, "known.hosts", recorded, "UserKnownHostsFile")
        return self.made.host(name, self._address(host), settings, label, machine)
