"""From configuration to plan: instances, ranks, devices, ports, commands. Pure: no I/O.

Rules of ranks and ports follow omni-infer's deployment templates: prefill instance i has kv_rank
i, decode has P (the number of prefill instances); kv_parallel_size = P + 1; a decode host runs
one API server per tensor-parallel group of devices and its server_offset counts the devices of
the decode hosts before it; all address lists begin with the master. A prefill instance over
several hosts has one server, whose ranks Ray places: its server_offset is 0 on every host.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Mapping, Optional

from hostkit.base.errors import InputError
from omnikit.config.config import Config
from omnikit.config.layers import ENVIRONMENT, resolve_path
from omnikit.config.schema import Host, Secret, Server, Settings
from omnikit.plan import checks
from omnikit.plan.arguments import SERVER_FACTS, NodeCommands, check_references, fill, references
from omnikit.plan.containers import container_name
from omnikit.plan.types import HostPlan, NodePlan, Plan, ProxyPlan, ServerPlan
from omnikit.topology.checks import (
    check_addresses,
    check_devices,
    check_hosts,
    check_names,
    check_profiled,
    check_shape,
)
from omnikit.topology.members import Group, Member, Overrides, groups
from omnikit.topology.ports import (
    GroupPorts,
    NodePorts,
    Ports,
    endpoints,
    engine_places,
    rank_table,
    server,
    server_facts,
)

# Where on a host the folders are that only runs need: sockets, and what a proxy writes.

# Of root, who alone can write above it. Not /run: it is small there, and often without programs
# (noexec), which engines compile in their folder for temporary files.
_ROOTS = "/var/lib/omnikit"
_LONG = 60  # bytes of a work directory that leave no room for sockets in a run folder below it


def runs(settings: Settings, host: Host, work_dir: str) -> Optional[str]:
    """The folder above run folders that is nobody else's; None: it is the work directory.

    Root has a place of its own, a user of this machine one at home. Containers see the work
    directory, and root's place where that has a long path; of a user behind SSH nothing else is
    known.
    """
    if settings.paths.run_dir is not None:
        return settings.paths.run_dir
    local = host.local
    # SSH's own choice is who we are.
    root = os.geteuid() == 0 if local or host.user is None else host.user == "root"
    if settings.runtime == "docker":
        return _ROOTS if root and len(os.fsencode(work_dir)) > _LONG else None
    if root:
        return _ROOTS
    return _at_home() if local else None


def _at_home() -> Optional[str]:
    home = Path("~").expanduser()
    with suppress(OSError):
        if home.is_absolute() and home.stat().st_uid == os.geteuid():
            state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
            return str(state / "omnikit")
    return None


# Stands for the interface of the host's default route, which only the host knows.
HOST_INTERFACE = "${host.interface}"
# Stands for the folder of what servers compile, which the host chooses when it starts them.
HOST_CACHE = "${host.cache}"
PROXY_NAME = "c0"
INTERNAL_KEY = "internal_key"  # file of the servers' key below bundle/
_LONGEST = 107 - 37  # bytes of a socket's path, less the name that an engine gives it
_KV_ROLE = {"prefill": "kv_producer", "decode": "kv_consumer", "colocated": "kv_both"}


def make_plan(config: Config) -> Plan:
    """The plan of a configuration. Raises InputError that points at the setting at fault."""
    check_shape(config)
    check_hosts(config)
    planner = _Planner(config)
    plan = planner.plan()
    checks.check(config, plan, planner.errors)
    return replace(plan, notes=(*plan.notes, *checks.notes(config, plan)))


def _is_ip(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def temp_dir(settings: Settings, host: Host, work_dir: str) -> str:
    """A folder for sockets and what else only runs need, one per work_dir."""
    above = runs(settings, host, work_dir)
    if above is None:
        return f"{work_dir}/run"
    name = hashlib.sha256(work_dir.encode()).hexdigest()[:10]
    return f"{resolve_path(above, host.local)}/{name}"


class _Planner:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = config.settings
        self.places = groups(config)  # with those that are taken out, whose ports stay theirs
        self.groups = [group for group in self.places if not group.entry.out]
        used = {m.host for group in self.groups for m in group.members}
        if self.settings.topology.proxy:
            used.add(self.settings.topology.proxy)
        self.used = [name for name in self.settings.hosts if name in used]
        self.local = all(self.settings.hosts[n].local for n in self.used)
        self.commands: dict[tuple[str, int, str], NodeCommands] = {}
        self.overrides = Overrides(config)
        self.errors: list[InputError] = []  # told together with those of the whole plan

    def plan(self) -> Plan:
        check_names(self.config, self.groups, PROXY_NAME)
        check_profiled(self.config, self.groups)
        check_devices(self.config, self.groups)
        check_addresses(self.config, self.used)
        work_dir = self._path(self.settings.paths.work_dir, "paths", "work_dir")
        if self.settings.paths.run_dir:
            self._path(self.settings.paths.run_dir, "paths", "run_dir")
        log_dir = self.settings.paths.log_dir
        self.log_dir = self._path(log_dir, "paths", "log_dir") if log_dir else f"{work_dir}/logs"
        traces = self.settings.profiling.dir
        self.profiles = self._path(traces, "profiling", "dir") if traces else f"{work_dir}/profiles"
        self.model_path = self._path(self.settings.model.path, "model", "path")
        hosts = self._hosts(work_dir)
        ports = Ports(self.config, self.places)
        shared = self._shared_facts()
        nodes = []
        for group in self.groups:
            group_ports = ports.group(group)
            facts = {**shared, **self._group_facts(group, group_ports)}
            for m in group.members:
                own = ports.node(m)
                nodes.append(self._node(m, hosts[m.host], group, group_ports, own, facts))
        return Plan(
            environment=self.config.environment,
            hosts=tuple(hosts.values()),
            nodes=tuple(nodes),
            proxy=self._proxy(nodes, hosts),
            model_path=self.model_path,
            served_name=self.settings.model.served_name,
            notes=tuple(ports.notes),
        )

    def _path(self, text: str, *setting: str) -> str:
        if not self.local and not Path(text).is_absolute():
            raise self.config.error(
                f"found {text!r}, a host behind SSH needs an absolute path.", *setting
            )
        return resolve_path(text, self.local)

    def _hosts(self, work_dir: str) -> dict[str, HostPlan]:
        servers = dict.fromkeys(self.used, 0)
        for group in self.groups:
            for m in group.members:
                servers[m.host] += m.server_count
        return {
            name: HostPlan(
                name=name,
                address=self.settings.hosts[name].address,
                settings=self.settings.hosts[name],
                work_dir=work_dir,
                temp_dir=temp_dir(self.settings, self.settings.hosts[name], work_dir),
                memory_mib=servers[name] * self.settings.engine.memory_per_server_mib,
            )
            for name in self.used
        }

    def _log_dir(self, name: str) -> str:
        return f"{self.log_dir}/{name}" if self.settings.paths.log_per_instance else self.log_dir

    def _address(self, m: Member) -> str:
        return self.settings.hosts[m.host].address

    def _counted(self, role: str) -> list[Group]:
        """The instances of a role that are counted: one that is taken out keeps its number, unless
        rank tables list who is there.
        """
        there = self.groups if self.settings.engine.rank_tables else self.places
        return [group for group in there if group.role == role]

    def _shared_facts(self) -> dict[str, Any]:
        prefill_count = len(self._counted("prefill"))
        decode = [group.members for group in self._counted("decode")]
        # As omni-infer lists them for prefill: each further master before the ones so far.
        masters = [members[0] for members in reversed(decode)]
        others = [m for members in decode for m in members[1:]]
        home, python = engine_places(self.settings, self._path)
        code = self.settings.paths.code_dir
        places = {} if code is None else {"code_dir": self._path(code, "paths", "code_dir")}
        return {
            **places,
            "model_path": self.model_path,
            "placement": self.settings.model.placement,
            "served_model_name": self.settings.model.served_name,
            "engine_venv": home,
            "engine_python": python,
            "kv_parallel_size": prefill_count + 1,
            "prefill_count": prefill_count,
            "decode_count": len(decode),
            **self._sizes(),
            "decode_ips": ",".join(map(self._address, [*masters, *others])),
        }

    def _sizes(self) -> dict[str, int]:
        """What connectors are told of both roles: sizes of an instance, equal for all of a role."""
        made: dict[str, int] = {}
        for group in reversed(self.groups):  # of several, the first says it
            if group.role != "colocated":
                made[f"{group.role}_dp_size"] = group.dp_size
                made[f"{group.role}_tp_size"] = group.members[0].tensor_parallel
        return made

    def _container(self, role: str, node: str) -> str:
        return container_name(self.settings, self.config.environment, role, node)

    def _group_facts(self, group: Group, ports: GroupPorts) -> dict[str, Any]:
        counted = self._counted("prefill" if group.role == "decode" else group.role)
        own = [one.index for one in counted]
        kv_rank = len(own) if group.role == "decode" else own.index(group.index)
        return {
            "role": group.role,
            "kv_rank": kv_rank,
            "kv_role": _KV_ROLE[group.role],
            "engine_id": kv_rank,
            "dp_size": group.dp_size,
            "external_dp_size": group.dp_size if group.dp_size > 1 else None,
            "instance_devices": sum(len(m.devices) for m in group.members),
            "instance_ips": ",".join(map(self._address, group.members)),
            "master_ip": self._address(group.members[0]),
            "master_port": ports.master,
            "ray_port": ports.ray,
        }

    def _node_facts(
        self, m: Member, host: HostPlan, group: Group, ports: NodePorts
    ) -> dict[str, Any]:
        return {
            "node_name": m.name,
            "interface": self.settings.hosts[m.host].interface or HOST_INTERFACE,
            "bundle_dir": f"{host.work_dir}/bundle/{m.name}",
            "ranktable_dir": f"{host.work_dir}/bundle/ranktable",
            "rank_table": rank_table(host.address, m, len(group.members)),
            "host_ip": host.address,
            "node_rank": m.node_rank,
            "tp_size": m.tensor_parallel,
            "devices": ",".join(map(str, m.devices)),
            "server_offset": 0 if m.servers == "instance" else m.offset,
            "kv_base": ports.kv_base,
            "zmq_port": ports.zmq,
            "hccl_base": ports.hccl,
            "log_dir": self._log_dir(m.name),
            "temp_dir": f"{host.temp_dir}/{m.name}",
            "work_dir": host.work_dir,
            "profile_dir": f"{self.profiles}/{m.name}",
            "profile_steps": self.settings.profiling.steps,
            "profile_tokens": self.settings.profiling.token_threshold,
        }

    def _node(
        self,
        m: Member,
        host: HostPlan,
        group: Group,
        group_ports: GroupPorts,
        ports: NodePorts,
        group_facts: dict[str, Any],
    ) -> NodePlan:
        facts = {**group_facts, **self._node_facts(m, host, group, ports)}
        plans = [server(m, k, ports) for k in range(max(1, m.server_count))]
        per_server = [server_facts(plan, m.offset, facts["dp_size"]) for plan in plans]
        commands = self._commands(m, facts)
        command, env = commands.shared(facts, per_server)
        own = commands.own(facts, per_server)
        files = commands.files(facts)
        prepend = commands.prepend(facts)
        guarded = self.settings.proxy.internal_key is not None and m.server_count > 0
        if guarded:  # see hostkit.access.guard, which the server itself loads
            command = (*command, "--middleware", "hostkit.access.guard.Guard")
            before = prepend.get("PYTHONPATH")
            scripts = f"{host.work_dir}/scripts"
            prepend["PYTHONPATH"] = f"{scripts}:{before}" if before else scripts
        if m.server_count:
            self.errors += self.overrides.check(m, facts, per_server)
        return NodePlan(
            name=m.name,
            role=m.role,
            instance=m.index,
            host=m.host,
            address=host.address,
            node_rank=m.node_rank,
            kv_rank=facts["kv_rank"],
            devices=m.devices,
            server_offset=facts["server_offset"],
            tensor_parallel=m.tensor_parallel,
            dp_size=facts["dp_size"],
            master_ip=facts["master_ip"],
            master_port=group_ports.master,
            zmq_port=ports.zmq,
            hccl_base=ports.hccl,
            ray_port=group_ports.ray,
            log_dir=facts["log_dir"],
            temp_dir=facts["temp_dir"],
            profile_dir=facts["profile_dir"],
            container=self._container(m.role, m.name),
            command=command if m.server_count else (),
            env=env,
            secrets=commands.secrets,
            prepend=prepend,
            workdir=commands.workdir(facts),
            files=files,
            ray=self._ray(group, m, facts),
            ray_wait=self._ray_wait(group, m, facts),
            placement_check=self._placement_check(m, files, facts),
            servers=tuple(
                ServerPlan(**plan, own_args=mine.args, own_env=mine.env)
                for plan, mine in zip(plans[: m.server_count], own)
            ),
            listeners=ports.listeners,
            key_file=f"{host.work_dir}/bundle/{INTERNAL_KEY}" if guarded else "",
            prepare=commands.prepare(facts) if m.server_count else (),
            compiled=self._compiled(m, commands, facts),
        )

    def _compiled(self, m: Member, commands: NodeCommands, facts: dict[str, Any]) -> dict[str, Any]:
        caches = self.settings.caches
        if not caches.use:
            return {}
        devices = {
            "kind": self.settings.engine.device_kind,
            "count": len(m.devices),
            "tensor_parallel": m.tensor_parallel,
        }
        made = commands.compiled(facts, caches.ignore)
        return {**made, "devices": devices, "model": facts["model_path"]}

    def _ray(self, group: Group, m: Member, facts: dict[str, Any]) -> tuple[str, ...]:
        if not self.config.on_ray(group.role, group.index):
            return ()
        words = self.settings.ray.worker if m.node_rank else self.settings.ray.head
        return tuple(str(fill(word, facts)) for word in words)

    def _ray_wait(self, group: Group, m: Member, facts: dict[str, Any]) -> tuple[str, ...]:
        """The command that returns when every host of the instance has joined with its devices."""
        if not m.server_count or not self.config.on_ray(group.role, group.index):
            return ()
        ray = self.settings.ray
        devices = sum(len(member.devices) for member in group.members)
        return (
            *self._script("wait_for_ray.py", facts),
            *("--address", f"{facts['master_ip']}:{facts['ray_port']}"),
            *("--nodes", str(len(group.members)), "--resource", ray.resource),
            *("--amount", str(devices), "--deadline", f"{ray.deadline_s:g}"),
        )

    def _placement_check(
        self, m: Member, files: dict[str, Any], facts: dict[str, Any]
    ) -> tuple[str, ...]:
        """The command that fails where omni_placement's files do not fit; () where it is off."""
        told = checks.operators(files)
        if not m.server_count or told.get("use_omni_placement") is not True:
            return ()
        return (
            *self._script("check_placement.py", facts),
            *("--file", str(told.get("omni_placement_config_path", ""))),
            *("--devices", str(facts["dp_size"] * m.tensor_parallel)),
        )

    def _script(self, name: str, facts: dict[str, Any]) -> tuple[str, str]:
        """A shipped script, run where the servers are."""
        docker = self.settings.runtime == "docker"
        python = self.settings.container.python if docker else "python3"
        return python, f"{facts['work_dir']}/scripts/{name}"

    def _commands(self, m: Member, facts: dict[str, Any]) -> NodeCommands:
        if m.key not in self.commands:
            self._check_code_dir(m)
            for key in (
                "command",
                "prepend",
                "workdir",
                "prepare",
                "files",
            ):  # what all servers of a node share
                check_references(m.settings.value[key], set(facts))
            check_references(m.settings, {*facts, *SERVER_FACTS})
            self._check_sockets(m, facts)
            variables = {one.flag: one.variable for one in self.settings.engine.secret_flags}
            self._check_secret_flags(m, variables)
            self.commands[m.key] = NodeCommands(self._with_caches(m), variables)
        return self.commands[m.key]

    def _with_caches(self, m: Member) -> Server:
        """Its settings; the variables of caches lead to the folder that the host chooses, but for
        one that the user's own files set.
        """
        caches = self.settings.caches
        if not caches.use:
            return m.server
        if not caches.variables:
            raise self.config.error(
                "no variable of this engine is known that names a folder for what it compiles.",
                *("caches", "variables"),
                todo="name them: --set 'caches.variables=[VLLM_CACHE_ROOT]'; or caches.use=false",
            )
        given = m.settings.value["env"]
        set_ = {name: given.child(name) for name in caches.variables}
        own = {name for name, node in set_.items() if node and node.origin.layer >= ENVIRONMENT}
        places = {name: f"{HOST_CACHE}/{name}" for name in caches.variables if name not in own}
        return m.server.model_copy(update={"env": {**m.server.env, **places}})

    def _check_secret_flags(self, m: Member, variables: Mapping[str, str]) -> None:
        """A command line can be read by every user of the host: no secret may stand on it."""
        for flag, value in m.server.args.items():
            if isinstance(value, Secret) and flag not in variables:
                raise InputError(
                    f"server.args.{flag}: this engine takes --{flag} from its command line alone,"
                    " which every user of the host can read: no secret may stand there.",
                    where=str(m.settings.at(("args", flag)).origin),
                    todo="give the secret in a variable that the engine reads (server.env), or name"
                    f" the one that it reads in place of --{flag}: engine.secret_flags",
                )

    def _check_sockets(self, m: Member, facts: dict[str, Any]) -> None:
        """An engine whose temporary files go to the run folder makes its sockets there."""
        used = "temp_dir" in references(m.settings.value["env"].plain())
        if used and len(facts["temp_dir"].encode()) > _LONGEST:
            raise self.config.error(
                f"{facts['temp_dir']} is too long for the sockets of {m.name} in it:"
                f" {_LONGEST} bytes at the most.",
                *("paths", "run_dir"),
                todo="name a folder with a shorter path: paths.run_dir",
            )

    def _check_code_dir(self, m: Member) -> None:
        if self.settings.paths.code_dir is None and "code_dir" in references(m.settings.plain()):
            raise self.config.error(
                f"no folder is set, but settings of {m.name} name ${{plan.code_dir}}.",
                *("paths", "code_dir"),
                todo="say where omni-infer's source is on the hosts or in the image, or choose the"
                " release, which knows: profile.omni_version",
            )

    def _proxy(self, nodes: list[NodePlan], hosts: dict[str, HostPlan]) -> Optional[ProxyPlan]:
        name = self.settings.topology.proxy
        if name is None:
            return None
        host = hosts[name]
        return ProxyPlan(
            name=PROXY_NAME,
            host=name,
            address=host.address,
            listen_host=self.settings.proxy.listen_host,
            port=self.settings.ports.proxy,
            prefill=endpoints(nodes, "prefill"),
            decode=endpoints(nodes, "decode") or endpoints(nodes, "colocated"),
            max_num_seqs=checks.max_num_seqs(nodes),
            instances=dict(Counter(group.role for group in self.groups)),
            log_dir=self._log_dir(PROXY_NAME),
            run_dir=f"{host.temp_dir}/{PROXY_NAME}",
            container=self._container("proxy", PROXY_NAME),
            metrics_from=tuple(self._metrics_from(hosts)),
        )

    def _metrics_from(self, hosts: dict[str, HostPlan]) -> list[str]:
        given = self.settings.proxy.metrics_from
        if given is not None:
            return given
        addresses = dict.fromkeys(host.address for host in hosts.values())
        return [one for one in addresses if one not in ("127.0.0.1", "::1") and _is_ip(one)]
