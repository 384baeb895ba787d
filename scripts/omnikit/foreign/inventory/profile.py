"""The profiles of omni-infer's roles of 2026: what a playbook says of containers and servers.

A profile is data with pieces of shell in it: exports before the start script, and the words that
this script gets. Read is what has a meaning for the toolkit; of the rest, the line is named.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping, Optional

from hostkit.base.errors import InputError
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.layout import Layout
from omnikit.foreign.settings import number, shown, text, wrong
from omnikit.yaml.node import Node, Origin

_ROLES = {"run_server_prefill_profile": "prefill", "run_server_decode_profile": "decode"}
_CONNECTOR = "LLMDataDistConnector"  # of the roles, where nothing is said
_KV = "kv-transfer-config"

_PLANNED = "the plan says it"
_WAITS = "servers are asked whether they are ready"
_PROXY = "the proxy's configuration is the toolkit's: see the section proxy"
_SHELL = "only exports of plain values are read of these commands, nothing of them is run"
_ANSIBLE = "it is an expression of Ansible's: write the value"

# Keys of the profiles, and why nothing comes of them.
_UNUSED = {
    "runner": "the start script is the toolkit's",
    "multi_node_backend": "prefill over several hosts is on Ray: see the section ray",
    "extra_mounts": "mounts are given whole: container.mounts",
}
# Variables that a profile tells its start script, which makes ranks and addresses of them.
_TOPOLOGY = {
    *(
        "SERVER_IP_LIST",
        "NODE_IP_LIST",
        "HOST_IP",
        "IP",
        "SOCKET_IFNAME",
        "MASTER_PORT",
        "API_PORT",
    ),
    *("NNODES", "NODE_RANK", "KV_RANK", "NUM_SERVERS", "HOST", "LOG_PATH", "MODEL_PATH"),
    *("DECODE_DATA_PARALLEL_SIZE", "DECODE_SERVER_LIST", "DECODE_TENSOR_PARALLEL_SIZE"),
    *("PREFILL_SERVER_LIST", "PREFILL_TENSOR_PARALLEL_SIZE", "ROLE", "OMNI_PD_ROLE"),
    *("PREFILL_POD_NUM", "DECODE_POD_NUM", "OMNI_PD_PREFILL_POD_NUM", "OMNI_PD_DECODE_POD_NUM"),
}
_OVERRULED = {"HCCL_EXEC_TIMEOUT": "omni-infer's start script sets 120 after it"}
# Options of the start script, and what becomes of each: a flag of vLLM's, or a planned one.
_FLAGS = {
    "gpu-util": "gpu-memory-utilization",
    "max-model-len": "max-model-len",
    "block-size": "block-size",
    "pp": "pipeline-parallel-size",
    "load-format": "load-format",
    "dtype": "dtype",
    "additional-config": "additional-config",
    "reasoning-parser": "reasoning-parser",
    "tool-call-parser": "tool-call-parser",
    _KV: _KV,
}
_OPTIONS_PLANNED = {
    *("model-path", "num-servers", "num-dp", "server-offset", "kv-rank", "kv-parallel-size"),
    *("host-ip", "master-ip", "master-port", "base-api-port", "log-dir", "role", "kv-role"),
    *("ascend-rt-visible-devices", "use-inventory-devices", "distributed-executor-backend"),
}
_NAME = re.compile(r"[A-Za-z_]\w*")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_EXPRESSION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_FLAG = re.compile(r"(?:^|\s)--(?=[a-z])")


def has_profiles(values: Mapping[str, Node]) -> bool:
    """Whether a playbook is one of these."""
    return any(name in values for name in _ROLES)


def read_profiles(made: Layout, variables: Variables) -> None:
    """Record what the profiles among a playbook's variables say. Raises InputError."""
    reader = _Reader(made, variables)
    known: dict[str, Callable[[Node], None]] = {
        "container_workspace": reader.workspace,
        "model_path": lambda node: reader.put(("model", "path"), text(node, "model_path")),
        "model": lambda node: reader.note("model", node.origin, "it is a name for messages"),
        "run_docker_profile": reader.docker,
        "run_server_common_profile": reader.common,
        "run_proxy_profile": lambda node: reader.note("run_proxy_profile", node.origin, _PROXY),
        "epd_profile": lambda node: reader.refuse(node, "enabled", "encoders", "the group E"),
        "enable_kv_pool": lambda node: reader.refuse(node, None, "the KV pool", "the group M"),
    }
    for name, read in known.items():
        if name in variables:
            read(reader.plain(name))
    for name, role in _ROLES.items():
        if name in variables:
            reader.server(role, variables.raw(name), name)
    made.notes += reader.notes()


