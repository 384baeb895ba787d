"""vllm-ascend's recipes (the external_dp files of its own tests) as settings of an environment.

A recipe names no machines: they are given beside it, in the order of its hosts. Its words and
variables keep their values; what follows from the plan (ports, ranks, sizes, addresses, devices) is
left to the plan where the recipe says the same, and kept, to be found wrong, where it does not.
Format: vllm-ascend v0.23.0, tests/e2e/…/external_dp (template.md and external_dp_config.py there).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.foreign.settings import entries, number, required, shown, text, wrong
from omnikit.yaml.node import Node, Origin

KIND = "recipe of vllm-ascend"
PROFILE = {"engine": "vllm-ascend", "omni_version": "vllm-ascend-v0.23.0", "model": "any"}
MODELS = "/data/models"  # folder of the models on the hosts, unless it is set otherwise
_TOP = ("config", "routing", "templates")
_READ = (*_TOP, "test_name", "model", "num_nodes", "npu_per_node", "cluster_hosts")
_SIZES = ("dp_size", "dp_size_local", "tp_size", "cp_size", "sp_size", "pp_size")  # 1 if unsaid
_TIMES = {"pp_size": "pipeline-parallel-size", "cp_size": "prefill-context-parallel-size"}
_PORTS = ("port_start", "dp_rpc_port")
_OF_HOST = ("node_index", "dp_address", "dp_rank_start", *_PORTS, *_SIZES)
_OF_TEMPLATE = ("node_index", "envs", "server_cmd_template")
_EPHEMERAL = 32768  # from here on Linux hands ports out, unless it is told otherwise
_GROUPS = {"prefiller": "prefill", "decoder": "decode", "worker": "colocated"}
_LETTER = {"prefill": "p", "decode": "d", "colocated": "s"}

# A recipe's variables that are facts of our plan.
_FACTS = {
    "MODEL": "model_path",
    "PORT": "api_port",
    "DP_SIZE": "dp_size",
    "DP_RANK": "dp_rank",
    "LOCAL_RANK": "local_rank",
    "TP_SIZE": "tp_size",
    "DP_ADDRESS": "master_ip",
    "DP_RPC_PORT": "master_port",
    "VISIBLE_DEVICES": "server_devices",
    "LOCAL_IP": "host_ip",
    "NIC_NAME": "interface",
}
# Flags and variables that the engine's own settings fill from the plan.
_PLANNED_FLAGS = {
    "port": "api_port",
    "data-parallel-size": "dp_size",
    "data-parallel-rank": "external_dp_rank",
    "data-parallel-address": "master_ip",
    "data-parallel-rpc-port": "master_port",
    "tensor-parallel-size": "tp_size",
}
_RANK_FLAGS = tuple(flag for flag in _PLANNED_FLAGS if flag.startswith("data-parallel-"))
_PLANNED_VARIABLES = {
    "ASCEND_RT_VISIBLE_DEVICES": "server_devices",
    "HCCL_IF_IP": "host_ip",
    "HCCL_SOCKET_IFNAME": "interface",
    "GLOO_SOCKET_IFNAME": "interface",
    "TP_SOCKET_IFNAME": "interface",
}
# What upstream's launcher sets over whatever a recipe says.
_OF_LAUNCHER = {"LOCAL_IP", "MASTER_IP", "NIC_NAME", *_PLANNED_VARIABLES}
_OF_LAUNCHER -= {"ASCEND_RT_VISIBLE_DEVICES"}
# Flags of other layouts than one API server for each data-parallel rank.
_OTHER_LAYOUTS = (
    "data-parallel-size-local",
    "data-parallel-start-rank",
    "data-parallel-hybrid-lb",
    "data-parallel-multi-port-external-lb",
    "headless",
    "nnodes",
    "node-rank",
)
# vLLM's short flags; tests ask its parser for them.
SHORT = {
    "-ac": "attention-config",
    "-asc": "api-server-count",
    "-cc": "compilation-config",
    "-dcp": "decode-context-parallel-size",
    "-dp": "data-parallel-size",
    "-dpa": "data-parallel-address",
    "-dpb": "data-parallel-backend",
    "-dpe": "data-parallel-external-lb",
    "-dph": "data-parallel-hybrid-lb",
    "-dpl": "data-parallel-size-local",
    "-dpm": "data-parallel-multi-port-external-lb",
    "-dpn": "data-parallel-rank",
    "-dpp": "data-parallel-rpc-port",
    "-dpr": "data-parallel-start-rank",
    "-ep": "enable-expert-parallel",
    "-n": "nnodes",
    "-pcp": "prefill-context-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-q": "quantization",
    "-r": "node-rank",
    "-sc": "speculative-config",
    "-tp": "tensor-parallel-size",
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|(?<!\$)\$([A-Za-z_][A-Za-z0-9_]*)")
_KV = "kv-transfer-config"
# Variables that say where the engine takes ports.
_PORT_VARIABLES = {
    "HCCL_IF_BASE_PORT": ("ports", "hccl_base"),
    "ASCEND_BASE_PORT": ("ports", "random", "ascend_direct", "first"),
    "MC_MIN_PRC_PORT": ("ports", "random", "mooncake_rpc", "first"),
    "MC_MAX_PRC_PORT": ("ports", "random", "mooncake_rpc", "last"),
}
_HCCL_SPAN = 64  # ports of HCCL from its first on
_SEVERAL = "MultiConnector"
_PROXY, _UPSTREAMS_PROXY = 7000, 1999  # where our proxy listens by default, and upstream's
_PUSHED = "MooncakeLayerwiseConnector"  # prefill pushes: the proxy asks decode first

Leaves = dict[tuple[str, ...], Node]


def looks_like(text: str) -> bool:
    """Whether a text is such a recipe, by its keys."""
    return all(re.search(rf"^{key}[ \t]*:", text, re.MULTILINE) for key in _TOP)


def addresses(words: str, source: str, layer: int) -> list[tuple[str, Node]]:
    """Machines that are given by address alone, with commas between; called node0, node1, …"""
    origin = Origin(source, 0, layer)
    listed = [word for word in re.split(r"[,\s]+", words) if word]
    return [
        (f"node{k}", Node({"address": Node(word, origin)}, origin, {"address": origin}))
        for k, word in enumerate(listed)
    ]


@dataclass
class _Host:
    """A host of a recipe. own: its entry of config; facts: what its variables are, as our facts
    or as text; leaves: server settings by path."""

    index: int
    where: Origin
    name: str
    address: str
    role: str
    numbers: dict[str, Node]
    dp_address: str
    leaves: Leaves = field(default_factory=dict)
    kv_port: Optional[Node] = None

    def number(self, key: str) -> int:
        return int(self.numbers[key].value)

    def planned(self, fact: str) -> Optional[str]:
        """What the plan will tell the one server of this host; None where it has several."""
        size = self.number("tp_size")
        if self.number("dp_size_local") > 1 and fact not in ("dp_size", "master_ip", "tp_size"):
            return None
        known = {
            "api_port": self.number("port_start"),
            "dp_size": self.number("dp_size"),
            "dp_rank": self.number("dp_rank_start"),
            "tp_size": size,
            "master_ip": self.dp_address,
            "master_port": self.number("dp_rpc_port"),
            "server_devices": ",".join(map(str, range(_devices(self)))),
            "host_ip": self.address,
        }
        return str(known[fact]) if fact in known else None


class Reader:
    """One recipe with its hosts. notes: what in it has no effect here, each with its place."""

    def __init__(
        self,
        tree: Node,
        source: str,
        layer: int,
        hosts: Sequence[tuple[str, Node]],
        notes: Sequence[str] = (),
    ) -> None:
        """hosts: name and settings of each machine, in the order of the recipe's hosts."""
        self._tree, self._origin, self._hosts = tree, Origin(source, 0, layer), hosts
        self._members: list[_Host] = []
        self._served: list[Node] = []
        self.notes: list[str] = list(notes)
        self.layout: dict[str, int] = {}
        self._pushed: Optional[Node] = None

    def read(self) -> Node:
        """The settings of an environment. Raises InputError: source:line."""
        self._members = members = self._read_members()
        templates = self._of_hosts("templates", len(members))
        for host, template in zip(members, templates):
            self._server(host, template)
        instances = self._instances(members)
        made = Node({}, self._origin)
        for key, value in PROFILE.items():
            _put(made, ("profile", key), Node(value, self._origin))
        self._hardware(made, members)
        self._model(made)
        machines = dict(self._hosts[: len(members)])
        _put(made, ("hosts",), Node(machines, self._origin, whole=True))
        self._topology(made, members, instances)
        if self._pushed is not None:
            _put(made, ("proxy", "kv_params"), Node("layerwise", self._pushed.origin))
        self._ports(made, members)
        self.layout = {role: len(found) for role, found in instances.items()}
        self._not_read(len(members))
        made.notes = tuple(self.notes)
        return made

    def _hardware(self, made: Node, members: list[_Host]) -> None:
        """The chip, which no recipe names: a host of A3 has 16 devices, of the others 8."""
        most = self._tree.child("npu_per_node")
        said = most and number(most, "npu_per_node", 1, 1024).value
        sure = (said or max(map(_devices, members))) > 8
        model = self._tree.at(("model",))
        chip, why, node = "a2", "a host has 8 devices", most or Node(None, self._origin)
        if sure or any(("env", "ASCEND_A3_ENABLE") in host.leaves for host in members):
            chip, why = "a3", "ASCEND_A3_ENABLE is set"
        elif re.search(r"(?i)fp[48]", str(model.value)):
            chip, why, node = "a5", f"the others do not compute {model.value}", model
        _put(made, ("profile", "hardware"), Node(chip, node.origin))
        if not sure:
            self.notes.append(
                f"{node.origin}: taken for hardware {chip}: {why}; if the hosts are of another,"
                " write it below profile: hardware"
            )

    def _not_read(self, count: int) -> None:
        """Note what of the recipe, and of the hosts beside it, is not used."""
        for listed, known in (("config", _OF_HOST), ("templates", _OF_TEMPLATE)):
            for index, entry in enumerate(self._tree.at((listed,)).value):
                for key in entry.value:
                    if key not in known:
                        origin = entry.key_origins[key]
                        self.notes.append(f"{origin}: {listed}[{index}].{key} is not used")
        for key in self._tree.value:
            if key not in _READ and not key.startswith("env"):  # those are only anchors
                installed = key == "special_dependencies"
                why = "is not installed: it belongs into the image" if installed else "is not used"
                self.notes.append(f"{self._tree.key_origins[key]}: {key} {why}")
        said = self._tree.child("num_nodes")
        if said is not None and number(said, "num_nodes", 1, 65535).value != count:
            self.notes.append(
                f"{said.origin}: num_nodes is {said.value}, the recipe has {count} hosts"
            )
        if unused := self._hosts[count:]:
            names = ", ".join(name for name, _ in unused)
            self.notes.append(
                f"{unused[0][1].origin}: not used: {names}; the recipe has {count} hosts"
            )

    def _read_members(self) -> list[_Host]:
        roles = self._roles()
        entries = self._of_hosts("config", len(roles))
        if len(self._hosts) < len(entries):
            raise InputError(
                f"the recipe has {len(entries)} hosts, {len(self._hosts)} were given.",
                where=str(self._tree.key_origins["config"]),
                todo="give an address for each, in the order of the recipe: --hosts",
            )
        made = []
        for index, entry in enumerate(entries):
            numbers = {}
            for key in _PORTS:
                found = required(entry, key, f"config[{index}]", "7100")
                numbers[key] = number(found, f"config[{index}].{key}", 1, 65535)
            for key in ("dp_rank_start", *_SIZES):
                lowest = int(key in _SIZES)
                found = entry.child(key) or Node(lowest, entry.origin)
                numbers[key] = number(found, f"config[{index}].{key}", lowest, 65535)
            group = entry.child("node_group")
            if group is not None and str(group.value) != "-1":
                raise InputError(
                    f"config[{index}].node_group is {shown(group)}: servers over several hosts are"
                    " of recipes later than v0.23.0.",
                    where=str(group.origin),
                    todo="write an environment whose instance has several hosts (docs/engines.md)",
                )
            if numbers["sp_size"].value != 1:
                raise InputError(
                    f"config[{index}].sp_size is {numbers['sp_size'].value}: vLLM has no size of"
                    " this name, and none is planned.",
                    where=str(numbers["sp_size"].origin),
                    todo="write 1, or take another recipe",
                )
            name, settings = self._hosts[index]
            address = str(settings.at(("address",)).value)
            host = _Host(index, entry.origin, name, address, roles[index], numbers, "")
            given = required(entry, "dp_address", f"config[{index}]", "${NODE_0_IP}")
            told = self._filled(text(given, "dp_address"), host, {}, None)
            host.dp_address = told.replace(f"${{plan.{_FACTS['LOCAL_IP']}}}", address)
            self._check_sizes(host)
            made.append(host)
        return made

    def _check_sizes(self, host: _Host) -> None:
        """What upstream's own launcher checks."""
        devices = _devices(host)
        most = self._tree.child("npu_per_node")
        limit = number(most, "npu_per_node", 1, 1024).value if most else devices
        last = host.number("dp_rank_start") + host.number("dp_size_local")
        if devices > limit:
            raise InputError(
                f"config[{host.index}] takes {devices} devices, a host has {limit}"
                f" ({most.origin if most else ''}).",
                where=str(host.where),
                todo="dp_size_local times tp_size is what a host needs: make one of them smaller",
            )
        if last > host.number("dp_size"):
            raise InputError(
                f"config[{host.index}] has ranks up to {last - 1}, its group"
                f" {host.number('dp_size')} of them.",
                where=str(host.where),
                todo="dp_rank_start plus dp_size_local is at most dp_size",
            )

    def _roles(self) -> list[str]:
        routing = required(self._tree, "routing", "the recipe", "groups: {prefiller: [0]}")
        entries(routing, "routing")
        groups = required(routing, "groups", "routing", "{prefiller: [0], decoder: [1]}")
        found: dict[int, str] = {}
        for key, listed in entries(groups, "routing.groups").items():
            if key not in _GROUPS:
                raise InputError(
                    f"unknown group {key!r} in routing.",
                    where=str(groups.key_origins[key]),
                    todo=f"known here: {', '.join(_GROUPS)}",
                )
            if not isinstance(listed.value, list):
                label = f"routing.groups.{key}"
                raise wrong(listed, label, "a list of hosts", "write it like [0, 1]")
            for item in listed.value:
                index = number(item, f"routing.groups.{key}", 0, 65535).value
                if index in found:
                    raise InputError(
                        f"host {index} stands in two groups.",
                        where=str(item.origin),
                        todo="name each host in one group, once",
                    )
                found[index] = _GROUPS[key]
        if sorted(found) != list(range(len(found))) or not found:
            raise InputError(
                f"routing.groups names the hosts {sorted(found)}, expected each from 0 on once.",
                where=str(groups.origin),
                todo="name every entry of config in one of the groups",
            )
        return [found[index] for index in range(len(found))]

    def _of_hosts(self, key: str, count: int) -> list[Node]:
        """The entries of a list, one for each host, in its order: as upstream, which of templates
        does not read node_index."""
        listed = self._tree.at((key,))
        found = listed.value if isinstance(listed.value, list) else []
        if len(found) != count:
            raise InputError(
                f"{key} has {len(found)} entries, routing.groups the hosts 0 to {count - 1}.",
                where=str(self._tree.key_origins.get(key, self._tree.origin)),
                todo=f"give {key} one entry for each host, in their order",
            )
        for position, entry in enumerate(found):
            entries(entry, f"{key}[{position}]")
            given = entry.child("node_index")
            if given is None or str(given.value) == str(position):
                continue
            said = f"{key}[{position}].node_index is {shown(given)}"
            if key == "config":
                raise InputError(
                    f"{said}, expected {position}: the entries stand in the order of the hosts.",
                    where=str(given.origin),
                    todo=f"write node_index: {position}, or change their order",
                )
            self.notes.append(f"{given.origin}: {said}: not used, it is that of host {position}")
        return list(found)

    def _instances(self, members: list[_Host]) -> dict[str, list[list[_Host]]]:
        """Hosts of one data-parallel group, in the order of their ranks; the first has rank 0."""
        made: dict[str, list[list[_Host]]] = {role: [] for role in _GROUPS.values()}
        grouped: dict[tuple[Any, ...], list[_Host]] = {}
        for host in members:
            alone = host.number("dp_size") == host.number("dp_size_local")
            own = host.index if alone else None
            group = host.role, host.dp_address, host.number("dp_rpc_port"), own
            grouped.setdefault(group, []).append(host)
        for hosts in grouped.values():
            hosts.sort(key=lambda one: one.number("dp_rank_start"))
            rank = 0
            for host in hosts:
                if host.number("dp_rank_start") != rank:
                    raise InputError(
                        f"config[{host.index}] begins with rank {host.number('dp_rank_start')},"
                        f" expected {rank}: the ranks of a group follow each other.",
                        where=str(host.numbers["dp_rank_start"].origin),
                        todo=f"write dp_rank_start: {rank}",
                    )
                rank += host.number("dp_size_local")
                for key in ("dp_size", "tp_size", *_TIMES):
                    if host.number(key) != hosts[0].number(key):
                        raise InputError(
                            f"{key} of config[{host.index}] is {host.number(key)}, of"
                            f" config[{hosts[0].index}] in the same group {hosts[0].number(key)}"
                            f" ({hosts[0].numbers[key].origin}).",
                            where=str(host.numbers[key].origin),
                            todo="give both the same, or each its own dp_address",
                        )
            first = hosts[0]
            if rank != first.number("dp_size"):
                raise InputError(
                    f"the group of config[{first.index}] has {rank} ranks, dp_size says"
                    f" {first.number('dp_size')}.",
                    where=str(first.numbers["dp_size"].origin),
                    todo="the dp_size_local of a group's hosts together are its dp_size",
                )
            if first.number("dp_size") > 1 and first.dp_address != first.address:
                raise InputError(
                    f"dp_address is {first.dp_address}, the group's rank 0 is on {first.address}.",
                    where=str(first.where),
                    todo=f"write ${{NODE_{first.index}_IP}}",
                )
            made[first.role].append(hosts)
        return made

    def _model(self, made: Node) -> None:
        given = text(required(self._tree, "model", "the recipe", "Eco-Tech/GLM-5.1-w8a8"), "model")
        name = str(given.value).rstrip("/")
        local = name.startswith("/")
        path = name if local else f"{MODELS}/{name.rpartition('/')[2]}"
        _put(made, ("model", "path"), Node(path, given.origin))
        names = {str(node.value): node for node in self._served}
        if len(names) > 1:
            one, other = list(names.values())[:2]
            raise InputError(
                f"--served-model-name is {other.value} here and {one.value} elsewhere"
                f" ({one.origin}): the proxy asks all servers for one model.",
                where=str(other.origin),
                todo="give all servers the same",
            )
        _put(made, ("model", "served_name"), next(iter(names.values()), given))
        if "/" in name and not local:
            _put(made, ("weights", "download", "source"), Node("modelscope", given.origin))
            _put(made, ("weights", "download", "repository"), given)

    def _ports(self, made: Node, members: list[_Host]) -> None:
        """Ports of the kernel's own range are as the recipe has them; hosts are checked for it."""
        last: list[tuple[int, Node]] = []
        for host in members:
            begin, rpc = host.numbers["port_start"], host.numbers["dp_rpc_port"]
            last.append((begin.value + host.number("dp_size_local") - 1, begin))
            last.append((rpc.value + 1, rpc))  # the plan has two ports for it
            if host.kv_port is not None:
                ranks = host.number("dp_size") // host.number("dp_size_local") * _devices(host)
                last.append((host.kv_port.value + ranks - 1, host.kv_port))
        for name, path in _PORT_VARIABLES.items():
            told = [host.leaves["env", name] for host in members if ("env", name) in host.leaves]
            if len({str(node.value) for node in told}) == 1:
                port = number(told[0], name, 1, 65535)
                _put(made, path, port)
                if name == "HCCL_IF_BASE_PORT":
                    last.append((port.value + _HCCL_SPAN - 1, port))
        servers = members[0].number("port_start"), members[0].number("dp_size_local")
        if _PROXY in range(servers[0], sum(servers)):
            origin = members[0].numbers["port_start"].origin
            _put(made, ("ports", "proxy"), Node(_UPSTREAMS_PROXY, origin))
        high, node = max(last, key=lambda one: one[0])
        if _EPHEMERAL <= high <= 65535:
            _put(made, ("ports", "ephemeral_low"), Node(high + 1, node.origin))
            self.notes.append(
                f"{node.origin}: ports up to {high} are planned, Linux hands out those from"
                f" {_EPHEMERAL} on: reserve them on the hosts (net.ipv4.ip_local_reserved_ports)"
            )

    def _topology(
        self, made: Node, members: list[_Host], instances: dict[str, list[list[_Host]]]
    ) -> None:
        topology: dict[str, Node] = {}
        for role, groups in instances.items():
            common = _common([host.leaves for hosts in groups for host in hosts])
            for path, node in common.items():
                _put(made, ("roles", role, "server", *path), node)
            listed = []
            for hosts in groups:
                own = _common([_without(host.leaves, common) for host in hosts])
                listed.append(self._instance(hosts, own))
                for host in hosts:
                    rest = _without(_without(host.leaves, common), own)
                    for path, node in rest.items():
                        _put(made, ("hosts", host.name, "server", *path), node)
            topology[role] = Node(listed, self._origin)
            if role == "colocated" and groups:
                _put(made, ("roles", role, "servers"), Node("ranks", self._origin))
        first = self._tree.at(("routing",)).origin
        topology["proxy"] = Node(members[0].name, first)
        _put(made, ("topology",), Node(topology, self._origin, whole=True))

    def _instance(self, hosts: list[_Host], own: Leaves) -> Node:
        first = hosts[0]
        count = _devices(first)
        made = Node({}, first.where)
        names = [Node(host.name, host.where) for host in hosts]
        entries: dict[str, Node] = {
            "hosts": Node(names, first.where),
            "devices": Node("0" if count == 1 else f"0-{count - 1}", first.where),
            "api_port": first.numbers["port_start"],
            "master_port": first.numbers["dp_rpc_port"],
        }
        kv_port = None if first.kv_port is None else first.kv_port.value
        if first.kv_port is not None:
            entries["kv_port"] = first.kv_port
        size = Node(first.number("tp_size"), first.numbers["tp_size"].origin)
        for key, node in entries.items():
            _put(made, (key,), node)
        _put(made, ("server", "tensor_parallel"), size)
        for path, node in own.items():
            _put(made, ("server", *path), node)
        for host in hosts[1:]:
            part = {}
            devices = _devices(host)
            if devices != count:
                part["devices"] = Node(f"0-{devices - 1}", host.where)
            if host.number("port_start") != first.number("port_start"):
                part["api_port"] = host.numbers["port_start"]
            if host.kv_port is not None and host.kv_port.value != kv_port:
                part["kv_port"] = host.kv_port
            for key, node in part.items():
                _put(made, ("parts", host.name, key), node)
        return made

    def _server(self, host: _Host, template: Node) -> None:
        """Words and variables of one host's servers, as leaves below server."""
        given = template.child("envs")
        empty = given is None or given.value in (None, {})
        label = f"templates[{host.index}].envs"
        envs = {} if given is None or empty else entries(given, label)
        told: dict[str, str] = {}
        for name, node in envs.items():
            value = "" if node.value is None else str(node.value)
            if name in _OF_LAUNCHER:
                fact = _PLANNED_VARIABLES.get(name)
                if value not in ("$LOCAL_IP", "${LOCAL_IP}", "$NIC_NAME"):
                    self.notes.append(f"{node.origin}: {name} is not used: it is that of each host")
                told[name] = f"${{plan.{fact}}}" if fact else self._values(host)[name]
                continue
            own = re.fullmatch(rf"(.*?):?\$(?:{name}\b|\{{{name}\}}):?(.*)", value)
            if own:
                around = Node(own[1], node.origin), Node(own[2], node.origin)
                self._prepend(host, name, *around, told)
                continue
            told[name] = self._filled(Node(value, node.origin), host, told, self._of_launcher(name))
            planned = self._is_planned(host, told[name], _PLANNED_VARIABLES.get(name))
            if not planned:
                host.leaves["env", name] = Node(told[name], node.origin)
        words = required(template, "server_cmd_template", f"templates[{host.index}]", "[--port, …]")
        if not isinstance(words.value, list):
            raise InputError(
                f"server_cmd_template: found {shown(words)}, expected a list of words.",
                where=str(words.origin),
                todo="write each word below, after a dash",
            )
        flags = self._flags(host, words.value, told)
        for flag, node in flags:
            self._flag(host, flag, node)
        self._check_layout(host, template.key_origins["server_cmd_template"], dict(flags))

    def _check_layout(self, host: _Host, where: Origin, flags: dict[str, Node]) -> None:
        """One API server for each data-parallel rank is what these recipes have."""
        other = next((flag for flag in _OTHER_LAYOUTS if flag in flags), None)
        if other is not None and str(flags[other].value) not in ("1", "0"):
            raise InputError(
                f"--{other} belongs to another layout than one API server for each data-parallel"
                " rank, which these recipes have.",
                where=str(flags[other].origin),
                todo="remove it, or write an environment (docs/engines.md)",
            )
        for key, flag in _TIMES.items():
            node = flags.get(flag, Node(1, where))
            size = host.numbers[key]
            if str(node.value) not in (str(size.value), f"${{plan.{key}}}"):
                raise InputError(
                    f"--{flag} is {node.value}, config[{host.index}].{key} {size.value}"
                    f" ({size.origin}): by it the servers get their devices.",
                    where=str(node.origin),
                    todo=f"write {key} in config, and --{flag} ${{{key.upper()}}}",
                )
        lacking = [flag for flag in _RANK_FLAGS[:2] if flag not in flags]
        if host.number("dp_size") > 1 and lacking:
            raise InputError(
                f"config[{host.index}] has dp_size {host.number('dp_size')}, its servers are not"
                f" told --{lacking[0]}: each would serve alone.",
                where=str(where),
                todo="add --data-parallel-size ${DP_SIZE} and --data-parallel-rank ${DP_RANK}; for"
                " servers that are alone write an environment with servers: replicas",
            )
        if host.role != "colocated" and _KV not in flags:
            self.notes.append(
                f"{where}: no --{_KV}: the servers get that of configs/engines/vllm-ascend.yaml"
            )

    def _prepend(
        self, host: _Host, name: str, before: Node, after: Node, told: dict[str, str]
    ) -> None:
        """What a recipe puts around a variable that the image has."""
        parts = [
            self._filled(Node(part, node.origin), host, told, self._of_launcher(name))
            for node in (before, after)
            for part in str(node.value).split(":")
            if part and not self._of_image(host, name, Node(part, node.origin), told)
        ]
        if parts:  # else the image's own value stays
            host.leaves["prepend", name] = Node(":".join(parts), before.origin)
        if after.value:
            self.notes.append(
                f"{after.origin}: {name}: {after.value} is put in front of what the image has"
            )

    def _of_image(self, host: _Host, name: str, part: Node, told: dict[str, str]) -> bool:
        """Whether a folder is named by a variable that the image alone knows: it has it there."""
        names = [found[2] for found in _VARIABLE.finditer(str(part.value)) if found[2]]
        unknown = [one for one in names if one not in told and one not in self._values(host)]
        if unknown:
            self.notes.append(
                f"{part.origin}: {name}: {part.value} is left out: ${unknown[0]} is the image's,"
                " whose own setting stays behind"
            )
        return bool(unknown)

    def _of_launcher(self, name: str) -> Callable[[str, Node], str]:
        def found(variable: str, node: Node) -> str:
            self.notes.append(
                f"{node.origin}: {name}: ${variable} is of the shell that starts upstream's tests:"
                " nothing stands for it here"
            )
            return ""

        return found

    def _filled(
        self,
        node: Node,
        host: _Host,
        told: dict[str, str],
        outside: Optional[Callable[[str, Node], str]],
    ) -> str:
        """A text with our facts for the recipe's variables. outside: what else $NAME may be."""

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if match[2] and name in told:
                return told[name]
            if match[2] and name not in self._values(host):
                if outside is None:
                    raise InputError(
                        f"${name} is none of the variables that are set for the servers.",
                        where=str(node.origin),
                        todo=f"set it in envs; there are: {', '.join(told) or 'none'}",
                    )
                return outside(name, node)
            known = self._values(host)
            if name not in known:
                raise InputError(
                    f"${{{name}}} is no variable of these recipes.",
                    where=str(node.origin),
                    todo=f"known are: {', '.join(sorted(known))}",
                )
            return known[name]

        return _VARIABLE.sub(value, str(node.value))

    def _values(self, host: _Host) -> dict[str, str]:
        addresses = [str(settings.at(("address",)).value) for _, settings in self._hosts]
        literal = {f"NODE_{k}_IP": address for k, address in enumerate(addresses)}
        literal["MASTER_IP"] = addresses[0]
        for key in ("NODE_INDEX", "CONFIG_INDEX", "LWS_WORKER_INDEX"):
            literal[key] = str(host.index)
        for key in (
            "dp_size_local",
            "dp_rank_start",
            "cp_size",
            "sp_size",
            "pp_size",
            "port_start",
        ):
            literal[key.upper()] = str(host.number(key))
        return {**literal, **{name: f"${{plan.{fact}}}" for name, fact in _FACTS.items()}}

    def _flags(
        self, host: _Host, words: list[Node], told: dict[str, str]
    ) -> list[tuple[str, Node]]:
        """Flags with their values; of one that is repeated the last counts, as in vLLM's parser."""
        found: dict[str, tuple[Origin, list[str]]] = {}
        last = None
        for node in words:
            given = Node("" if node.value is None else node.value, node.origin)
            word = self._filled(given, host, told, None)
            flag = _as_flag(word)
            if flag is not None:
                last, values = flag
                self._forget(found, last, node.origin)
                found[last] = node.origin, values
            elif last is not None and not re.match(r"-[A-Za-z]", word):
                found[last][1].append(word)
            else:
                raise InputError(
                    f"found {word[:40]!r}, expected a flag.",
                    where=str(node.origin),
                    todo="write flags as --NAME, each followed by its values",
                )
        return _joined(found)

    def _forget(
        self, found: dict[str, tuple[Origin, list[str]]], flag: str, origin: Origin
    ) -> None:
        """Drop what a flag takes the place of: the same one, or its opposite."""
        opposite = flag[len("no-") :] if flag.startswith("no-") else f"no-{flag}"
        for other, why in (
            (flag, "stands twice, the later one counts"),
            (opposite, f"does not count: --{flag} comes later"),
        ):
            if other in found:
                before, _ = found.pop(other)
                self.notes.append(f"{before}: --{other} {why} ({origin})")

    def _is_planned(self, host: _Host, value: Any, fact: Optional[str]) -> bool:
        """Whether a value is what the plan says anyway."""
        told = "dp_rank" if fact == "external_dp_rank" else fact
        return fact is not None and str(value) in (f"${{plan.{told}}}", host.planned(told or ""))

    def _flag(self, host: _Host, flag: str, node: Node) -> None:
        if flag == "host" and node.value == "0.0.0.0":
            return  # servers listen where the others reach them, and nowhere else
        if flag == "served-model-name":
            names = node.value if isinstance(node.value, list) else [node]
            if names[0].value != "${plan.model_path}":
                self._served.append(names[0])
            if len(names) > 1:
                self.notes.append(f"{node.origin}: of --{flag} only {names[0].value} is used")
            return
        if flag == _KV:
            entries(node, f"--{flag}")
            self._connector(host, node)
            return
        draft = node.child("model") if flag == "speculative-config" else None
        if draft is not None and not str(draft.value).startswith("/"):
            self.notes.append(
                f"{draft.origin}: {draft.value}: every server downloads this model; to have it"
                " verified, write the path of a folder on the hosts"
            )
        alone = host.number("dp_size") == 1
        if alone and flag == "data-parallel-rank":
            self.notes.append(
                f"{node.origin}: --{flag} is left out: of data-parallel size 1 vLLM takes no rank"
            )
            return
        if self._is_planned(host, node.value, _PLANNED_FLAGS.get(flag)):
            # The engine's own settings have the flags of ranks for prefill and decode alone.
            if host.role == "colocated" and flag in _RANK_FLAGS and host.number("dp_size") > 1:
                fact = f"${{plan.{_PLANNED_FLAGS[flag]}}}"
                host.leaves["args", flag] = Node(fact, node.origin)
            return
        if flag.startswith("data-parallel-") and alone:
            self.notes.append(
                f"{node.origin}: --{flag} {node.value} is not used: data-parallel size 1"
            )
            return
        for path, leaf in node.leaves(("args", flag)):
            host.leaves[path] = leaf

    def _connector(self, host: _Host, node: Node) -> None:
        """What --kv-transfer-config says, with the plan's facts where it says the same."""
        several = node.at(("kv_connector",)).value == _SEVERAL
        self._hand_over(host, node)
        if several:
            extra = node.at(("kv_connector_extra_config",))
            for one in (extra.child("connectors") or Node([], node.origin)).value:
                self._hand_over(host, one)
                self._sizes(one)
        for path, leaf in node.leaves(("args", _KV)):
            host.leaves[path] = leaf
        told = {path[2:] for path in host.leaves if path[:2] == ("args", _KV)}
        if several:  # what one connector alone has on the top
            for path in (
                ("kv_port",),
                *(("kv_connector_extra_config", r) for r in ("prefill", "decode")),
            ):
                if not any(one[: len(path)] == path for one in told):
                    host.leaves[("args", _KV, *path)] = Node(None, node.origin)

    def _sizes(self, node: Node) -> None:
        """The plan's facts for the sizes that one of several connectors is told."""
        for role in ("prefill", "decode"):
            block = node.find(("kv_connector_extra_config", role))
            for key in ("dp_size", "tp_size"):
                leaf = block.child(key) if block is not None else None
                if block is not None and leaf is not None and leaf.value == self._size(role, key):
                    block.value[key] = Node(f"${{plan.{role}_{key}}}", leaf.origin)

    def _size(self, role: str, key: str) -> Optional[int]:
        """What instances of a role have, by the first of them."""
        return next((one.number(key) for one in self._members if one.role == role), None)

    def _hand_over(self, host: _Host, node: Node) -> None:
        roles = {"prefill": "kv_producer", "decode": "kv_consumer"}
        facts: list[tuple[tuple[str, ...], Any, str]] = [
            (("kv_role",), roles.get(host.role), "kv_role"),
        ]
        name = node.child("kv_connector")
        if name is not None and name.value == _PUSHED:
            self._pushed = name
        found = node.child("kv_port")
        if found is not None:
            port = number(found, "kv_port", 1, 65535)
            if host.kv_port is not None and host.kv_port.value != port.value:
                raise InputError(
                    f"one connector has kv_port {host.kv_port.value}, another {port.value}.",
                    where=str(port.origin),
                    todo="give all connectors of a server the same, or kv_port to one alone",
                )
            host.kv_port = port
            facts.append((("kv_port",), found.value, "kv_base"))
        for path, value, fact in facts:
            leaf = node.find(path)
            if leaf is not None and str(leaf.value) == str(value):
                node.value[path[0]] = Node(f"${{plan.{fact}}}", leaf.origin)


