#!/usr/bin/env python3
"""What a deployment costs on fleets of several sizes, over real SSH, against bare SSH.

Needs root: starts hosts of its own on this machine (tests/kit/ssh_fleet.py), whose servers are
stand-ins that are ready at once, and ends them. In the same run and fixture: a first deployment, a
second one, status; and as the limit the same archives over bare ssh: all hosts at the same time,
one command each that starts the servers and waits for them, then one for the proxy; it asks for no
accelerators, makes no rank tables, takes no locks and sends no requests. All begin without SSH
connections. CPU is what the command itself spends (user and system): not the ssh processes that
keep connections, and not the hosts, which take the same cores here. PYTHONPATH must name scripts/
and tests/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from ssh_fleet import STAND_INS, Fleet, ssh_fleet
from timing import HEADER, ROOT, Figure

from hostkit.base import cli, log
from omnikit.config.config import load
from omnikit.config.layers import control_folder
from omnikit.fleet import direct_ssh
from omnikit.prepare.deployment import ARCHIVE
from omnikit.topology.topology import make_plan

NAME = "bench-fleet"
_SETTINGS = """\
profile: {{engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}}
runtime: process
{hosts}
topology: {{prefill: [{prefill}], decode: [{{hosts: [{decode}]}}], proxy: p0}}
devices: '0'
model: {{path: /data/model, served_name: tiny}}
server: {{command: [python3, {stand_ins}/fleet_server.py]}}
proxy: {{kind: nginx-lua, prefill_balance: least_conn, decode_balance: least_conn,
  worker_processes: 1, worker_connections: 1024}}
readiness: {{poll_interval_s: 0.1, deadline_s: 60}}
stop: {{grace_s: 3}}
"""


def layout(hosts: int) -> tuple[list[str], list[str]]:
    """Names of the prefill and of the decode hosts: half of each."""
    prefill = [f"p{number}" for number in range(hosts // 2)]
    return prefill, [f"d{number}" for number in range(hosts - len(prefill))]


def settings(fleet_hosts: str, prefill: Sequence[str], decode: Sequence[str]) -> str:
    """The environment as YAML."""
    return _SETTINGS.format(
        hosts=fleet_hosts,
        prefill=", ".join(f"{{hosts: [{name}]}}" for name in prefill),
        decode=", ".join(decode),
        stand_ins=STAND_INS,
    )


def stand_in_variables(hosts: Sequence[str]) -> dict[str, dict[str, str]]:
    """What the stand-ins for the NPU tools are told: no two hosts have a device address."""
    return {name: {"FAKE_HCCN_HOST": str(number)} for number, name in enumerate(hosts)}


def timed(act: Callable[[], Any]) -> tuple[float, float, float, Any]:
    """Wall time, CPU time of what was started, CPU time of all of this machine, and what act
    returned.
    """
    before, all_before = resource.getrusage(resource.RUSAGE_CHILDREN), machine_cpu()
    began = time.perf_counter()
    result = act()
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used, machine_cpu() - all_before, result


def machine_cpu() -> float:
    """CPU seconds that this machine has spent on anything."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, first[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


@contextmanager
def own_home(folder: Path) -> Iterator[None]:
    """SSH connections are kept below a folder of ours, and ended."""
    kept = os.environ.get("HOME", "/")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        hang_up()
        os.environ["HOME"] = kept


def hang_up() -> None:
    """End all kept connections."""
    for socket in Path("~/.ansible/cp").expanduser().glob("*"):
        argv = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "any"]
        subprocess.run(argv, check=False, capture_output=True)


class Site:
    """A fleet and its environment."""

    def __init__(self, folder: Path, fleet: Fleet, names: tuple[list[str], list[str]]) -> None:
        self.file = folder / f"{NAME}.yaml"
        self.file.write_text(settings(fleet.settings(), *names))
        for host in fleet.hosts.values():
            host.path("/data/model").mkdir(parents=True, exist_ok=True)
            host.path("/data/model/config.json").write_text("{}")

    def run(self, script: str, *words: str) -> str:
        """A script, as by hand; what it printed."""
        argv = [sys.executable, f"scripts/{script}", "-e", str(self.file), *words]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self) -> dict[str, Any]:
        """The result of a deployment."""
        found: dict[str, Any] = json.loads(
            self.run("deploy.py", "--yes", "--json").splitlines()[-1]
        )
        assert found["ready"], found
        return found

    def bare(self) -> bool:
        """The archives of the last deployment over bare ssh; whether anything changed."""
        config = load(str(self.file), (), ())
        plan = make_plan(config)
        proxy = plan.proxy.host if plan.proxy else ""
        changed = False
        for only in (None, proxy):  # all hosts, then the proxy's
            running = []
            for host in plan.hosts:
                if only is not None and host.name != only:
                    continue
                roles = "prefill,decode" if only is None else "proxy"
                there = f"{host.work_dir}/archives/{ARCHIVE}"
                shell = f"mkdir -p {host.work_dir}/archives && cat >{there} && python3 {there}"
                archive = control_folder(config.environment) / host.name / ARCHIVE
                with direct_ssh.link(host, config.settings) as link, archive.open("rb") as file:
                    argv = [*link.argv("x")[:-1], f"{shell} up --roles={roles} --wait"]
                    running.append(
                        subprocess.Popen(
                            argv, stdin=file, stdout=subprocess.PIPE, env={**os.environ, **link.env}
                        )
                    )
            try:
                for one in running:
                    said, _ = one.communicate(timeout=120)
                    assert one.returncode == 0, said
                    changed = changed or bool(json.loads(said.splitlines()[-1])["changed"])
            finally:
                for one in running:
                    one.kill()  # nothing where it has ended
        return changed


