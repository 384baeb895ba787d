#!/usr/bin/env python3
"""Weights to 16 hosts whose links are capped, against scp: one copy, and one to each host; then a
new tag of an image to two of them, against docker save | ssh docker load.

Real SSH hosts in namespaces of this machine, a queue discipline on both ends of each link; needs
root. Of the hosts three are killed in mid way (their agents) and one is rebooted. PYTHONPATH must
name scripts/ and tests/kit/.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from docker_host import make_small_image
from fleet_docker import docker_on
from ssh_fleet import Fleet, ssh_fleet
from timing import ROOT
from weights_fleet import MODEL, WeightsFleet

from hostkit.base.health import wait_until

HOSTS = int(os.environ.get("BENCH_HOSTS", "16"))
MIB = int(os.environ.get("BENCH_MIB", "128"))
MBIT = int(os.environ.get("BENCH_MBIT", "16"))
SCP_S = int(
    os.environ.get("BENCH_SCP_S", "60")
)  # N copies by scp take N times as long: watched so long


def scp(fleet: Fleet, host: str) -> list[str]:
    """A copy of the origin's folder to a host, as people do it: from the origin, by its own SSH."""
    options = "-q -r -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    address = fleet.hosts[host].address
    return ["sh", "-c", f"scp {options} {MODEL} root@{address}:/data/scp"]


IMAGE = "registry.invalid/team/app"


def bench_image(site: WeightsFleet) -> None:
    """A new tag, whose last layer alone is new, from h0 to two hosts that have the tag before."""
    names = ["h0", "h1", "h2"]
    with site.file.open("a") as file:
        file.write(f"container: {{image: '{IMAGE}:2', engine: docker}}\n")
        file.write("image: {free_mib: 1, attempts: 1}\n")
    with ExitStack() as stack:
        engines = {name: stack.enter_context(docker_on(site.fleet.hosts[name])) for name in names}
        base = make_small_image(engines["h0"])
        for tag, size in ((1, MIB << 18), (2, 1 << 18)):
            block = site.file.with_name("block")
            block.write_bytes(os.urandom(size))
            made = engines["h0"].docker("create", base, "/bin/bash").stdout.strip()
            engines["h0"].docker("cp", str(block), f"{made}:/block{tag}")
            base = f"{IMAGE}:{tag}"
            engines["h0"].docker("commit", made, base)
            engines["h0"].docker("rm", made)
        whole = int(engines["h0"].docker("image", "inspect", "-f", "{{.Size}}", base).stdout)
        for name in names[1:]:  # not measured: past the capped links
            saved = site.file.with_name("saved.tar")
            engines["h0"].docker("save", "--output", str(saved), f"{IMAGE}:1")
            engines[name].docker("load", "--input", str(saved))
            saved.unlink()
        print(
            f"a new tag of an image of {whole / 2**20:.0f} MiB, its last layer is new, to 2 hosts:"
        )
        options = "-i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        before, began = site.sent("h0"), time.monotonic()
        for name in names[1:]:
            address = site.fleet.hosts[name].address
            pipe = f"docker save {IMAGE}:2 | ssh -q {options} root@{address} docker load"
            site.in_host("h0", "sh", "-c", pipe)
            assert engines[name].docker("rmi", f"{IMAGE}:2").returncode == 0
        report("docker save | ssh docker load", site, before, began, whole)
        before, began = site.sent("h0"), time.monotonic()
        words = ["scripts/pull_image.py", "-e", str(site.file), "--from", "h0"]
        for name in names:
            words += ["--host", name]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
        report("pull-image --from h0", site, before, began, whole)


def report(what: str, site: WeightsFleet, before: int, began: float, whole: int) -> None:
    """A line of what came of it."""
    sent, seconds = site.sent("h0") - before, time.monotonic() - began
    share = 100 * sent / whole
    print(
        f"  {what}: {seconds:.0f} s, {sent / 2**20:.1f} MiB out of h0 ({share:.1f} % of the image)"
    )


def main() -> None:
    """Measure and print."""
    names = [f"h{number}" for number in range(HOSTS + 1)]
    with tempfile.TemporaryDirectory() as text, ssh_fleet(Path(text) / "fleet", names) as fleet:
        site = WeightsFleet(Path(text), fleet, 22190)
        site.fill("h0", MIB)
        key = site.fleet.hosts["h0"].path("/root/key")
        key.write_bytes(fleet.key.read_bytes())
        key.chmod(0o600)
        for name in names:
            site.cap(name, MBIT)
        began = time.monotonic()
        site.in_host("h0", *scp(fleet, "h1"))
        one = time.monotonic() - began
        assert site.fleet.hosts["h1"].path("/data/scp/config.json").exists(), "scp failed"
        print(f"scp, one copy of {MIB} MiB at {MBIT} Mbit/s: {one:.0f} s", flush=True)

        before = site.sent("h0")
        target = str(fleet.hosts["h0"].pid)
        enter = ["nsenter", "--target", target, "--net", "--pid", "--mount", "--root", "--wd=/"]
        copies = [subprocess.Popen([*enter, *scp(fleet, name)]) for name in names[2:]]
        wait_until(lambda: False, SCP_S, SCP_S)
        rate = (site.sent("h0") - before) / SCP_S
        for copy in copies:
            copy.terminate()
        site.in_host("h0", "pkill", "scp")
        many = HOSTS * (MIB << 20) / rate
        print(f"scp to {HOSTS} hosts: {many:.0f} s (of {SCP_S} s watched)", flush=True)
        for name in names[1:]:
            site.in_host(name, "rm", "-rf", "/data/scp")

        before = site.sent("h0")
        run = subprocess.Popen(
            [*site.argv()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

        def some_way() -> bool:
            staged = site.model("h4").glob(".spread/*.safetensors")
            return sum(one.stat().st_blocks * 512 for one in staged) > (MIB << 20) // 3

        if os.environ.get("BENCH_KILL", "1") == "1" and wait_until(some_way, 300, 0.2):
            for name in ("h1", "h2", "h3"):
                for agent in site.agents(name):
                    os.kill(agent, signal.SIGKILL)
            fleet.stop("h4")
            fleet.start("h4")
            site.cap("h4", MBIT)
        said, _ = run.communicate(timeout=1200)
        copies_out = (site.sent("h0") - before) / (MIB << 20)
        print(said)
        same = [site.sums(name) == site.sums("h0") for name in names[1:]]
        left = [name for name in names if site.listening(name) or site.agents(name)]
        print(
            f"distribute-weights: status {run.returncode}, {sum(same)} of {HOSTS} the same, out of"
            f" the origin's link {copies_out:.2f} copies; still listening: {left or 'nobody'}",
            flush=True,
        )
        bench_image(site)


if __name__ == "__main__":
    main()
