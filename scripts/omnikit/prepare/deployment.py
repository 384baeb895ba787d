"""A configuration made ready to act on: rendered files, secrets, archives, inventory."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Mapping, Optional

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from hostkit.base.writing import private_folder, write_private
from hostkit.containers.profile import Profile, words
from hostkit.nodes import caches, history, proxy_run
from omnikit import proxy
from omnikit.access import targets
from omnikit.access.targets import in_url
from omnikit.config import layers
from omnikit.config.config import Config, read_secret
from omnikit.config.schema import Secret, Settings
from omnikit.fleet import bundle, fleet, render
from omnikit.plan import connectors
from omnikit.plan import containers as plan_containers
from omnikit.plan.types import HostPlan, NodePlan, Plan, ProxyPlan, reachable
from omnikit.topology.topology import INTERNAL_KEY, make_plan

# Secrets of a host on their way there: read late, in files for one user, on no command line.
#
# Rendered files have none: they are shown, compared and kept. These files are shipped beside them,
# and host.json tells by fingerprints which secrets are in use.

FILE = "secrets.env"  # of a node, read by its start script
_ROUNDS = 100_000  # nobody tries passwords out on what is left of them in a fingerprint


def sent(plan: Plan, host: str, settings: Settings, rendered: Mapping[str, str]) -> dict[str, str]:
    """All files that a host is sent: what was rendered, or is of a release, and the secrets of now.

    Raises InputError for a secret that cannot be read.
    """
    secrets = {name: one.reveal() for name, one in _files(plan, host, settings).items()}
    return {**_sealed(rendered, secrets, plan.environment), **secrets}


def _files(plan: Plan, host: str, settings: Settings) -> dict[str, Hidden]:
    nodes = plan.on_host(host)
    made = {f"{node.name}/{FILE}": _variables(node) for node in nodes if node.secrets}
    if any(node.key_file for node in nodes):
        made[INTERNAL_KEY] = Hidden(targets.internal(settings) + "\n")
    if plan.proxy is not None and plan.proxy.host == host:
        text = targets.proxy_file(settings)
        if text is not None:
            made[f"{plan.proxy.name}/{targets.PROXY_FILE}"] = text
    told = _hooks(settings)
    return {**made, history.HOOKS: told} if told else made


def _hooks(settings: Settings) -> Optional[Hidden]:
    """Who is told of changes, as hosts read it; None: nobody. It restarts nothing.

    Raises InputError for a secret that cannot be read or is no address.
    """
    hooks = settings.hooks
    webhook, authorization = hooks.webhook, hooks.authorization
    if not hooks.command and webhook is None:
        return None
    if isinstance(webhook, Secret):
        webhook = read_secret(webhook, "hooks.webhook").strip()
        if not re.fullmatch(r"https?://[^\s/]+\S*", webhook):
            raise InputError("what is there is no address of the web.", where="hooks.webhook")
    made = {
        "command": hooks.command,
        "webhook": webhook,
        "authorization": authorization
        and read_secret(authorization, "hooks.authorization").strip(),
        "timeout_s": hooks.timeout_s,
    }
    return Hidden(json.dumps(made, indent=1) + "\n")


def _variables(node: NodePlan) -> Hidden:
    lines = [f"# secrets of {node.name}: generated with its start script"]
    for name, secret in sorted(node.secrets.items()):
        value = read_secret(secret, f"server.env.{name} of {node.name}")
        lines.append(f"export {name}={shlex.quote(value)}")
    return Hidden("\n".join(lines) + "\n")


def _sealed(
    rendered: Mapping[str, str], secrets: Mapping[str, str], salt: str
) -> Mapping[str, str]:
    """host.json tells which secrets are in use: other ones restart a node, or are taken over by the
    proxy.
    """
    if not secrets:
        return rendered
    data = json.loads(rendered["host.json"])
    for node in data["nodes"]:
        proxys = secrets.get(f"{node['name']}/{targets.PROXY_FILE}")
        if proxys is not None:  # compared with the file that runs, as the proxy's others are
            node["files"][targets.PROXY_FILE] = hashlib.sha256(proxys.encode()).hexdigest()
        used = [_fingerprint(secrets[name], salt) for name in _used(node) if name in secrets]
        if used:
            node["secrets"] = used
    return {**rendered, "host.json": json.dumps(data, indent=1, ensure_ascii=False) + "\n"}


def _used(node: Mapping[str, Any]) -> list[str]:
    guarded = any(server.get("key_file") for server in node["servers"])
    return [f"{node['name']}/{FILE}", *([INTERNAL_KEY] if guarded else [])]


@lru_cache(maxsize=256)
def _fingerprint(text: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt.encode(), _ROUNDS).hex()


# host.json: what the code on a host needs to know, as data. Pure.

Files = dict[str, str]


def host_files(
    plan: Plan,
    host: HostPlan,
    settings: Settings,
    inputs: Mapping[str, str],
    proxy_found: Any,
    tables: Mapping[str, str],
) -> Files:
    """All rendered files of one host by path below bundle/, host.json among them.

    inputs: fingerprints of what the servers use but the files do not contain (engine, model):
    when one changes, the servers are restarted. tables: the host's rank tables by path below
    ranktable/; they too are among what the servers were started with.
    """
    containers = plan_containers.host_specs(settings, plan, host)
    ranks = {f"ranktable/{name}": text for name, text in tables.items()}
    files: Files = dict(ranks)
    nodes = []
    # No part of a digest: what runs is told anew by the file.
    again = {"restart": rule} if (rule := _restart_rule(settings)) else {}
    for node in plan.on_host(host.name):
        if not (node.servers or node.ray):
            continue
        profile = containers.get(node.container, {}).get("profile")
        secrets = f"{host.work_dir}/bundle/{node.name}/{FILE}"
        cache = f"{host.work_dir}/{caches.FOLDER}/{caches.OF}/{node.name}"
        script = render.start_script(plan.environment, node, profile, secrets, cache)
        own = {f"{node.name}/start.sh": script}
        for name, data in node.files.items():
            own[f"{node.name}/{name}"] = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        files.update(own)
        made_node = _node(node, host, settings, {**own, **ranks}, inputs)
        nodes.append({**made_node, **_with_partners(again, plan, node)})
    if plan.proxy is not None and plan.proxy.host == host.name:
        version = connectors.version(settings, plan, inputs) if plan.disaggregated else ""
        spec = replace(proxy_spec(plan.proxy, settings, host, proxy_found), version=version)
        made = proxy.files(spec, plan.environment)
        own = {f"{plan.proxy.name}/{name}": text for name, text in made.items()}
        files.update(own)
        profile = containers.get(plan.proxy.container, {}).get("profile")
        nodes.append({**_proxy_node(plan.proxy, spec, own, host, profile), **again})
        if settings.proxy.tls.certificate is not None:
            nodes[-1]["tls"] = settings.proxy.tls.model_dump(include={"certificate", "key"})
    data = {
        "format": 1,
        "environment": plan.environment,
        "host": host.name,
        "work_dir": host.work_dir,
        "temp_dir": host.temp_dir,
        "deadline_s": settings.readiness.deadline_s,
        "poll_interval_s": settings.readiness.poll_interval_s,
        "request_timeout_s": settings.readiness.request_timeout_s,
        "grace_s": settings.stop.grace_s,
        "log_tail_lines": settings.fleet.log_tail_lines,
        "logs": {"bytes": settings.logs.max_mib << 20, "files": settings.logs.files},
        "metrics": settings.metrics.model_dump(),
        "devices": sorted({device for node in plan.on_host(host.name) for device in node.devices}),
        "ranktable": settings.ranktable.model_dump(),
        "containers": containers,
        "container_python": settings.container.python,
        "nodes": nodes,
    }
    boot = settings.restart.boot
    if boot == "systemd" or (boot == "auto" and not host.local):
        data["boot"] = boot
    files["host.json"] = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    return files


_ALL_SEE_S = 15.0  # within which the parts on other hosts see that one has gone


def _restart_rule(settings: Settings) -> Optional[dict[str, Any]]:
    """How a node is started again after a death; None: it is not."""
    rule = settings.restart
    if rule.policy != "on-failure":
        return None
    steps = settings.proxy.stall_metric
    return {**rule.model_dump(exclude={"policy", "boot"}), "steps": steps}


def _with_partners(
    again: Mapping[str, dict[str, Any]], plan: Plan, node: NodePlan
) -> Mapping[str, dict[str, Any]]:
    """The rule of a node that may be a part of an instance over several hosts. A part stays down
    until the others have seen it.
    """
    if not again or not plan.is_part(node):
        return again
    others = [
        [other.name, other.address, one.port]
        for other in plan.nodes
        if (other.role, other.instance) == (node.role, node.instance) and other.name != node.name
        for one in other.listeners
        if one.kind in ("api", "ray")
    ]
    rule = again["restart"]
    least = {key: max(rule[key], _ALL_SEE_S) for key in ("delay_s", "delay_max_s")}
    return {"restart": {**rule, **least, "partners": others}}


def _digest(own: Files, node: dict[str, Any], inputs: Mapping[str, str]) -> str:
    text = json.dumps([sorted(own.items()), node, sorted(inputs.items())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _node(
    node: NodePlan, host: HostPlan, settings: Settings, own: Files, inputs: Mapping[str, str]
) -> dict[str, Any]:
    script = f"{host.work_dir}/bundle/{node.name}/start.sh"
    ports = [
        [node.address, one.port + k]
        for kind in ("api", "kv", "ray")
        for one in node.listeners
        if one.kind == kind
        for k in range(one.count)
    ]
    requires = [[f"{_model_path(node)}/config.json", "the model"]] if _model_path(node) else []
    if node.command and node.command[0].startswith("/") and not node.container:
        requires.append([node.command[0], "the engine"])
    made: dict[str, Any] = {
        "name": node.name,
        "role": node.role,
        "log_dir": node.log_dir,
        "temp_dir": node.temp_dir,
        "container": node.container,
        "memory_mib": settings.engine.memory_per_server_mib * len(node.servers),
        "ports": ports,
        "requires": requires,
        "source_dir": _source_dir(host, settings),
        "servers": [
            *_ray_server(node, script),
            *(
                {
                    "name": server.name,
                    "argv": ["bash", script, str(server.local_rank)],
                    "log": f"{node.log_dir}/server_{server.local_rank}.log",
                    "address": node.address,
                    "port": server.api_port,
                    "url": f"http://{in_url(node.address)}:{server.api_port}",
                    "health": "/health",
                    "model": settings.model.served_name,
                    **({"key_file": node.key_file} if node.key_file else {}),
                }
                for server in node.servers
            ),
        ],
    }
    if node.compiled:
        made["cache"] = {
            "variables": settings.caches.variables,
            "ranks": sorted({server.dp_rank for server in node.servers}),
            "inputs": node.compiled,
        }
    return {**made, "digest": _digest(own, made, inputs)}


def _source_dir(host: HostPlan, settings: Settings) -> Optional[str]:
    """The source's copy that the servers use; None where nothing is copied."""
    paths = settings.paths
    if paths.local_code_dir is None or paths.code_dir is None:
        return None
    return host.path(paths.code_dir)