def measure(hosts: int, runs: int) -> dict[str, Any]:
    """All figures of one fleet: medians of wall, CPU and all CPU seconds by what was done."""
    names = layout(hosts)
    every = [*names[0], *names[1]]
    found: dict[str, list[tuple[float, float, float]]] = {}
    variables = stand_in_variables(every)
    load = os.getloadavg()[0]

    def take(what: str, act: Callable[[], Any]) -> Any:
        hang_up()
        *figures, result = timed(act)
        found.setdefault(what, []).append(tuple(figures))
        return result

    with tempfile.TemporaryDirectory(prefix="bf-") as text, own_home(Path(text)):
        folder = Path(text)
        with ssh_fleet(folder / "fleet", every, npu=True, variables=variables) as fleet:
            site = Site(folder, fleet, names)
            try:
                for _ in range(runs):
                    site.run("clean_up.py", "--yes", "--logs")
                    take("first", site.deploy)
                    assert take("second", site.deploy)["changed"] == {}
                    take("status", lambda: site.run("status.py"))
                    site.run("clean_up.py", "--yes", "--logs")
                    assert take("bare first", site.bare)
                    assert not take("bare second", site.bare)
            finally:
                # The hosts and all that runs there end with the fleet.
                shutil.rmtree(control_folder(NAME), ignore_errors=True)
    return {"hosts": hosts, "load": load, **{what: medians(all_) for what, all_ in found.items()}}


def medians(taken: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """The median of each figure."""
    return tuple(statistics.median(column) for column in zip(*taken))


def rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Growth as a table: wall seconds, CPU seconds per host, and how busy this machine was."""
    made = []
    cores = os.cpu_count() or 1
    for one in found:
        row = [str(one["hosts"]), f"{one['load']:.1f}"]
        for what in ("first", "second", "status", "bare first", "bare second"):
            wall, used, everything = one[what]
            busy = min(1.0, everything / wall / cores)
            row.append(f"{wall:.1f} s ({used / one['hosts']:.2f} s, {busy:.0%})")
        made.append(row)
    return made


def figures(found: Sequence[dict[str, Any]]) -> list[Figure]:
    """What a bar is set for."""
    made = []
    for one in found:
        if one["hosts"] == 4:
            limit = f"bare SSH {one['bare first'][0]:.1f} s"
            made.append(Figure("2P1D on 4 hosts, first deploy", one["first"][0], 15.0, limit))
            limit = f"bare SSH {one['bare second'][0]:.1f} s; nothing changed"
            made.append(Figure("the same again", one["second"][0], 6.0, limit))
        if one["hosts"] == 16:
            made.append(Figure("status of 16 hosts", one["status"][0], 3.0))
    return made


def body(options: argparse.Namespace) -> int:
    """All sizes."""
    # So that the hosts end with us when we are told to end.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sizes = [int(size) for size in options.hosts.split(",")]
    found = []
    for size in sizes:
        log.say(f"{size} hosts")
        found.append(measure(size, options.runs))
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    columns = ("first deploy", "second deploy", "status", "bare SSH first", "bare SSH second")
    header = ["hosts", "load before", *columns]
    print("wall seconds (CPU seconds per host, share of this machine's cores in use), medians:")
    print(log.table(rows(found), header))
    print(log.table([figure.row() for figure in figures(found)], HEADER))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure and print tables."""
    made = cli.parser(
        __doc__ or "", example="PYTHONPATH=scripts:tests/kit python3 benchmarks/bench_fleet.py"
    )
    made.add_argument("--hosts", default="4,8,16,24", metavar="N,…", help="sizes of the fleets")
    made.add_argument("--runs", type=int, default=3, metavar="N", help="of each size")
    made.add_argument("--json", action="store_true", help="print the figures as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