def _devices(host: _Host) -> int:
    """Devices that a host's servers take."""
    sizes = ("dp_size_local", "tp_size", *_TIMES)
    return math.prod(map(host.number, sizes))


def _as_flag(word: str) -> Optional[tuple[str, list[str]]]:
    """A flag's long name and the value in the same word, if any; None for a word that is none."""
    name, equals, rest = word.partition("=")
    values = [rest] if equals else []
    if re.fullmatch(r"-O\w*", name):
        return "optimization-level", [name[2:]] if name[2:] else values
    outer, dot, path = name.partition(".")
    if outer in SHORT:
        return f"{SHORT[outer]}{dot}{path}", values
    if re.fullmatch(r"--[A-Za-z][\w-]*", outer):
        return f"{outer[2:].replace('_', '-')}{dot}{path}", values
    return None


def _joined(found: dict[str, tuple[Origin, list[str]]]) -> list[tuple[str, Node]]:
    """The values of flags; all of --flag.key.key together are the JSON of that flag."""
    made: dict[str, Node] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, (origin, values) in found.items():
        outer, dot, path = name.partition(".")
        if not dot:
            made[name] = _value(name, values, origin)
            continue
        if len(values) != 1:
            raise InputError(
                f"--{name} has {len(values)} values, expected one.",
                where=str(origin),
                todo=f"write the whole JSON: --{outer} '{{…}}'",
            )
        _nest(nested.setdefault(outer, {}), path, values[0])
        made[outer] = _located(nested[outer], origin)
    return list(made.items())