def _ray_server(node: NodePlan, script: str) -> list[dict[str, Any]]:
    """A node's part of its instance's Ray cluster: it is ready as long as it runs."""
    if not node.ray:
        return []
    return [
        {
            "name": f"{node.name}.ray",
            "argv": ["bash", script, "ray"],
            "log": f"{node.log_dir}/ray.log",
            "address": node.address,
            "port": node.ray_port,
            "url": "",
            "health": None,
            "model": None,
        }
    ]


def _model_path(node: NodePlan) -> str:
    """The model's folder as the command names it: after --model, or as an argument of serve."""
    words = node.command
    for flag in ("--model", "serve"):
        if flag in words[:-1]:
            path = words[words.index(flag) + 1]
            return path if path.startswith("/") else ""
    return ""


def proxy_spec(plan: ProxyPlan, settings: Settings, host: HostPlan, found: Any) -> proxy.ProxySpec:
    """What omnikit.proxy needs to know; found: the installed kind and its programs."""
    values = settings.proxy.model_dump(exclude={"kind", "listen_host", "venv", "install_timeout_s"})
    values.update(metrics_from=plan.metrics_from, running_metric=settings.metrics.running)
    values.update({key: value for key, value in found.items() if key != "kind"})
    return proxy.ProxySpec(
        kind=found["kind"],
        listen_host=plan.listen_host,
        listen_port=plan.port,
        prefill=plan.prefill,
        decode=plan.decode,
        run_dir=plan.run_dir,
        log_dir=plan.log_dir,
        settings={**values, "max_num_seqs": plan.max_num_seqs, "instances": plan.instances},
        address=reachable(plan.listen_host, plan.address),
    )


