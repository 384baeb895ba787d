"""An environment for people who live in Ansible: inventory and playbook with the documented names.

The playbook imports the toolkit's own playbooks and the inventory carries what those need, so what
it does is what `invoke deploy` does. The documented variables say who serves what where; with what
stands beside them (foreign.own), the inventory reads back as the same plan.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.redact import Hidden
from hostkit.base.writing import write_private
from omnikit.config import layers
from omnikit.config.config import Config
from omnikit.fleet import bundle, direct_ssh, fleet
from omnikit.foreign import own
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.inventory.login import login
from omnikit.foreign.trees import is_secret
from omnikit.plan.types import NodePlan, Plan
from omnikit.prepare.deployment import ARCHIVE, Deployment
from omnikit.prepare.source_steps import STEPS
from omnikit.source import sync
from omnikit.yaml.node import Node, Origin

INVENTORY = "omni_infer_inventory.yml"
PLAYBOOK = "omni_infer_server.yml"

_GROUPS = {"prefill": "P", "decode": "D", "colocated": "S"}


def files(deployment: Deployment, out: Path, chosen: Sequence[str]) -> dict[str, bytes]:
    """Everything that is written, by path below out. Pure but for reading the host code.

    chosen: the options that chose the configuration, for what this machine does for all hosts.
    """
    import yaml

    code = bundle.host_code()
    made = {
        f"archives/{host}/{ARCHIVE}": bundle.archive(deployment.sent(host), code)
        for host in deployment.files
    }
    archives = {host: out.resolve() / "archives" / host / ARCHIVE for host in deployment.files}
    title = (
        f"# written from environment {deployment.plan.environment}: write it again, not by hand\n"
    )
    for name in left_out(deployment.config):
        title += f"# left out, since it looks like a secret: {name}\n"
    hosts = inventory(deployment.config, deployment.plan, archives)
    plays = _playbook(deployment.config, chosen)
    made[INVENTORY] = (title + yaml.safe_dump(hosts, sort_keys=False)).encode()
    made[PLAYBOOK] = (title + yaml.safe_dump(plays, sort_keys=False)).encode()
    config = (fleet.PLAYBOOKS / "ansible.cfg").read_text(encoding="utf-8")
    # Plain Ansible output for people; the toolkit's own events are for the toolkit.
    kept = [
        line
        for line in config.splitlines()
        if not line.startswith(("stdout_callback", "callback_plugins"))
    ]
    made["ansible.cfg"] = ("\n".join(kept) + "\n").encode()
    return made


def inventory(config: Config, plan: Plan, archives: Mapping[str, Path]) -> dict[str, Any]:
    """The inventory: an entry for each node and for the proxy, by the names that they have.

    Several entries may be one machine. The toolkit's playbooks run once on each: on its first.
    """
    ours = fleet.inventory(plan, config.settings, archives)["all"]["hosts"]
    for machine in plan.hosts:
        if machine.settings.password and not machine.local:
            ours[machine.name].update(direct_ssh.ansible_password(machine.name, config.settings))
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    first: dict[str, str] = {}
    others: dict[str, Any] = {}
    apis = {(n.role, n.instance): n.servers[0].api_port for n in plan.nodes if n.node_rank == 0}
    entries = [
        (_group(config, n), n.name, n.host, _documented(n, apis[n.role, n.instance]))
        for n in plan.nodes
    ]
    if plan.proxy is not None:
        shown = {"node_rank": 0, "host_ip": plan.proxy.address, "node_port": plan.proxy.port}
        entries.append((("C",), plan.proxy.name, plan.proxy.host, shown))
    for group, name, host, documented in entries:
        made = {**ours[host], **documented, **_machine(config, host, ours[host])}
        if first.setdefault(host, name) != name:
            others[name] = {}
        groups.setdefault(group, {})[name] = made
    for node in plan.nodes:
        server = config.tree.find(("topology", node.role, node.instance, "server"))
        if node.node_rank == 0 and server is not None and server.value:
            layered = own.by_layer(server.leaves(), layers.ENVIRONMENT)
            groups[_group(config, node)][node.name][own.SERVER] = layered
    children: dict[str, Any] = {}
    for (top, *below), nodes in groups.items():
        here = children.setdefault(top, {})
        for inner in below:
            here = here.setdefault("children", {}).setdefault(inner, {})
        here["hosts"] = nodes
    if plan.proxy is not None:
        children["omnikit_proxy"] = {"hosts": {first[plan.proxy.host]: {}}}
    children[fleet.OTHER_NAMES] = {"hosts": others}
    variables = {
        own.ENVIRONMENT: plan.environment,
        own.MACHINES: [host.name for host in plan.hosts],
        own.SETTINGS: _settings(config, plan),
    }
    return {"all": {"vars": variables, "children": children}}


def _group(config: Config, node: NodePlan) -> tuple[str, ...]:
    """The group of a node; of several decode instances each has one of its own in it: D0, D1, …"""
    group = _GROUPS[node.role]
    several = node.role == "decode" and len(config.settings.topology.decode) > 1
    return (group, f"D{node.instance}") if several else (group,)


def left_out(config: Config) -> list[str]:
    """Names of the settings that look like secrets and are not written."""
    found = [path for path, node in config.tree.leaves() if own.is_secret(path, node)]
    return [".".join(path) for path in found if path[0] not in ("hosts", "topology")]


def _settings(config: Config, plan: Plan) -> dict[str, Any]:
    """All settings that the environment has besides hosts and topology."""
    elsewhere = [("hosts",), ("topology",), *([("ports", "proxy")] if plan.proxy else [])]
    leaves = [
        (path, node)
        for path, node in config.tree.leaves()
        if not any(path[: len(start)] == start for start in elsewhere)
    ]
    made = own.by_layer(leaves, layers.ENVIRONMENT)
    profile = config.settings.profile.model_dump()
    return {**made, "environment": {**made.get("environment", {}), "profile": profile}}


def _machine(config: Config, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """A machine's name, and what Ansible's variables do not say of it, or say otherwise."""
    host = config.settings.hosts[name]
    origin = Origin(name)
    nodes = {
        key: Node(Hidden(value) if is_secret(key) else value, origin)
        for key, value in variables.items()
    }
    said = {k: node.plain() for k, node in login(Variables(name, nodes, {}), name, []).items()}
    said.pop("known_hosts", None)  # a setting of all hosts
    wanted = host.model_dump(exclude={"address", "server"}, exclude_none=True)
    if "literal" in wanted.get("password", {}):
        wanted["password"] = said.get("password")
    if not host.local:
        wanted.pop("connection")
    apart = {k: wanted.get(k) for k in {**said, **wanted} if said.get(k) != wanted.get(k)}
    made: dict[str, Any] = {own.MACHINE: name, **({own.HOST: apart} if apart else {})}
    server = config.tree.find(("hosts", name, "server"))
    if server is not None and server.value:
        made[own.HOST_SERVER] = own.by_layer(server.leaves(), layers.ENVIRONMENT)
    return made


def _documented(node: NodePlan, api_port: int) -> dict[str, Any]:
    """The host variables that omni-infer's inventories have, with the planned values.

    api_port: the instance's, for a node that has no server.
    """
    made: dict[str, Any] = {"node_rank": node.node_rank}
    if node.role != "decode":
        made["kv_rank"] = node.instance
    own_port = node.servers[0].api_port if node.servers else api_port
    made.update(node_port=node.master_port, api_port=own_port, host_ip=node.master_ip)
    # omni-infer's own name for devices that count up by one, as its tools want them.
    counts_up = all(b - a == 1 for a, b in zip(node.devices, node.devices[1:])) and node.devices
    name = "ascend_rt_visible_devices" if counts_up else own.DEVICES
    return {**made, name: ",".join(map(str, node.devices))}


def _playbook(config: Config, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Our playbooks in the order of a deployment; what ends something only when asked for."""
    scripts = fleet.PLAYBOOKS.parent
    deploy = [sys.executable, str(scripts / "deploy.py"), *chosen, "--yes", "--json"]
    here = {"omnikit_deploy": deploy, "omnikit_has_source": sync.is_wanted(config)}
    fetch = {"omnikit_fetch": [sys.executable, str(scripts / "fetch_logs.py"), *chosen]}

    def play(
        name: str, playbook: str, *tags: str, variables: Optional[dict[str, Any]] = None
    ) -> dict[str, Any]:
        path = str(fleet.PLAYBOOKS / playbook)
        made = {"name": name, "ansible.builtin.import_playbook": path, "tags": list(tags)}
        return {**made, "vars": variables} if variables else made

    docker = config.settings.runtime == "docker"
    return [
        play("Ship what a deployment needs and look", "look.yml", *STEPS),
        *([play("Run the containers", "run_docker.yml")] if docker else []),
        play("Copy the source and install from it", "source_steps.yml", variables=here),
        play("Run the servers and the proxy", "run_server.yml"),
        play("Stop what was started", "stop_server.yml", "stop_server", "never"),
        play("Fetch the logs", "collect_logs.yml", "fetch_log", "never", variables=fetch),
        play("Remove what was deployed", "clean_up.yml", "clean_up", "never"),
    ]


def write(deployment: Deployment, out: Path, chosen: Sequence[str]) -> dict[str, str]:
    """Write what differs: created, rewritten or unchanged, by path."""
    done = {}
    for name, data in files(deployment, out, chosen).items():
        path = out / name
        state = "rewritten" if path.is_file() else "created"
        done[name] = state if write_private(path, data) else "unchanged"
    return done
