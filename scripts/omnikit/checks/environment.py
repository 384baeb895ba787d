"""All checks of an environment's hosts: what they are told, asked side by side, compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from hostkit.base.errors import ToolkitError
from hostkit.base.log import say
from hostkit.checks.base import Entry, entry
from omnikit import proxy
from omnikit.checks import fleet_checks, report
from omnikit.config.config import Config
from omnikit.config.schema import Host, Settings
from omnikit.fleet import direct_ssh, jobs
from omnikit.fleet.jobs import Done
from omnikit.plan import containers
from omnikit.plan.types import HostPlan, NodePlan, Plan
from omnikit.topology.ports import engine_places
from omnikit.versions import image

# What the checks of each host are told, from configuration and plan. Pure.

Port = list[Any]  # [address, port, what it is planned for]
SSH_PORT = 22  # what ssh itself takes where a host names no port
# Up to so many pings every device tries every peer; each takes a second or two.
_FEW_PINGS = 64


def check_parameters(config: Config, plan: Plan) -> dict[str, dict[str, Any]]:
    """Parameters of the job "check" by host."""
    return {host.name: _of_host(config, plan, host) for host in plan.hosts}


def _of_host(config: Config, plan: Plan, host: HostPlan) -> dict[str, Any]:
    settings, nodes = config.settings, plan.on_host(host.name)
    docker = settings.runtime == "docker"
    is_proxy = plan.proxy is not None and plan.proxy.host == host.name
    return {
        "host": host.name,
        "work_dir": host.work_dir,
        "device_kind": settings.engine.device_kind,
        "devices": sorted({device for node in nodes for device in node.devices}),
        "runtime": settings.runtime,
        "disaggregated": plan.disaggregated,
        "ports": ports(config, plan, host.name),
        "interface": host.settings.interface,
        "address": host.address,
        "peers": [[other.name, other.address] for other in plan.hosts if other is not host],
        "paths": {"model": plan.model_path, "log": _log_dir(config, plan), "code": host.work_dir},
        "quantization": _quantization(nodes),
        "model_generated": settings.model.generate_seed is not None,
        "image": settings.container.image if docker else None,
        "release": _release(config),
        "image_built": settings.container.build is not None,
        "container_engine": settings.container.engine,
        "container_devices": list(settings.container.devices),
        "mounts": list(settings.container.mounts),
        "containers": list(containers.host_specs(settings, plan, host).values()),
        "image_platform": settings.image.platform,
        "image_free_mib": settings.image.free_mib,
        "shm_size": settings.container.shm_size if docker else None,
        "proxy_cores": _proxy_cores(config) if is_proxy else 0,
        "engine_apart": settings.engine.venv is not None,
        "venv_python": None if docker else _engine_python(config, plan),
        "checks": settings.checks.model_dump(),
        "ranktable": settings.ranktable.model_dump(),
    }


def _proxy_cores(config: Config) -> int:
    """The cores that the proxy's workers are bound to (see proxy.cores)."""
    settings = config.settings.proxy
    return proxy.cores(settings.kind, settings.model_dump())


def _release(config: Config) -> Optional[dict[str, Any]]:
    """What an image is held against, and what to do about one that is older."""
    wanted = image.release(config)
    if wanted is None:
        return None
    known = {"laid_over": image.laid_over(config), "accepted": image.accepted(config)}
    python = config.settings.container.python
    return {**wanted, **known, "python": python, "todo": image.todo(config)}


def _quantization(nodes: Iterable[NodePlan]) -> list[str]:
    """What the servers of these nodes are told as --quantization."""
    words = [(*node.command, *(w for s in node.servers for w in s.own_args)) for node in nodes]
    pairs = [pair for line in words for pair in zip(line, line[1:])]
    return sorted({value for flag, value in pairs if flag in ("--quantization", "-q")})


def ports(config: Config, plan: Plan, host: str) -> list[Port]:
    """Every port that the plan gives a host, with what it is for."""
    found: list[Port] = [
        [node.address, one.port + k, one.purpose]
        for node in plan.on_host(host)
        for one in node.listeners
        for k in range(one.count)
    ]
    if plan.proxy is not None and plan.proxy.host == host:
        found.append([plan.proxy.listen_host, plan.proxy.port, "the proxy"])
    return found


def _log_dir(config: Config, plan: Plan) -> str:
    given = config.settings.paths.log_dir
    return plan.path(given) if given else f"{plan.hosts[0].work_dir}/logs"


def _engine_python(config: Config, plan: Plan) -> Optional[str]:
    """The engine's Python where somebody else installs it: what the toolkit installs may come."""
    if config.settings.engine.venv is None or config.settings.engine.requirements is not None:
        return None
    _, python = engine_places(config.settings, lambda text, *setting: plan.path(text))
    return python


