"""Weights on four real SSH hosts with capped links: killed and rebooted meanwhile, then again."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Iterator

import pytest
from ssh_fleet import ssh_fleet
from weights_fleet import ROOT, WeightsFleet

from hostkit.base.health import wait_until

NAMES = ["h0", "h1", "h2", "h3"]
MIB = 24
pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("tc", "unshare", "nsenter", "ip", "sshd", root=True),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightsFleet]:
    folder = tmp_path_factory.mktemp("spread")
    with ssh_fleet(folder / "fleet", NAMES) as fleet:
        made = WeightsFleet(folder, fleet, 22190)
        for name in NAMES:
            made.cap(name, 40)
        yield made


class Running:
    """The command while it runs; said: its lines so far."""

    def __init__(self, site: WeightsFleet, *words: str) -> None:
        self.said: list[str] = []
        self.child = subprocess.Popen(
            site.argv(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        self.said.extend(line.rstrip() for line in self.child.stdout)

    def shows(self, text: str, seconds: float = 120) -> bool:
        return wait_until(lambda: any(text in line for line in list(self.said)), seconds, 0.1)

    def end(self) -> str:
        self.child.wait(timeout=300)
        self.reader.join()
        return "\n".join(self.said)


def staged(site: WeightsFleet, host: str) -> int:
    """Bytes of the transfer that lie on a host's disk, its end excepted."""
    files = site.model(host).glob(".spread/*.safetensors")
    return sum(path.stat().st_blocks * 512 for path in files)


def stranger(address: str, port: int) -> str:
    """What somebody on the network gets who speaks TLS but has no certificate of this run."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        plain = socket.create_connection((address, port), 5)
        with plain, context.wrap_socket(plain, server_hostname="0" * 40) as talk:
            talk.sendall(b"\x13BitTorrent protocol" + bytes(48))
            return repr(talk.recv(68))
    except OSError as error:
        return type(error).__name__


def test_one_copy_enters_while_a_host_is_killed_and_another_rebooted(site: WeightsFleet) -> None:
    site.fill("h0", MIB)
    plan = site.run("--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "h0    /data/model  gives" in plan.stderr and "gets 24.0 MiB" in plan.stderr
    assert not site.model("h1").exists()
    before = site.sent("h0")
    running = Running(site)
    port = site.port
    assert wait_until(lambda: min(staged(site, "h1"), staged(site, "h2")) > 4 << 20, 120, 0.1), (
        running.said
    )
    assert stranger(site.fleet.hosts["h1"].address, port) in (
        *("SSLError", "SSLEOFError", "ConnectionResetError", "b''"),
    )
    with socket.create_connection((site.fleet.hosts["h1"].address, port), 5) as plain:
        plain.sendall(b"\x13BitTorrent protocol" + bytes(48))
        plain.settimeout(30)
        try:
            answer = plain.recv(68)
        except ConnectionResetError:
            answer = b""
    assert b"BitTorrent" not in answer
    for agent in site.agents("h2"):
        os.kill(agent, signal.SIGKILL)
    site.fleet.stop("h3")
    site.fleet.start("h3")
    site.cap("h3", 40)
    said = running.end()
    assert running.child.returncode == 0, said
    assert "host h2: lost" in said and "host h3: lost" in said and "goes on" in said
    assert "all 4 hosts have it, verified" in said and "slowest h" in said
    wanted = site.sums("h0")
    assert [site.sums(name) for name in NAMES[1:]] == [wanted] * 3, "nothing but the files is left"
    # What a reboot loses is sent again: more than one copy, and far from three.
    assert site.sent("h0") - before < 1.5 * (MIB << 20)
    for name in NAMES:
        assert not site.listening(name) and not site.agents(name)


def test_a_second_run_has_nothing_to_do(site: WeightsFleet) -> None:
    done = site.run("--json")
    assert done.returncode == 0, done.stderr
    assert "all 4 hosts have it; nothing to do" in done.stderr
    assert json.loads(done.stdout)["changed"] is False


def test_the_control_host_is_killed_and_the_next_run_goes_on(site: WeightsFleet) -> None:
    for name in NAMES:
        for path in site.model(name).iterdir():
            path.unlink()
    site.fill("h0", MIB, seed=1)
    running = Running(site, "--host", "h0", "--host", "h1")
    assert wait_until(lambda: staged(site, "h1") > 8 << 20, 120, 0.1), running.said
    running.child.kill()
    running.end()
    assert wait_until(lambda: not site.listening("h1") and not site.agents("h1"), 30, 0.1)
    assert not site.listening("h0")
    assert not (site.model("h1") / "config.json").exists(), "half a checkpoint cannot be loaded"
    done = site.run("--host", "h0", "--host", "h1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hosts"]["h1"]["got"] < 18 << 20
    assert site.sums("h1") == site.sums("h0")


def test_an_older_version_gives_the_pieces_that_are_the_same(site: WeightsFleet) -> None:
    first = sorted(site.model("h0").glob("*.safetensors"))[0]
    data = bytearray(first.read_bytes())
    data[100:200] = bytes(100)
    first.write_bytes(data)
    site.write_list("h0")
    ambiguous = site.run("--host", "h0", "--host", "h1", "--dry-run")
    assert ambiguous.returncode == 2 and "--from HOST" in ambiguous.stderr
    done = site.run("--from", "h0", "--host", "h1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hosts"]["h1"]["got"] < 1 << 20
    assert site.sums("h1") == site.sums("h0")


def test_hosts_with_an_older_version_give_the_pieces_that_stayed(site: WeightsFleet) -> None:
    for path in site.model("h3").iterdir():
        path.unlink()
    done = site.run("--from", "h0", "--host", "h2")  # as h1 has it
    assert done.returncode == 0, done.stderr
    last = sorted(site.model("h0").glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[::-1])
    site.write_list("h0")
    done = site.run("--from", "h0", "--json")
    assert done.returncode == 0, done.stderr
    hosts = json.loads(done.stdout)["hosts"]
    shard = (MIB << 20) // 4
    assert max(hosts["h1"]["got"], hosts["h2"]["got"]) < 1.3 * shard
    assert hosts["h1"]["gave"] + hosts["h2"]["gave"] > shard, "h3 gets what stayed of them, too"
    assert [site.sums(name) for name in NAMES[1:]] == [site.sums("h0")] * 3


def test_what_is_wrong_is_said_and_nothing_is_given(site: WeightsFleet, tmp_path: Path) -> None:
    first = sorted(site.model("h0").glob("*.safetensors"))[0]
    good = first.read_bytes()
    first.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = site.run("--from", "h0", "--host", "h2")
    assert done.returncode == 1
    assert f"{first.name} is not what omnikit-weights.json says" in done.stderr
    first.write_bytes(good)
    (site.model("h2") / first.name).unlink()  # which it is to be given
    (site.model("h2") / "extra.safetensors").write_bytes(b"x")
    done = site.run("--from", "h0", "--host", "h2", "--set", "distribution.free_mib=9000000")
    assert done.returncode == 2 and "--replace" in done.stderr and "are free" in done.stderr
    done = site.run("--from", "h0", "--host", "h2", "--replace")
    assert done.returncode == 0, done.stderr
    assert site.sums("h2") == site.sums("h0")