def _proxy_node(
    plan: ProxyPlan, spec: proxy.ProxySpec, own: Files, host: HostPlan, profile: Optional[Profile]
) -> dict[str, Any]:
    address = reachable(plan.listen_host, plan.address)
    scheme = "https" if spec.settings["tls"]["certificate"] else "http"
    made: dict[str, Any] = {
        "name": plan.name,
        "role": "proxy",
        "log_dir": plan.log_dir,
        "temp_dir": plan.run_dir,
        "container": plan.container,
        "seed_dir": f"{host.work_dir}/bundle/{plan.name}" if own else None,
        "memory_mib": 0,
        "ports": [[plan.listen_host, plan.port]],
        "requires": [],
        "programs": proxy.programs(spec),
        "servers": [
            {
                "name": plan.name,
                "argv": words(profile, f"container {plan.container}", proxy.command(spec)),
                "log": f"{plan.log_dir}/proxy.log",
                "address": address,
                "port": plan.port,
                "url": f"{scheme}://{in_url(address)}:{plan.port}",
                "health": proxy.health_path(spec),
                "model": None,
            }
        ],
    }
    if proxy.reload_command(spec) is None:
        return {**made, "digest": _digest(own, made, {})}
    # Other files need no restart: the running one takes them over.
    texts = {name.partition("/")[2]: text for name, text in own.items()}
    taken_over: dict[str, Any] = {
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        "modules": proxy_run.modules(texts[proxy_run.CONF]),
        "cores": proxy.cores(spec.kind, spec.settings),
        "check": proxy.check_command(spec),
    }
    return {**made, "digest": _digest({}, made, {}), **taken_over}


