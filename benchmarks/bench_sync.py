#!/usr/bin/env python3
"""Measure the copy of a source tree to many hosts, against plain rsync to all of them at once.

Needs root: starts hosts of its own (ssh_fleet), each with an SSH server and a root file system, and
ends them. In the same run, each of first copy, nothing changed and one file changed:
plain rsync (-a --delete, over SSH connections that are kept open as well, all hosts in parallel),
then sync_code, both into memory. PYTHONPATH must name scripts/ and tests/kit/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Sequence

from ssh_fleet import Fleet, ssh_fleet
from timing import ROOT

from hostkit.base import cli, log, run
from omnikit.config.config import load
from omnikit.fleet import direct_ssh
from omnikit.plan.types import Plan
from omnikit.source import transfer
from omnikit.topology.topology import make_plan

PLAIN, OURS = "/data/plain", "/data/omniinfer"
_SETTINGS = """\
profile: {{engine: cpu, model: tiny-qwen2}}
engine: {{venv: /opt/engine}}
{hosts}
paths: {{work_dir: /data/omnikit, code_dir: {code}, local_code_dir: {source}}}
model: {{path: /data/model}}
topology: {{colocated: [{instances}]}}
"""


def make_tree(folder: Path, files: int, total: int) -> None:
    """So many files of one size in folders of fifty; the same bytes in each run."""
    generator = random.Random(0)
    size = total // files
    (folder / "setup.py").write_text("name = 'bench'\n")
    for number in range(files - 1):
        place = folder / f"package{number // 500}" / f"part{number // 50 % 10}"
        place.mkdir(parents=True, exist_ok=True)
        # Half of it compresses well, as source does.
        half = generator.randbytes(size // 2)
        (place / f"module{number}.py").write_bytes(half + b"#" * (size - len(half)))


def plain(plan: Plan, links: dict[str, direct_ssh.Link], source: Path) -> None:
    """Plain rsync to all hosts at once."""
    commands = []
    for host in plan.hosts:
        words = ["rsync", "-a", "--delete", "-e", transfer.rsh(links[host.name].words)]
        commands.append([*words, f"{source}/", f"root@{host.address}:{PLAIN}/"])
    codes = run.stream_all(commands, lambda number, line: log.say(line))
    assert not any(codes), f"rsync failed: {codes}"


def ours(environment: Path) -> dict[str, dict[str, object]]:
    """The script, as it is started by hand."""
    argv = [sys.executable, str(ROOT / "scripts" / "sync_code.py"), "--json"]
    done = run.run([*argv, "--environment", environment], check=False)
    assert done.code == 0, done.err
    found: dict[str, dict[str, object]] = json.loads(done.out)
    return found


@contextmanager
def prepared(hosts: int) -> Iterator[tuple[Fleet, Path, Path]]:
    """Hosts, a folder for the source, and the environment's file."""
    kept = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        folder = Path(name)
        source = folder / "source"
        source.mkdir()
        os.environ["HOME"] = name  # connections of our own, which end with us
        names = [f"h{number}" for number in range(hosts)]
        try:
            with ssh_fleet(folder / "fleet", names) as fleet:
                environment = folder / "bench-sync.yaml"
                text = _SETTINGS.format(
                    hosts=fleet.settings(),
                    code=OURS,
                    source=source,
                    instances=", ".join(f"{{hosts: [{name}]}}" for name in names),
                )
                environment.write_text(text)
                try:
                    yield fleet, source, environment
                finally:
                    for socket in (folder / ".ansible" / "cp").glob("omnikit-*"):
                        argv = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "any"]
                        subprocess.run(argv, check=False, capture_output=True)
        finally:
            if kept is not None:
                os.environ["HOME"] = kept


def measure(hosts: int, files: int, mib: int) -> list[dict[str, object]]:
    """Each step, plain and ours, in seconds."""
    rows: list[dict[str, object]] = []
    with prepared(hosts) as (fleet, source, environment):
        make_tree(source, files, mib << 20)
        config = load(str(environment), (), ())
        plan = make_plan(config)
        links = {}
        for host in plan.hosts:
            with direct_ssh.link(host, config.settings) as link:
                link.open()
                links[host.name] = link
            fleet.run(host.name, f"mkdir -p {PLAIN}")

        def step(name: str) -> None:
            began = time.perf_counter()
            plain(plan, links, source)
            middle = time.perf_counter()
            done = ours(environment)
            ended = time.perf_counter()
            changed = sum(bool(one["changed"]) for one in done.values())
            rows.append(
                {
                    "step": name,
                    "plain_s": round(middle - began, 2),
                    "sync_code_s": round(ended - middle, 2),
                    "hosts_changed": changed,
                    "bytes": sum(int(str(one["bytes"])) for one in done.values()),
                }
            )

        step("first copy")
        step("nothing changed")
        (source / "package0" / "part0" / "module1.py").write_text("changed = True\n")
        step("one file changed")
        for path in source.rglob("*"):
            os.utime(path, (1, 1))
        step("all times changed")
    return rows


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure and print a table."""
    made = cli.parser(
        __doc__ or "", example="PYTHONPATH=scripts:tests/kit python3 benchmarks/bench_sync.py"
    )
    made.add_argument("--hosts", type=int, default=16, metavar="N")
    made.add_argument("--files", type=int, default=5000, metavar="N")
    made.add_argument("--mib", type=int, default=100, metavar="N", help="size of all files")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


def body(options: argparse.Namespace) -> int:
    """All steps."""
    rows = measure(options.hosts, options.files, options.mib)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{options.files} files, {options.mib} MiB, to {options.hosts} hosts on this machine:")
    header = ["what", "plain rsync", "sync_code", "hosts changed", "sent"]
    table = [
        [
            str(row["step"]),
            f"{row['plain_s']} s",
            f"{row['sync_code_s']} s",
            str(row["hosts_changed"]),
            f"{int(str(row['bytes'])) / 2**20:.1f} MiB",
        ]
        for row in rows
    ]
    print(log.table(table, header))
    return 0


if __name__ == "__main__":
    sys.exit(main())