@dataclass
class _Reader:
    made: Layout
    variables: Variables
    left: dict[str, list[tuple[str, Origin]]] = field(default_factory=dict)

    def plain(self, name: str) -> Node:
        """A variable: a map as it was written, anything else evaluated."""
        node = self.variables.raw(name)
        return node if isinstance(node.value, (dict, list)) else self.variables.node(name)

    def note(self, what: str, origin: Origin, why: str) -> None:
        """Keep what has no effect; all of one reason are one note."""
        self.left.setdefault(why, []).append((what, origin))

    def notes(self) -> Iterator[str]:
        for why, found in self.left.items():
            (first, origin), *others = found
            more = "".join(f", {what} (line {where.line})" for what, where in others)
            yield f"{origin}: {first}{more}: not used: {why}"

    def put(self, path: tuple[str, ...], node: Node) -> None:
        other = self.made.settings.setdefault(path, node)
        if other is not node and other.plain() != node.plain():
            self.note(".".join(path), node.origin, f"{other.origin} says {shown(other)} for it")

    def workspace(self, node: Node) -> None:
        path = f"{text(node, 'container_workspace').value}/omniinfer"
        self.put(("paths", "code_dir"), Node(path, node.origin))

    def refuse(self, node: Node, key: Optional[str], what: str, group: str) -> None:
        found = node.child(key) if key else node
        if found is not None and found.value is True:
            raise InputError(
                f"{what} are switched on, which the toolkit does not deploy (see {group} of an"
                " inventory).",
                where=str(found.origin),
                todo="switch it off, or deploy it with omni-infer's own playbook",
            )

    def docker(self, node: Node) -> None:
        for key, child in _map(node, "run_docker_profile").items():
            if key == "shm_size":
                self.put(("container", "shm_size"), text(child, key))
            elif key == "envs":
                for one in _list(child, "envs of run_docker_profile"):
                    name, equals, value = str(one.value).partition("=")
                    if not equals or not _NAME.fullmatch(name):
                        raise wrong(one, "envs of run_docker_profile", "NAME=value", "write both")
                    self.put(("container", "env", name), Node(value, one.origin))
            elif child.value not in (None, [], ""):
                self.unused(key, child, "run_docker_profile", node)

    def unused(self, key: str, child: Node, label: str, parent: Node) -> None:
        """A key without a meaning here."""
        why = _UNUSED.get(key)
        if why is None and key.endswith("_seconds"):
            why = _WAITS
        origin = parent.key_origins.get(key, child.origin)
        self.note(f"{label}.{key}", origin, why or "nothing here reads it")

    def common(self, node: Node) -> None:
        label = "run_server_common_profile"
        for key, child in _map(node, label).items():
            if key != "kv_connector":
                self.unused(key, child, label, node)
            elif child.value != _CONNECTOR:
                path = ("roles", "disaggregated", "server", "args", _KV, "kv_connector")
                self.put(path, text(child, key))

    def server(self, role: str, node: Node, label: str) -> None:
        """One role's profile: variables, then the words of the start script."""
        place = ("roles", role, "server")
        found = _map(node, label)
        shell: dict[str, str] = {}
        for key, child in found.items():
            if key == "docker_envs":
                for name, value in _map(child, f"docker_envs of {label}").items():
                    if isinstance(value.value, (dict, list)):
                        raise wrong(value, f"{name} of docker_envs", "text", "write one value")
                    self.variable(place, name, str(value.value), value.origin)
            elif key == "prepare_commands":
                self.commands(place, child, shell)
            elif key == "workdir":
                self.put((*place, "workdir"), Node(self._filled(child), child.origin))
            elif key in ("kv_offload", "kv_pool"):
                self.switched_on(key, child)
            elif key != "args":
                self.unused(key, child, label, node)
        if "args" in found:
            for child in _list(found["args"], f"args of {label}"):
                self.options(role, child, shell)

    def switched_on(self, key: str, node: Node) -> None:
        on = node.child("enable") if key == "kv_offload" else node
        if on is not None and on.value not in (False, None):
            what = {"kv_offload": "KV offload to the host's memory", "kv_pool": "the KV pool"}[key]
            raise InputError(
                f"{what} is switched on, which the toolkit does not set up (huge pages, and what"
                " runs besides).",
                where=str(on.origin),
                todo="switch it off, or deploy it with omni-infer's own playbook",
            )

    def _filled(self, node: Node) -> str:
        value = str(node.value)
        workspace = self.made.settings.get(("paths", "code_dir"))
        folder = str(workspace.value).rpartition("/")[0] if workspace else "/workspace"
        value = re.sub(r"\{\{\s*container_workspace\s*\}\}", folder, value)
        if "{{" in value:
            raise wrong(node, "workdir", "a folder", "write it without expressions")
        return value

    def variable(self, place: tuple[str, ...], name: str, value: str, origin: Origin) -> None:
        """A variable of the servers of a role, unless the plan has it."""
        before = re.fullmatch(rf"(.+):\$(?:\{{{name}(?::-)?\}}|{name})", value)
        if name in _TOPOLOGY:
            self.note(name, origin, _PLANNED)
        elif name in _OVERRULED:
            self.note(name, origin, _OVERRULED[name])
        elif before and "$" not in before[1]:
            self.put((*place, "prepend", name), Node(before[1], origin))
        elif "{{" in value:
            self.note(name, origin, _ANSIBLE)
        elif "$" in value or "`" in value:
            self.note(name, origin, _SHELL)
        else:
            self.put((*place, "env", name), Node(value, origin))

    def commands(self, place: tuple[str, ...], node: Node, shell: dict[str, str]) -> None:
        """The exports among the commands before a start; shell: values of all its variables."""
        for line, origin in _lines(node):
            try:
                words = shlex.split(_EXPRESSION.sub("{{}}", line), comments=True)
            except ValueError:
                words = [line]
            exported = words[:1] == ["export"]
            pairs = [word.partition("=") for word in (words[1:] if exported else words)]
            if not all(equals and _NAME.fullmatch(name) for name, equals, _ in pairs):
                self.note(line.split("\n")[0][:60], origin, _SHELL)
                continue
            for name, _, value in pairs:
                shell[name] = _expanded(value, {**shell, name: shell.get(name, f"${name}")})
                if exported and name != "EXTRA_ARGS":
                    self.variable(place, name, shell[name], origin)

    def options(self, role: str, node: Node, shell: dict[str, str]) -> None:
        """One piece of the start script's command line: an option with its value, or several."""
        wanted = "words of a command line"
        if isinstance(node.value, (dict, list)):
            raise wrong(
                node, "args", wanted, "a colon and a space make a map of it: write >- before"
            )
        try:
            words = shlex.split(str(node.value))
        except ValueError as error:
            raise wrong(node, "args", wanted, "close the quotes") from error
        here = iter([*words, "--"])
        word = next(here)
        while word != "--":
            name, value = word[2:], next(here)
            if value.startswith("--") and name != "extra-args":
                following, value = value, ""
            else:
                value, following = _expanded(value, shell), next(here)
            self.option(role, name, Node(value, node.origin))
            word = following

    def option(self, role: str, name: str, node: Node) -> None:
        place = ("roles", role, "server")
        value = str(node.value)
        if name in _OPTIONS_PLANNED or (name == "tp" and role == "prefill"):
            return
        if "{{" in value:
            self.note(f"--{name}", node.origin, _ANSIBLE)
        elif name == "extra-args":
            for flag, found in _flags(node):
                self.put((*place, "args", flag), found)
        elif name == "served-model-name":
            self.put(("model", "served_name"), node)
        elif name == "tp":
            self.put((*place, "tensor_parallel"), number(node, "--tp", 1, 4096))
        elif name == "num-speculative-tokens":
            path = (*place, "args", "speculative_config")
            tokens = number(node, f"--{name}", 0, 64)
            if tokens.value:
                self.put((*path, "num_speculative_tokens"), tokens)
            else:  # as upstream has it: nothing is guessed
                self.put(path, Node(None, node.origin))
        elif name == "hccl-buffsize":
            self.put((*place, "env", "HCCL_BUFFSIZE"), node)
        elif name in _FLAGS:
            self.put((*place, "args", _FLAGS[name]), _value(value, node.origin))
        else:
            self.note(f"--{name}", node.origin, "no such option of the start script is known here")


