"""Servers of the twin on hosts of a fleet, without containers: for one fault each, in seconds.

They get the words and variables of the plan, changed as a fault wants it, and the files of a
deployment. What doctor makes of a server's log is what it would say of a whole deployment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Optional, Protocol, Sequence

import twin_fleet
import twin_image
from docker_host import static_files, wait_for
from ssh_fleet import Fleet, ssh_fleet

from hostkit.base.health import Answer, request
from omnikit.config import config
from omnikit.doctor import rules
from omnikit.plan.types import NodePlan, Plan, ServerPlan
from omnikit.prepare import ranktables
from omnikit.topology.topology import HOST_INTERFACE, make_plan

HOSTS = ("p0", "p1", "d0", "d1")
_PLAIN = "{prefill: [{hosts: [p0]}], decode: [{hosts: [d0, d1]}], proxy: p0}"
_RAY = "{prefill: [{hosts: [p0, p1]}], decode: [{hosts: [d0, d1]}], proxy: p0}"
_TWIN = "/opt/twin"
_VARIABLES = {
    "PATH": f"{_TWIN}/bin:/usr/bin:/bin",
    "PYTHONPATH": f"{_TWIN}/site",
    "LD_LIBRARY_PATH": f"{_TWIN}/lib64",
}
_PATIENCE_S = 60.0  # of ranks for each other: a busy machine starts them many seconds apart
_LISTENS = (
    "import signal, socket, sys; s = socket.create_server(('', int(sys.argv[1])));"
    " print('listens', flush=True); signal.pause()"
)


@dataclass(frozen=True)
class Fault:
    """A change to what is right.

    env: variables by server ("d1.0"), node ("d1"), role or "" for all; None takes one away. words:
    flags likewise, each with its value. shell: run on a host before ("d0": "..."). taken: a port
    that something else listens on. starts: which nodes or servers are started, all that the fault
    needs; first: words in the log of a server before the next is started. watched: the server that
    dies of it. in_vain: it dies of waiting. asks: a request goes through prefill and decode once
    all are ready.
    """

    env: Mapping[str, Mapping[str, Optional[str]]] = field(default_factory=dict)
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shell: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)
    starts: tuple[str, ...] = ("d0", "d1")
    first: Mapping[str, str] = field(default_factory=dict)
    watched: str = "d1.0"
    in_vain: bool = False
    asks: bool = False
    ray: bool = False


class Site:
    """Plans for a running fleet whose hosts have the twin."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.folder, self.fleet = folder, fleet
        self.variables, self.interface, self.in_vain_s = _VARIABLES, "eth0", 5.0
        self.plans = {False: self._plan("plain", _PLAIN), True: self._plan("ray", _RAY)}

    def _plan(self, name: str, topology: str) -> Plan:
        rows = "".join(f"  {h.name}: {{address: {h.address}}}\n" for h in self.hosts())
        file = self.folder / f"{name}.yaml"
        file.write_text(
            "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
            f'runtime: process\ndevices: "0-1"\nhosts:\n{rows}topology: {topology}\n'
            f"model: {{path: {twin_fleet.MODEL}}}\n"
        )
        return make_plan(config.load(str(file), environ={}))

    def hosts(self) -> list[twin_fleet.FleetHost]:
        return list(self.fleet.hosts.values())

    def lay_out(self, plan: Plan) -> None:
        """The files of a deployment, as they should be, on all hosts."""
        numbers = {host.name: number for number, host in enumerate(self.hosts(), 1)}
        addresses = {
            name: {n: twin_fleet.device_address(number, n) for n in range(16)}
            for name, number in numbers.items()
        }
        tables = ranktables.planned(ranktables.table_instances(plan.nodes), addresses)
        for name, files in ranktables.planned_files(tables, "global").items():
            for path, text in files.items():
                self._write(name, f"/data/omnikit/bundle/ranktable/{path}", text)
        for node in plan.nodes:
            for path, data in node.files.items():
                self._write(node.host, f"/data/omnikit/bundle/{node.name}/{path}", json.dumps(data))
        for number, host in enumerate(self.hosts(), 1):
            shutil.rmtree(host.path(twin_fleet.MODEL))
            twin_fleet.furnish(host, number)
            for name in twin_image.PLACEMENT:
                self._write(host.name, f"/workspace/omniinfer/tests/test_config/{name}", "#\n")
            for n in range(16):
                node = host.path(f"/dev/davinci{n}")
                if not node.exists():
                    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    def shell(self, host: str, command: str) -> None:
        """Change something on a host."""
        self.fleet.run(host, command)

    def _write(self, host: str, path: str, text: str) -> None:
        place = self.fleet.hosts[host].path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def start(
        self, host: str, words: Sequence[str], env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """A process on a host, in a process group of its own."""
        there = self.fleet.hosts[host]
        argv = ["nsenter", "--target", str(there.pid), "--mount", "--uts", "--ipc", "--net"]
        argv += ["--pid", "chroot", str(there.folder / "root"), "env", "-i"]
        argv += [f"{name}={value}" for name, value in env.items()]
        with log.open("wb") as output:
            return subprocess.Popen(
                [*argv, *words], stdout=output, stderr=output, start_new_session=True
            )


class Place(Protocol):
    """Where servers of the twin are started."""

    variables: Mapping[str, str]  # of the hosts
    interface: str
    in_vain_s: float  # the patience of servers where what they wait for never comes
    plans: Mapping[bool, Plan]  # with Ray or without

    def lay_out(self, plan: Plan) -> None:
        """The files of a deployment, as they should be, on all hosts."""

    def shell(self, host: str, command: str) -> None:
        """Change something on a host."""

    def start(
        self, host: str, words: Sequence[str], env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """A process on a host, in a process group of its own."""


def own_env(
    place: Place, fault: Fault, node: NodePlan, server: Optional[ServerPlan]
) -> dict[str, str]:
    """A server's variables with the fault in them; those of the node's Ray for None."""
    env = {
        **place.variables,
        **node.env,
        "TWIN_LIMIT_S": str(place.in_vain_s if fault.in_vain else _PATIENCE_S),
        **(server.own_env if server else {}),
    }
    for name in ("", node.role, node.name, server.name if server else f"{node.name}.ray"):
        for key, value in fault.env.get(name, {}).items():
            env.pop(key, None)
            if value is not None:
                env[key] = value
    return {name: value.replace(HOST_INTERFACE, place.interface) for name, value in env.items()}


def own_words(fault: Fault, node: NodePlan, server: ServerPlan) -> list[str]:
    """A server's command with the fault in it. A flag that stands twice counts the last time."""
    words = list(node.argv(server))
    for name in ("", node.role, node.name, server.name):
        words += fault.words.get(name, ())
    return words


@contextmanager
def running(
    site: Place, fault: Fault, folder: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """What a fault concerns, started; logs are in folder. All of it is ended afterwards."""
    plan = site.plans[fault.ray]
    site.lay_out(plan)
    for host, command in fault.shell.items():
        site.shell(host, command)
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for host, port in fault.taken.items():
            words = ["python3", "-c", _LISTENS, str(port)]
            log = folder / "taken.log"
            started[f"taken on {host}"] = site.start(host, words, {"PATH": "/usr/bin:/bin"}, log)
            wait_for(lambda: bool((folder / "taken.log").read_text()), "the port is taken")
        for node in plan.nodes:
            if node.ray and node.name in fault.starts:
                log, env = folder / f"{node.name}.ray.log", own_env(site, fault, node, None)
                started[f"{node.name}.ray"] = site.start(node.host, node.ray, env, log)
                # Servers start once Ray does, as after the real wait.
                wait_for(lambda log=log: "started" in log.read_text(), f"Ray runs: see {log}")
        for node in plan.nodes:
            for server in node.servers:
                if not {node.name, server.name} & set(fault.starts):
                    continue
                log, env = folder / f"{server.name}.log", own_env(site, fault, node, server)
                words = own_words(fault, node, server)
                started[server.name] = site.start(node.host, words, env, log)
                said = fault.first.get(server.name, "")
                wait_for(lambda log=log, said=said: said in log.read_text(), f"{said}: see {log}")
        yield started
    finally:
        for process in started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def named(site: Place, fault: Fault, folder: Path) -> list[str]:
    """Start what a fault concerns; the known failures that doctor finds in the watched log."""
    with running(site, fault, folder) as started:
        if fault.asks:
            answer = ask(site.plans[fault.ray], started, folder)
            assert answer.status == 500, answer.text
            how = "answers with an error"
        else:
            process = started[fault.watched]
            wait_for(lambda: process.poll() is not None, f"the end of one: see {folder}")
            how = f"ended with exit status {process.returncode}"
    lines = (folder / f"{fault.watched}.log").read_text().splitlines()
    log = {"lines": lines, "first_line": 1}
    server = {"name": fault.watched, "log": "/logs/server_0.log", "log_end": log}
    return [finding.name for finding in rules.explain(fault.watched, server, how)]


def ask(plan: Plan, started: Mapping[str, subprocess.Popen[bytes]], folder: Path) -> Answer:
    """What decode answers to a request that went through prefill, once all are ready."""

    def ready(url: str) -> bool:
        dead = {name: p.returncode for name, p in started.items() if p.poll() is not None}
        assert not dead, f"these have ended: {dead}; see {folder}"
        return request(url, timeout_s=2).status == 200

    urls = {}
    for node in reversed(plan.nodes):
        for server in reversed(node.servers):
            url = urls[node.role] = f"http://{node.address}:{server.api_port}"
            health = f"{url}/health"
            wait_for(lambda health=health: ready(health), f"all are ready: see {folder}")
    body = {"model": plan.served_name, "prompt": "a prompt", "max_tokens": 1}
    handed = {"do_remote_decode": True, "do_remote_prefill": False}
    told = {**body, "min_tokens": 1, "kv_transfer_params": handed}  # as proxies say it
    first = request(f"{urls['prefill']}/v1/completions", body=told, timeout_s=10)
    second = {**body, "kv_transfer_params": json.loads(first.text)["kv_transfer_params"]}
    return request(f"{urls['decode']}/v1/completions", body=second, timeout_s=10)


@contextmanager
def twin_hosts(folder: Path) -> Iterator[Site]:
    """Four hosts with NPUs, the model and the twin's programs."""
    with ssh_fleet(folder / "fleet", list(HOSTS), npu=True) as fleet:
        packages = folder / "site"
        twin_image.packages(packages)
        bash = static_files({"/bin/bash": str(shutil.which("bash"))})
        library = next(path for name, path in bash.items() if ".so" in name)
        for number, host in enumerate(fleet.hosts.values(), 1):
            twin_fleet.furnish(host, number)
            there = host.path(_TWIN)
            shutil.copytree(packages, there / "site")
            shutil.copytree(twin_image.TWIN / "bin", there / "bin")
            (there / "lib64").mkdir()
            for name in twin_image.LIBRARIES:
                shutil.copy(library, there / "lib64" / name)
        yield Site(folder, fleet)
