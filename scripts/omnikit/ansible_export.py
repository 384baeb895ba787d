"""An environment for people who live in Ansible: inventory and playbook with the documented names.

The playbook imports the toolkit's own playbooks and the inventory carries what those need, so what
it does is what `invoke deploy` does. The documented host variables are there to be read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from omnikit import bundle, code_sync, fleet
from omnikit.config import Config
from omnikit.deploy_steps import STEPS
from omnikit.deployment import ARCHIVE, Deployment
from omnikit.plan_types import NodePlan

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
        f"archives/{host}/{ARCHIVE}": bundle.archive(rendered, code)
        for host, rendered in deployment.files.items()
    }
    archives = {host: out.resolve() / "archives" / host / ARCHIVE for host in deployment.files}
    title = (
        f"# written from environment {deployment.plan.environment}: write it again, not by hand\n"
    )
    inventory = _inventory(deployment, archives)
    plays = _playbook(deployment.config, chosen)
    made[INVENTORY] = (title + yaml.safe_dump(inventory, sort_keys=False)).encode()
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


def _inventory(deployment: Deployment, archives: Mapping[str, Path]) -> dict[str, Any]:
    plan, settings = deployment.plan, deployment.config.settings
    ours = fleet.inventory(plan, settings, archives)["all"]["hosts"]
    first: dict[str, NodePlan] = {}
    for node in plan.nodes:
        first.setdefault(node.host, node)
    children: dict[str, Any] = {}
    for host, node in first.items():
        group = children.setdefault(_GROUPS[node.role], {"hosts": {}})
        group["hosts"][host] = {**ours[host], **_documented(node)}
    if plan.proxy is not None:
        proxy = plan.proxy
        shown = {"node_rank": 0, "host_ip": proxy.address, "api_port": proxy.port}
        alone = {} if proxy.host in first else {**ours[proxy.host], **shown}
        children["C"] = {"hosts": {proxy.host: alone}}
        children["omnikit_proxy"] = {"children": {"C": {}}}
    return {"all": {"children": children}}


def _documented(node: NodePlan) -> dict[str, Any]:
    """The host variables that omni-infer's inventories have, with the planned values."""
    made: dict[str, Any] = {
        "node_rank": node.node_rank,
        "kv_rank": node.kv_rank,
        "node_port": node.master_port,
        "host_ip": node.master_ip if node.role == "decode" else node.address,
        "ascend_rt_visible_devices": ",".join(map(str, node.devices)),
    }
    if node.servers:
        made["api_port"] = node.servers[0].api_port
    return made


def _playbook(config: Config, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Our playbooks in the order of a deployment; what ends something only when asked for."""
    scripts = fleet.PLAYBOOKS.parent
    deploy = [sys.executable, str(scripts / "deploy_environment.py"), *chosen, "--yes", "--json"]
    here = {"omnikit_deploy": deploy, "omnikit_has_source": code_sync.is_wanted(config)}
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
        done[name] = state if bundle.write(path, data) else "unchanged"
        path.chmod(0o600)
    return done