# The archive's name on the hosts.
ARCHIVE = "incoming.pyz"


@dataclass(frozen=True)
class Deployment:
    """config, plan and what was rendered from them. folder: see layers.control_folder.

    files: by host and path, without any secret.
    """

    config: Config
    plan: Plan
    folder: Path
    files: Mapping[str, Mapping[str, str]]
    proxy_kind: Optional[str]

    @property
    def inventory(self) -> Path:
        """Where the Ansible inventory is written."""
        return self.folder / "inventory.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes this environment."""
        return self.folder / "lock"

    def sent(self, host: str) -> dict[str, str]:
        """All files that a host is sent, those with secrets among them."""
        return sent(self.plan, host, self.config.settings, self.files[host])

    def write(self) -> None:
        """Write rendered files, archives and inventory below the control folder."""
        private_folder(self.folder)
        code = bundle.host_code()
        archives = {}
        for host in self.files:
            archives[host] = self.folder / host / ARCHIVE
            write_private(archives[host], bundle.archive(self.sent(host), code))
        fleet.write_inventory(self.inventory, self.plan, self.config.settings, archives)


def prepare(
    config: Config,
    inputs: Mapping[str, str],
    proxy_found: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, str]],
    plan: Optional[Plan] = None,
) -> Deployment:
    """Render. Pure but for reading templates; see host_files for inputs.

    tables: rank tables by host name; none where there are no accelerators. plan: the
    configuration's, where it was made already.
    """
    plan = plan or make_plan(config)
    files = {
        host.name: host_files(
            plan, host, config.settings, inputs, proxy_found, tables.get(host.name, {})
        )
        for host in plan.hosts
    }
    kind = str(proxy_found["kind"]) if plan.proxy and proxy_found else None
    return Deployment(config, plan, layers.control_folder(config.environment), files, kind)