def _map(node: Node, label: str) -> dict[str, Node]:
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise wrong(node, label, "a map", "write its entries indented below, key: value")
    found: dict[str, Node] = node.value
    return found


def _list(node: Node, label: str) -> list[Node]:
    if node.value is None:
        return []
    if not isinstance(node.value, list):
        raise wrong(node, label, "a list", "write each on a line of its own, with a dash before it")
    found: list[Node] = node.value
    return found


def _lines(node: Node) -> Iterator[tuple[str, Origin]]:
    """The commands of a piece of shell, those over several lines as one, with their places."""
    held, first = "", 0
    for number_, line in enumerate(str(node.value or "").split("\n"), 1):
        first = first or number_
        held += line
        if held.endswith("\\") or held.count("{{") > held.count("}}") or _is_open(held):
            held = held[:-1] if held.endswith("\\") else held + "\n"
            continue
        if held.strip() and not held.lstrip().startswith(("#", "{%")):
            origin = node.origin
            yield held.strip(), Origin(origin.source, origin.line + first, origin.layer)
        held, first = "", 0
    if held.strip():
        yield held.strip(), node.origin


def _is_open(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def _expanded(value: str, known: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda m: known.get(m[1] or m[2], m[0]), value)


def _flags(node: Node) -> Iterator[tuple[str, Node]]:
    """The flags of --extra-args, cut as the start script cuts them: at each --."""
    for piece in _FLAG.split(str(node.value))[1:]:
        name, _, rest = piece.strip().partition(" ")
        name, equals, joined = name.partition("=")
        value = joined if equals else rest.strip()
        yield name, _value(value, node.origin) if value else Node(True, node.origin)


def _value(value: str, origin: Origin) -> Node:
    if value[:1] in ("{", "["):
        try:
            return _located(json.loads(value), origin)
        except ValueError:
            pass  # vLLM's parser will say what is wrong with it
    for kind in (int, float):
        try:
            return Node(kind(value), origin)
        except ValueError:
            continue
    return Node(value, origin)


def _located(value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        made = {key: _located(child, origin) for key, child in value.items()}
        return Node(made, origin, dict.fromkeys(made, origin))
    if isinstance(value, list):
        return Node([_located(child, origin) for child in value], origin)
    return Node(value, origin)
