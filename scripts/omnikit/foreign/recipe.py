"""vllm-ascend's recipes (the external_dp files of its own tests) as settings of an environment.

A recipe names no machines: they are given beside it, in the order of its hosts. Its words and
variables keep their values; what follows from the plan (ports, ranks, sizes, addresses, devices) is
left to the plan where the recipe says the same, and kept, to be found wrong, where it does not.
Format: vllm-ascend v0.23.0, tests/e2e/…/external_dp (template.md and external_dp_config.py there).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.foreign.settings import number, required, shown, text
from omnikit.yaml.located import Node, Origin

KIND = "recipe of vllm-ascend"
PROFILE = {"engine": "vllm-ascend", "omni_version": "vllm-ascend-v0.23.0", "model": "any"}
MODELS = "/data/models"  # folder of the models on the hosts, unless it is set otherwise
_TOP = ("config", "routing", "templates")
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
}
# Flags and variables that the engine's own settings fill from the plan.
_PLANNED_FLAGS = {
    "port": "api_port",
    "data-parallel-size": "dp_size",
    "data-parallel-rank": "dp_rank",
    "data-parallel-address": "master_ip",
    "data-parallel-rpc-port": "master_port",
    "tensor-parallel-size": "tp_size",
}
_PLANNED_VARIABLES = {
    "ASCEND_RT_VISIBLE_DEVICES": "server_devices",
    "HCCL_IF_IP": "host_ip",
}
_SHORT = {
    "-tp": "tensor-parallel-size",
    "-dp": "data-parallel-size",
    "-dpn": "data-parallel-rank",
    "-dpa": "data-parallel-address",
    "-dpp": "data-parallel-rpc-port",
    "-pp": "pipeline-parallel-size",
    "-O": "compilation-config",
    "-q": "quantization",
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_KV = "kv-transfer-config"
_SEVERAL = "MultiConnector"
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
            "server_devices": ",".join(map(str, range(size))),
            "host_ip": self.address,
        }
        return str(known[fact]) if fact in known else None


class Reader:
    """One recipe with its hosts. notes: what in it has no effect here, each with its place."""

    def __init__(
        self, tree: Node, source: str, layer: int, hosts: Sequence[tuple[str, Node]]
    ) -> None:
        """hosts: name and settings of each machine, in the order of the recipe's hosts."""
        self._tree, self._origin, self._hosts = tree, Origin(source, 0, layer), hosts
        self.notes: list[str] = []
        self.layout: dict[str, int] = {}
        self._pushed: Optional[Node] = None

    def read(self) -> Node:
        """The settings of an environment. Raises InputError: source:line."""
        members = self._members()
        templates = self._by_index("templates", len(members))
        for host, template in zip(members, templates):
            self._server(host, template)
        instances = self._instances(members)
        made = Node({}, self._origin)
        for key, value in PROFILE.items():
            _put(made, ("profile", key), Node(value, self._origin))
        self._model(made)
        machines = {name: settings for name, settings in self._hosts[: len(members)]}
        _put(made, ("hosts",), Node(machines, self._origin, whole=True))
        self._topology(made, members, instances)
        if self._pushed is not None:
            _put(made, ("proxy", "kv_params"), Node("layerwise", self._pushed.origin))
        self.layout = {role: len(found) for role, found in instances.items()}
        for key in self._tree.value:
            if key in ("special_dependencies", "benchmarks", "deployment"):
                why = (
                    "is not installed: it belongs into the image"
                    if key[0] == "s"
                    else "is not used"
                )
                self.notes.append(f"{self._tree.key_origins[key]}: {key} {why}")
        made.notes = tuple(self.notes)
        return made

    def _members(self) -> list[_Host]:
        roles = self._roles()
        entries = self._by_index("config", len(roles))
        if len(self._hosts) < len(entries):
            raise InputError(
                f"the recipe has {len(entries)} hosts, {len(self._hosts)} were given.",
                where=str(self._tree.key_origins["config"]),
                todo="give an address for each, in the order of the recipe: --hosts",
            )
        made = []
        for index, entry in enumerate(entries):
            numbers = {}
            for key in ("port_start", "dp_rpc_port", "dp_size", "dp_size_local", "tp_size"):
                found = required(entry, key, f"config[{index}]", "1")
                numbers[key] = number(found, f"config[{index}].{key}", 1, 65535)
            for key, lowest in (
                ("dp_rank_start", 0),
                ("cp_size", 1),
                ("sp_size", 1),
                ("pp_size", 1),
            ):
                found = entry.child(key) or Node(lowest, entry.origin)
                numbers[key] = number(found, f"config[{index}].{key}", lowest, 65535)
                if key != "dp_rank_start" and numbers[key].value != 1:
                    raise InputError(
                        f"config[{index}].{key} is {numbers[key].value}: only tensor and data"
                        " parallel instances can be planned.",
                        where=str(numbers[key].origin),
                    )
            name, settings = self._hosts[index]
            address = str(settings.at(("address",)).value)
            host = _Host(index, entry.origin, name, address, roles[index], numbers, "")
            given = required(entry, "dp_address", f"config[{index}]", "${NODE_0_IP}")
            host.dp_address = self._filled(text(given, "dp_address"), host, {}, None)
            self._check_sizes(host)
            made.append(host)
        return made

    def _check_sizes(self, host: _Host) -> None:
        """What upstream's own launcher checks."""
        devices = host.number("dp_size_local") * host.number("tp_size")
        most = self._tree.child("npu_per_node")
        limit = number(most, "npu_per_node", 1, 1024).value if most else devices
        last = host.number("dp_rank_start") + host.number("dp_size_local")
        if devices > limit:
            raise InputError(
                f"config[{host.index}] takes {devices} devices, a host has {limit}"
                f" ({most.origin if most else ''}).",
                where=str(host.where),
            )
        if last > host.number("dp_size"):
            raise InputError(
                f"config[{host.index}] has ranks up to {last - 1}, its group"
                f" {host.number('dp_size')} of them.",
                where=str(host.where),
            )

    def _roles(self) -> list[str]:
        groups = required(self._tree.at(("routing",)), "groups", "routing", "prefiller: [0]")
        found: dict[int, str] = {}
        for key, listed in groups.value.items():
            if key not in _GROUPS:
                raise InputError(
                    f"unknown group {key!r} in routing.",
                    where=str(groups.key_origins[key]),
                    todo=f"known here: {', '.join(_GROUPS)}",
                )
            for item in listed.value if isinstance(listed.value, list) else ():
                index = number(item, f"routing.groups.{key}", 0, 65535).value
                if index in found:
                    raise InputError(f"host {index} stands in two groups.", where=str(item.origin))
                found[index] = _GROUPS[key]
        if sorted(found) != list(range(len(found))) or not found:
            raise InputError(
                f"routing.groups names the hosts {sorted(found)}, expected each from 0 on once.",
                where=str(groups.origin),
            )
        return [found[index] for index in range(len(found))]

    def _by_index(self, key: str, count: int) -> list[Node]:
        """The entries of a list by their node_index, one for each host."""
        listed = self._tree.at((key,))
        found: dict[int, Node] = {}
        for position, entry in enumerate(listed.value if isinstance(listed.value, list) else ()):
            given = entry.child("node_index") or Node(position, entry.origin)
            found[number(given, f"{key}[{position}].node_index", 0, 65535).value] = entry
        if sorted(found) != list(range(count)):
            raise InputError(
                f"{key} has entries for the hosts {sorted(found)}, routing.groups has 0 to"
                f" {count - 1}.",
                where=str(self._tree.key_origins[key]),
            )
        return [found[index] for index in range(count)]

    def _instances(self, members: list[_Host]) -> dict[str, list[list[_Host]]]:
        """Hosts of one data-parallel group, in the order of their ranks; the first has rank 0."""
        made: dict[str, list[list[_Host]]] = {role: [] for role in _GROUPS.values()}
        grouped: dict[tuple[Any, ...], list[_Host]] = {}
        for host in members:
            alone = host.number("dp_size") == host.number("dp_size_local")
            own = host.index if alone else None
            key = host.role, host.dp_address, host.number("dp_rpc_port"), own
            grouped.setdefault(key, []).append(host)
        for hosts in grouped.values():
            hosts.sort(key=lambda one: one.number("dp_rank_start"))
            rank = 0
            for host in hosts:
                if host.number("dp_rank_start") != rank:
                    raise InputError(
                        f"config[{host.index}] begins with rank {host.number('dp_rank_start')},"
                        f" expected {rank}: the ranks of a group follow each other.",
                        where=str(host.where),
                    )
                rank += host.number("dp_size_local")
                for key in ("dp_size", "tp_size"):
                    if host.number(key) != hosts[0].number(key):
                        raise InputError(
                            f"{key} of config[{host.index}] is {host.number(key)}, of"
                            f" config[{hosts[0].index}] in the same group {hosts[0].number(key)}.",
                            where=str(host.numbers[key].origin),
                        )
            first = hosts[0]
            if rank != first.number("dp_size"):
                raise InputError(
                    f"the group of config[{first.index}] has {rank} ranks, dp_size says"
                    f" {first.number('dp_size')}.",
                    where=str(first.numbers["dp_size"].origin),
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
        name = str(given.value)
        _put(made, ("model", "path"), Node(f"{MODELS}/{name.rpartition('/')[2]}", given.origin))
        _put(made, ("model", "served_name"), given)
        if "/" in name.strip("/"):
            _put(made, ("weights", "download", "source"), Node("modelscope", given.origin))
            _put(made, ("weights", "download", "repository"), given)

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
        count = first.number("dp_size_local") * first.number("tp_size")
        made = Node({}, first.where)
        names = [Node(host.name, host.where) for host in hosts]
        entries: dict[str, Node] = {
            "hosts": Node(names, first.where),
            "devices": Node("0" if count == 1 else f"0-{count - 1}", first.where),
            "api_port": first.numbers["port_start"],
            "master_port": first.numbers["dp_rpc_port"],
        }
        kv_ports = {host.kv_port.value: host.kv_port for host in hosts if host.kv_port is not None}
        if len(kv_ports) > 1:
            one, other = list(kv_ports.values())[:2]
            raise InputError(
                f"kv_port is {other.value} here and {one.value} for another host of the same group"
                f" ({one.origin}).",
                where=str(other.origin),
                todo="give all hosts of a group the same",
            )
        entries.update({"kv_port": node for node in kv_ports.values()})
        size = Node(first.number("tp_size"), first.numbers["tp_size"].origin)
        for key, node in entries.items():
            _put(made, (key,), node)
        _put(made, ("server", "tensor_parallel"), size)
        for path, node in own.items():
            _put(made, ("server", *path), node)
        for host in hosts[1:]:
            part = {}
            devices = host.number("dp_size_local") * host.number("tp_size")
            if devices != count:
                part["devices"] = Node(f"0-{devices - 1}", host.where)
            if host.number("port_start") != first.number("port_start"):
                part["api_port"] = host.numbers["port_start"]
            for key, node in part.items():
                _put(made, ("parts", host.name, key), node)
        return made

    def _server(self, host: _Host, template: Node) -> None:
        """Words and variables of one host's servers, as leaves below server."""
        given = template.child("envs")
        envs = given.value if given is not None and isinstance(given.value, dict) else {}
        told: dict[str, str] = {}
        for name, node in envs.items():
            value = "" if node.value is None else str(node.value)
            own = re.fullmatch(rf"(.*?):?\$(?:{name}|\{{{name}\}})", value)
            if own and own[1]:
                front = Node(self._filled(Node(own[1], node.origin), host, told, None), node.origin)
                host.leaves["prepend", name] = front
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
            )
        for flag, node in self._flags(host, words.value, told):
            self._flag(host, flag, node)

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
        """Flags with their values; of one that is repeated the last counts, as in upstream's parser."""
        found: dict[str, tuple[Origin, list[str]]] = {}
        last = None
        for node in words:
            word = self._filled(
                Node("" if node.value is None else node.value, node.origin), host, told, None
            )
            name, equals, rest = word.partition("=")
            if name in _SHORT or re.fullmatch(r"--[A-Za-z][\w.-]*", name):
                last = _SHORT.get(name) or name[2:].replace("_", "-")
                if last in found:
                    self.notes.append(
                        f"{found[last][0]}: --{last} stands twice, the later one counts"
                        f" ({node.origin})"
                    )
                found[last] = node.origin, [rest] if equals else []
            elif last is None:
                raise InputError(f"found {word[:40]!r}, expected a flag.", where=str(node.origin))
            else:
                found[last][1].append(word)
        return [(name, _value(values, origin)) for name, (origin, values) in found.items()]

    def _is_planned(self, host: _Host, value: Any, fact: Optional[str]) -> bool:
        """Whether a value is what the plan says anyway."""
        return fact is not None and str(value) in (f"${{plan.{fact}}}", host.planned(fact))

    def _flag(self, host: _Host, flag: str, node: Node) -> None:
        if flag == "host" and node.value == "0.0.0.0":
            return  # servers listen where the others reach them, and nowhere else
        if flag == "served-model-name":
            self.notes.append(f"{node.origin}: --{flag} is not used: see model.served_name")
            return
        if flag == _KV and isinstance(node.value, dict):
            self._connector(host, node)
            return
        if self._is_planned(host, node.value, _PLANNED_FLAGS.get(flag)):
            return
        if flag.startswith("data-parallel-") and host.number("dp_size") == 1:
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
            host.kv_port = number(found, "kv_port", 1, 65535)
            facts.append((("kv_port",), found.value, "kv_base"))
        for path, value, fact in facts:
            leaf = node.find(path)
            if leaf is not None and str(leaf.value) == str(value):
                node.value[path[0]] = Node(f"${{plan.{fact}}}", leaf.origin)


def _value(values: list[str], origin: Origin) -> Node:
    if not values:
        return Node(True, origin)
    if len(values) > 1:
        return Node([Node(value, origin) for value in values], origin)
    if values[0].lstrip()[:1] == "{":
        try:
            return _located(json.loads(values[0]), origin)
        except ValueError:
            pass  # vLLM's parser will say what is wrong with it
    return Node(values[0], origin)


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