def _nest(tree: dict[str, Any], path: str, word: str) -> None:
    """Put a value of --flag.key.key where it belongs in the flag's JSON, as vLLM does."""
    *steps, last = path.split(".")
    for step in steps:
        tree = tree.setdefault(step, {})
    if last.endswith("+"):
        tree[last[:-1]] = word.split(",")
        return
    try:
        tree[last] = json.loads(word)
    except ValueError:
        tree[last] = word


def _value(flag: str, values: list[str], origin: Origin) -> Node:
    if not values:
        return Node(True, origin)
    if len(values) > 1:
        return Node([Node(value, origin) for value in values], origin)
    if values[0].lstrip()[:1] == "{":
        try:
            data = _json(values[0])
        except ValueError as error:
            if flag.endswith("-config"):  # a chat template begins with { too
                raise InputError(
                    f"--{flag} is not valid JSON: {error}.",
                    where=str(origin),
                    todo="check quotes, commas and brackets",
                ) from error
        else:
            # Of our settings null removes a key; as text it stays in the JSON.
            return (
                Node(values[0], origin)
                if flag != _KV and _has_null(data)
                else _located(data, origin)
            )
    return Node(values[0], origin)


def _json(text: str) -> Any:
    """JSON in which our facts may stand for numbers. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(re.sub(r'(?<!")(\$\{plan\.\w+\})(?!")', r'"\1"', text))


def _has_null(data: Any) -> bool:
    """Whether a key of JSON has no value."""
    if isinstance(data, dict):
        return any(child is None or _has_null(child) for child in data.values())
    return isinstance(data, list) and any(map(_has_null, data))


def _located(value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        return Node(
            {key: _located(child, origin) for key, child in value.items()},
            origin,
            dict.fromkeys(value, origin),
        )
    if isinstance(value, list):
        return Node([_located(child, origin) for child in value], origin)
    return Node(value, origin)


def _common(parts: list[Leaves]) -> Leaves:
    """The leaves that all of them have, with the same value."""
    if not parts:
        return {}
    first, *rest = parts
    return {
        path: node
        for path, node in first.items()
        if all(path in other and other[path].plain() == node.plain() for other in rest)
    }


def _without(leaves: Leaves, common: Leaves) -> Leaves:
    return {path: node for path, node in leaves.items() if path not in common}


def _put(tree: Node, path: tuple[str, ...], node: Node) -> None:
    here = tree
    for step in path[:-1]:
        if step not in here.value:
            here.value[step] = Node({}, node.origin)
            here.key_origins[step] = node.origin
        here = here.value[step]
    here.value[path[-1]] = node
    here.key_origins[path[-1]] = node.origin
