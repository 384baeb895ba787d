"""From configuration to plan: instances, ranks, devices, ports, commands. Pure: no I/O.

Rules of ranks and ports follow omni-infer's deployment templates: prefill instance i has kv_rank
i, decode has P (the number of prefill instances); kv_parallel_size = P + 1; a decode host runs
one API server per tensor-parallel group of devices and its server_offset counts the devices of
the decode hosts before it; all address lists begin with the master.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Optional

from omnikit import plan_checks
from omnikit.arguments import check_references, fill
from omnikit.config import Config
from omnikit.container_plan import container_name
from omnikit.layers import PROJECT
from omnikit.node_commands import SERVER_FACTS, NodeCommands
from omnikit.plan_types import HostPlan, NodePlan, Plan, ProxyPlan, ServerPlan
from omnikit.topology_checks import (
    check_addresses,
    check_devices,
    check_hosts,
    check_names,
    check_profiled,
    check_shape,
)
from omnikit.topology_facts import endpoints, engine_places, rank_table, server, server_facts
from omnikit.topology_members import Group, Member, groups
from omnikit.topology_ports import GroupPorts, NodePorts, Ports

# Stands for the interface of the host's default route, which only the host knows.
HOST_INTERFACE = "${host.interface}"
PROXY_NAME = "c0"
_KV_ROLE = {"prefill": "kv_producer", "decode": "kv_consumer", "colocated": "kv_both"}


def make_plan(config: Config) -> Plan:
    """The plan of a configuration. Raises InputError that points at the setting at fault."""
    check_shape(config)
    check_hosts(config)
    plan = _Planner(config).plan()
    plan_checks.check(config, plan)
    return plan


def resolve_path(text: str, local: bool) -> str:
    """A configured path as the host sees it: on this machine, relative means below the project."""
    path = Path(text).expanduser() if local else Path(text)
    return str(path if path.is_absolute() else PROJECT / path)


def temp_dir(work_dir: str) -> str:
    """A short folder for sockets (their paths are limited to 108 bytes), one per work_dir."""
    return f"/tmp/omnikit-{hashlib.sha256(work_dir.encode()).hexdigest()[:10]}"


class _Planner:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = config.settings
        self.groups = groups(config)
        used = {m.host for group in self.groups for m in group.members}
        if self.settings.topology.proxy:
            used.add(self.settings.topology.proxy)
        self.used = [name for name in self.settings.hosts if name in used]
        self.local = all(self.settings.hosts[n].connection == "local" for n in self.used)
        self.commands: dict[tuple[str, int, str], NodeCommands] = {}

    def plan(self) -> Plan:
        check_names(self.config, self.groups, PROXY_NAME)
        check_profiled(self.config, self.groups)
        check_devices(self.config, self.groups)
        check_addresses(self.config, self.used)
        work_dir = self._path(self.settings.paths.work_dir, "paths", "work_dir")
        log_dir = self.settings.paths.log_dir
        self.log_dir = self._path(log_dir, "paths", "log_dir") if log_dir else f"{work_dir}/logs"
        traces = self.settings.profiling.dir
        self.profiles = self._path(traces, "profiling", "dir") if traces else f"{work_dir}/profiles"
        self.model_path = self._path(self.settings.model.path, "model", "path")
        hosts = self._hosts(work_dir)
        ports = Ports(self.config)
        shared = self._shared_facts()
        nodes = []
        for group in self.groups:
            group_ports = ports.group(group)
            facts = {**shared, **self._group_facts(group, group_ports)}
            for m in group.members:
                own = ports.node(m, group)
                nodes.append(self._node(m, hosts[m.host], group, group_ports, own, facts))
        return Plan(
            environment=self.config.environment,
            hosts=tuple(hosts.values()),
            nodes=tuple(nodes),
            proxy=self._proxy(nodes, hosts, ports),
            model_path=self.model_path,
            served_name=self.settings.model.served_name,
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
                temp_dir=temp_dir(work_dir),
                memory_mib=servers[name] * self.settings.engine.memory_per_server_mib,
            )
            for name in self.used
        }

    def _log_dir(self, name: str) -> str:
        return f"{self.log_dir}/{name}" if self.settings.paths.log_per_instance else self.log_dir

    def _address(self, m: Member) -> str:
        return self.settings.hosts[m.host].address

    def _shared_facts(self) -> dict[str, Any]:
        prefill_count = len(self.settings.topology.prefill)
        decode = [m for group in self.groups if group.role == "decode" for m in group.members]
        home, python = engine_places(self.settings, self._path)
        return {
            "model_path": self.model_path,
            "served_model_name": self.settings.model.served_name,
            "engine_venv": home,
            "engine_python": python,
            "kv_parallel_size": prefill_count + 1,
            "prefill_count": prefill_count,
            "decode_ips": ",".join(map(self._address, decode)),
        }

    def _container(self, role: str, node: str) -> str:
        return container_name(self.settings, self.config.environment, role, node)

    def _group_facts(self, group: Group, ports: GroupPorts) -> dict[str, Any]:
        kv_rank = len(self.settings.topology.prefill) if group.role == "decode" else group.index
        return {
            "role": group.role,
            "kv_rank": kv_rank,
            "kv_role": _KV_ROLE[group.role],
            "engine_id": str(kv_rank),
            "dp_size": group.server_count if group.role == "decode" else 1,
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
            "server_offset": m.offset,
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
        per_server = [server_facts(plan, m.offset) for plan in plans]
        commands = self._commands(m, facts)
        command, env = commands.shared(facts, per_server)
        own = commands.own(facts, per_server)
        return NodePlan(
            name=m.name,
            role=m.role,
            instance=m.index,
            host=m.host,
            address=host.address,
            node_rank=m.node_rank,
            kv_rank=facts["kv_rank"],
            devices=m.devices,
            server_offset=m.offset,
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
            files=commands.files(facts),
            ray=self._ray(group, m, facts),
            ray_wait=self._ray_wait(group, m, facts),
            servers=tuple(
                ServerPlan(**plan, own_args=mine.args, own_env=mine.env)
                for plan, mine in zip(plans[: m.server_count], own)
            ),
        )

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
        script = f"{facts['work_dir']}/scripts/wait_for_ray.py"
        docker = self.settings.runtime == "docker"
        return (
            *(self.settings.container.python if docker else "python3", script),
            *("--address", f"{facts['master_ip']}:{facts['ray_port']}"),
            *("--nodes", str(len(group.members)), "--resource", ray.resource),
            *("--amount", str(devices), "--deadline", f"{ray.deadline_s:g}"),
        )

    def _commands(self, m: Member, facts: dict[str, Any]) -> NodeCommands:
        if m.key not in self.commands:
            for key in ("command", "files"):  # what all servers of a node share
                check_references(m.settings.value[key], set(facts))
            check_references(m.settings, {*facts, *SERVER_FACTS})
            self.commands[m.key] = NodeCommands(m.server)
        return self.commands[m.key]

    def _proxy(
        self, nodes: list[NodePlan], hosts: dict[str, HostPlan], ports: Ports
    ) -> Optional[ProxyPlan]:
        name = self.settings.topology.proxy
        if name is None:
            return None
        host = hosts[name]
        return ProxyPlan(
            name=PROXY_NAME,
            host=name,
            address=host.address,
            listen_host=self.settings.proxy.listen_host,
            port=ports.proxy(host.address),
            prefill=endpoints(nodes, "prefill"),
            decode=endpoints(nodes, "decode") or endpoints(nodes, "colocated"),
            log_dir=self._log_dir(PROXY_NAME),
            run_dir=f"{host.temp_dir}/{PROXY_NAME}",
            container=self._container("proxy", PROXY_NAME),
        )