def reach_parameters(
    config: Config, plan: Plan, device_ips: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """Parameters of the job "reach" by host; none where the hosts need not reach one another.

    device_ips: the addresses of devices by host and device id, where a host said them.
    """
    if not plan.disaggregated or len(plan.hosts) < 2:
        return {}
    settings = config.settings
    found = {}
    for host in plan.hosts:
        peers = [other for other in plan.hosts if other is not host]
        found[host.name] = {
            "host": host.name,
            "peers": [[p.name, p.address, p.settings.port or SSH_PORT] for p in peers],
            "pings": pings(
                sorted(map(int, device_ips.get(host.name, {}))),
                [list(device_ips[p.name].values()) for p in peers if device_ips.get(p.name)],
            ),
            "hccn_tool": settings.ranktable.hccn_tool,
            "device_ping": settings.ranktable.device_ping,
            "timeout_s": settings.checks.timeout_s,
            "interval_s": settings.ranktable.interval_s,
            "at_once": settings.checks.peers_at_once,
        }
    return found


def pings(devices: list[int], peers: list[list[str]]) -> list[list[Any]]:
    """Which device pings which address: each device and each peer at least once, all if few.

    >>> pings([0, 1], [["10.1.1.100", "10.1.1.101"]])
    [[0, '10.1.1.100'], [1, '10.1.1.101']]
    """
    if not devices or not peers:
        return []
    if len(devices) * len(peers) <= _FEW_PINGS:
        return [
            [device, peer[place % len(peer)]]
            for peer in peers
            for place, device in enumerate(devices)
        ]
    rounds = range(max(len(devices), len(peers)))
    return [
        [devices[number % len(devices)], _of(peers[number % len(peers)], number)]
        for number in rounds
    ]


def _of(addresses: list[str], number: int) -> str:
    return addresses[number % len(addresses)]


# What the hosts' attempts to reach one another, and this machine's to reach them, mean. Pure.


def reached(result: Mapping[str, Any]) -> list[Entry]:
    """Entries of one host from the result of its job "reach"."""
    entries = []
    if result["reached"]:
        entries.append(_peers(result["reached"]))
    if result["pings"]:
        entries.append(_pings(result["pings"]))
    return entries


def _peers(tried: Sequence[Mapping[str, Any]]) -> Entry:
    odd = [peer for peer in tried if not peer["ok"]]
    silent = any(peer["state"] == "silent" for peer in odd)
    slowest = max(peer["ms"] for peer in tried)
    return entry(
        "peers.ssh",
        "other hosts reached (SSH port)",
        not odd,
        # A machine that refuses is reached all the same: what serves need not be SSH.
        required=silent or not odd,
        found="; ".join(f"{p['name']} ({p['address']}:{p['port']}): {p['found']}" for p in odd)
        or f"{len(tried)} of {len(tried)} answer, the slowest in {slowest:g} ms",
        needed="an answer from every other host",
        todo="from that host: ip route get ADDRESS, ping ADDRESS; then firewall, hosts.NAME.address"
        if silent
        else "on the other host: systemctl start sshd; or set hosts.NAME.port",
    )


def _pings(tried: Sequence[Mapping[str, Any]]) -> Entry:
    lost = [ping for ping in tried if not ping["ok"]]
    shown = [f"device {p['device']} to {p['peer_ip']}: {p['found']}" for p in lost[:4]]
    if len(lost) > 4:
        shown.append(f"and {len(lost) - 4} more of {len(tried)}")
    return entry(
        "peers.devices",
        "other hosts' devices answer pings",
        not lost,
        required=True,
        found="; ".join(shown) or f"{len(tried)} of {len(tried)} pings came back",
        needed="0.00% packet loss from each device to its peers",
        todo="on that host: hccn_tool -i DEVICE -link -g, then -netdetect -g and -gateway -g;"
        " the switch's ports and VLAN come next",
    )


def not_tried(error: ToolkitError) -> Entry:
    """The entry of a host on which the job "reach" failed as a whole."""
    return entry(
        *("peers.ssh", "other hosts reached (SSH port)", False),
        required=True,
        found=_reason(error.what),
        needed="an answer from every other host",
        todo=error.todo or "invoke check-env, again",
    )


def logged_in(host: Host) -> list[Entry]:
    """The entry of a host that this machine could log in to; none where it is the host."""
    if host.local:
        return []
    return [
        entry(
            *("ssh", "SSH from this machine", True),
            required=True,
            found="logged in without being asked",
            needed="a log-in without questions",
            todo="",
        )
    ]


def failed(
    name: str, host: Host, settings: Settings, environment: str, error: ToolkitError
) -> list[Entry]:
    """Entries of a host whose checks did not run at all."""
    fault = ssh_fault(name, host, settings, environment, str(error.what))
    if fault is not None:
        return [fault]
    ran = entry(
        *("checks", "the checks could run", False),
        required=True,
        found=_reason(error.what),
        needed="an answer",
        todo=error.todo or f"invoke check-env --environment {environment} --host {name}",
    )
    return [*logged_in(host), ran]


def _reason(said: str) -> str:
    """The error in a host's words, which begin with what it said while it worked."""
    before, mark, after = f"\n{said}".rpartition("\nerror: ")
    return after.strip() if mark else before.strip() or said.strip()


def ssh_fault(
    name: str, host: Host, settings: Settings, environment: str, said: str
) -> Optional[Entry]:
    """What Ansible's words mean when it could not log in; None when it could."""
    if host.local or "the host cannot be reached" not in said.lower():
        return None
    login = " ".join(["ssh", *direct_ssh.words(host, settings), direct_ssh.target(host)])
    known = direct_ssh.fault_of(said)
    if known is None:
        return _fault(" ".join(said.split())[-300:], f"try it by hand: {login}")
    values = {"name": name, "environment": environment, "port": host.port or SSH_PORT}
    values.update(login=login, forget=_forget(host, settings))
    return _fault(known.found.format(**values), known.mend.format(**values))


def _fault(found: str, todo: str) -> Entry:
    return entry(
        *("ssh", "SSH from this machine", False),
        required=True,
        found=found,
        needed="a log-in without questions",
        todo=todo,
    )


def _forget(host: Host, settings: Settings) -> str:
    """The command that forgets a host's old key."""
    named = (
        f"'[{host.address}]:{host.port}'" if host.port and host.port != SSH_PORT else host.address
    )
    file = direct_ssh.known_hosts(settings)
    return f"ssh-keygen -R {named}" + (f" -f {file}" if file else "")


@dataclass
class Checked:
    """What was found, by host in the order of the plan."""

    checks: dict[str, list[Entry]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


def run(config: Config, plan: Plan, hosts: Sequence[str]) -> Checked:
    """Check these hosts. A host that cannot be asked is a failed check, never an exception."""
    parameters = check_parameters(config, plan)
    parameters = {host: parameters[host] for host in hosts}
    say(f"checking {_some(len(hosts))} of {plan.environment}")
    checked = Checked({host: [] for host in hosts})
    windows: dict[str, tuple[float, float]] = {}
    began = time.time()

    def on_done(host: str, done: Done) -> None:
        windows[host] = (began, time.time())
        checked.checks[host] = _own_entries(config, plan, host, done)
        say(f"host {host}: {report.counts(checked.checks[host])}")

    done = jobs.run(
        plan,
        config.settings,
        "check",
        parameters,
        at_once=config.settings.fleet.forks,
        on_done=on_done,
    )
    for host, one in done.items():
        if host not in windows:  # nobody told about it
            on_done(host, one)
        if one.result is not None:
            checked.facts[host] = one.result["facts"]
    _reach(config, plan, checked)
    # This machine's clock is in step with itself.
    away = {h: w for h, w in windows.items() if not config.settings.hosts[h].local}
    for host, entries in fleet_checks.compare(checked.facts, parameters, away).items():
        checked.checks[host] += entries
    return checked


def _own_entries(config: Config, plan: Plan, host: str, done: Done) -> list[Entry]:
    settings = config.settings.hosts[host]
    if done.error is not None:
        return failed(host, settings, config.settings, plan.environment, done.error)
    own = list((done.result or {})["checks"])
    return [*logged_in(settings), *own]


def ways(config: Config, plan: Plan, hosts: Sequence[str]) -> Checked:
    """What of these hosts may break while servers run: their devices, the ways between them."""
    given = check_parameters(config, plan)
    given = {host: {**given[host], "groups": ["npu", "hccn"]} for host in hosts}
    checked = Checked({host: [] for host in hosts})
    for host, done in jobs.ask(plan, config.settings, "check", given).items():
        if done.result is not None:
            checked.checks[host] += done.result["checks"]
            checked.facts[host] = done.result["facts"]
    _reach(config, plan, checked)
    return checked


def _reach(config: Config, plan: Plan, checked: Checked) -> None:
    """Let the hosts that answered reach the others of the plan."""
    ips = {host: facts.get("device_ips") or {} for host, facts in checked.facts.items()}
    given = reach_parameters(config, plan, ips)
    given = {host: own for host, own in given.items() if host in checked.facts}
    if not given:
        return
    say(f"trying the way from {_some(len(given))} to the others")
    for host, done in jobs.ask(plan, config.settings, "reach", given).items():
        if done.error is not None:
            checked.checks[host].append(not_tried(done.error))
        else:
            checked.checks[host] += reached(done.result or {})


def _some(number: int) -> str:
    return f"{number} host{'s' if number > 1 else ''}"
