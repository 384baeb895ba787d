"""Servers restarted one after the other under load, and a proxy that is reloaded.

Servers are stand-ins (tests/kit/fleet_server.py), nginx and the load are real. The tests share one
deployment and build on each other, in order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Callable, Iterator

import pytest
from docker_host import wait_for

ROOT = Path(__file__).resolve().parents[1]
PORT = 32010
PORTS = (
    f"{{api_base: 31300, master_base: 31500, proxy: {PORT}, kv_side_channel: 31700, zmq: 31900}}"
)
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


@dataclass
class Site:
    """An environment on this machine whose requests take a while."""

    folder: Path

    def argv(self, script: str, *words: str) -> list[str]:
        return [sys.executable, f"scripts/{script}", "-e", str(self.folder / "roll.yaml"), *words]

    def run(self, script: str, *words: str, code: int = 0) -> str:
        """Run a script; what it printed."""
        done = subprocess.run(
            self.argv(script, *words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def pids(self) -> dict[str, int]:
        """Of all servers, by name, as the host has written them down."""
        records = (self.folder / "work" / "state").glob("*.json")
        servers = [one for path in records for one in json.loads(path.read_text())["servers"]]
        return {server["name"]: server["process"]["pid"] for server in servers}

    def upstream(self) -> list[str]:
        """The ports of the prefill servers that the running proxy knows."""
        block = self.conf().read_text().partition("upstream prefill_servers")[2].partition("}")[0]
        return re.findall(r"server [^\s;]*:([0-9]+)", block)

    def pairs(self) -> set[str]:
        """The versions of the servers of each request, as the proxy logged them."""
        logs = self.folder.rglob("access.log")
        lines = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
        return {line["versions"] for line in lines if line.get("versions")}

    def crossed(self) -> list[str]:
        """Answers of a pair of two versions. Before a pair stand prefill servers that were asked in
        vain: of a request whose pool changed meanwhile, and which was done again.
        """
        return [one for one in self.pairs() if len(set(one.split(", ")[-2:])) > 1]

    def conf(self) -> Path:
        """The file that the running proxy was started or reloaded with."""
        host = json.loads((self.folder / "work" / "bundle" / "host.json").read_text())
        [proxy] = [node for node in host["nodes"] if node["name"] == "c0"]
        return Path(proxy["temp_dir"]) / "nginx.conf"


@dataclass
class Load:
    """Requests without a pause: how many were answered well, and what else came."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)

    def ask(self, stream: bool) -> None:
        body = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "stream": stream}
        line = HTTPConnection("127.0.0.1", PORT, timeout=30)
        try:
            line.request("POST", "/v1/completions", json.dumps(body))
            answer = line.getresponse()
            text = answer.read().decode()
            whole = text.rstrip().endswith("data: [DONE]") if stream else '"text"' in text
            if answer.status == 200 and whole:
                self.answered += 1
            else:
                self.errors.append(f"{answer.status}: {text[:300]}")
        except (OSError, HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            line.close()


@contextmanager
def load() -> Iterator[Load]:
    """Four clients that ask as fast as they are answered."""
    made, over = Load(), threading.Event()

    def client(stream: bool) -> None:
        while not over.is_set():
            made.ask(stream)

    clients = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(4)]
    for one in clients:
        one.start()
    try:
        wait_for(lambda: made.answered > 4, "the load begins", 20)
        yield made
    finally:
        over.set()
        for one in clients:
            one.join()


@contextmanager
def endless(site: Site, port: int) -> Iterator[Callable[[], str]]:
    """A streamed answer that has begun, and what ends it and gives all of it."""
    until = site.folder / f"end-{port}"
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "stream": True}
    line = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        line.request("POST", "/v1/completions", json.dumps({**body, "stand_in_until": str(until)}))
        answer = line.getresponse()
        begun = answer.read(10).decode()

        def end() -> str:
            until.touch()
            return (begun + answer.read().decode()).rstrip()

        yield end
    finally:
        until.touch()
        line.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("roll")
    text = (ROOT / "tests" / "environments" / "breadth.yaml").read_text()
    text = text.replace("build/test-breadth", f"{folder}/work")
    text = text.replace("tests/kit/fleet_server.py", f"{ROOT}/tests/kit/fleet_server.py")
    text = re.sub("^ports: .*", f"ports: {PORTS}", text, flags=re.MULTILINE)
    text = text.replace("server:\n", "server:\n  env: {STAND_IN_REQUEST_S: 0.3}\n")
    text = text.replace("  decode:\n", "  decode:\n    - hosts: [local]\n")
    (folder / "roll.yaml").write_text(text)
    made = Site(folder)
    try:
        made.run("deploy.py")
        yield made
    finally:
        made.run("clean_up.py", "--yes", "--logs")


def test_all_prefill_servers_are_restarted_with_new_settings_and_no_request_fails(
    site: Site,
) -> None:
    before = site.pids()
    with load() as made:
        said = site.run("roll_prefill.py", "--set", "roles.prefill.server.env.A=1")
    assert made.errors == [] and made.answered > 20
    after = site.pids()
    assert after["p0"] != before["p0"] and after["p1"] != before["p1"]
    assert (after["d0"], after["c0"]) == (before["d0"], before["c0"])
    assert "restarted one after the other: p0, p1; all serve" in said
    assert site.upstream() == ["31300", "31301"]
    assert "export A=1" in (site.folder / "work" / "bundle" / "p1" / "start.sh").read_text()


def test_more_than_the_chosen_instance_would_change(site: Site) -> None:
    said = site.run("roll_prefill.py", "--instance", "p0", code=2)
    assert "more than these prefill instances would change: restart p1" in said


def test_one_that_does_not_come_back_stays_out_until_a_deploy_mends_it(site: Site) -> None:
    before = site.pids()
    words = ["--set", "roles.prefill.server.env.STAND_IN_FAILS=out of luck today"]
    with load() as made:
        said = site.run("roll_prefill.py", *words, code=1)
        assert "out of luck today" in said and "The proxy goes on without p0." in said
        assert site.upstream() == ["31301"]
        assert site.pids()["p1"] == before["p1"]
        said = site.run("deploy.py", "--yes", "--set", "roles.prefill.server.env.A=1")
        assert "c0: its configuration differs; no connection is lost" in said
    assert made.errors == []
    assert site.upstream() == ["31300", "31301"]
    assert site.pids()["c0"] == before["c0"]


def test_a_roll_that_is_killed_is_mended_by_the_next_command(site: Site) -> None:
    own = ["--set", "roles.prefill.server.env.A=1"]
    slow = [*own, "--set", "roles.prefill.server.env.STAND_IN_DELAY_S=60"]
    with load() as made:
        rolling = subprocess.Popen(
            site.argv("roll_prefill.py", "--json", *slow),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert rolling.stdout is not None
            said = next(line for line in rolling.stdout if "p0: stopped" in line)
            assert json.loads(said)["kind"] == "said"
            wait_for(lambda: site.upstream() == ["31301"], "p0 is out")
        finally:
            rolling.kill()
            rolling.communicate()
        site.run("deploy.py", "--yes", *own)
    assert made.errors == []
    assert site.upstream() == ["31300", "31301"]


def test_a_roll_that_is_killed_at_the_second_instance_goes_on_when_run_again(site: Site) -> None:
    own = ["--set", "roles.prefill.server.env.STAND_IN_KV_USAGE=0.25"]
    with load() as made:
        rolling = subprocess.Popen(
            site.argv("roll_prefill.py", "--json", *own),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert rolling.stdout is not None
            assert any("p1: stopped" in line for line in rolling.stdout)
        finally:
            os.killpg(rolling.pid, signal.SIGKILL)  # Ansible too: it would go on
            rolling.communicate()
        site.run("stop.py", "--instance", "p1", *own)
        assert site.upstream() == ["31300"]
        said = site.run("status.py", *own, code=1)
        assert "c0 sends nothing to 127.0.0.1:31301" in said
        said = site.run("roll_prefill.py", *own)
        assert said.index("p1: in the proxy again") < said.index("p0: out of the proxy")
        # Its KV cache is never empty, but no decode server waits for any of it.
        assert re.search("p0: idle, and (no decode server waits|nobody has fetched)", said)
    assert made.errors == []
    assert site.upstream() == ["31300", "31301"]
    assert "sends nothing" not in site.run("status.py", *own)


def test_an_instance_that_is_never_idle_is_left_as_it_is(site: Site) -> None:
    words = ["--set", "roles.prefill.server.env.STAND_IN_KV_USAGE=0.25", "--set", "roll.drain_s=1"]
    before = site.pids()
    with endless(site, 31300):
        said = site.run("roll_prefill.py", *words, code=1)
    assert "p0 still had work after 1 s" in said and "running 1" in said
    assert site.pids() == before and site.upstream() == ["31300", "31301"]


def test_kv_that_nobody_fetches_is_found_and_one_instance_is_restarted(site: Site) -> None:
    words = ["--set", "roles.prefill.server.env.STAND_IN_KV_USAGE=0.25"]
    assert "p1 keeps KV (25.0%) and has no request." in site.run("status.py", *words)
    said = site.run("doctor.py", *words, "--set", "doctor.look_again_s=0.1", code=1)
    assert "likely: The server keeps KV of requests whose client left" in said
    assert "lets go of it after 30 s" in said and "invoke roll-prefill --instance p1" in said
    before = site.pids()
    site.run("restart.py", "--instance", "p0", *words)
    after = site.pids()
    assert {name for name in before if after[name] != before[name]} == {"p0"}


def test_the_proxy_takes_another_configuration_over_during_an_answer(site: Site) -> None:
    words = ["--set", "roles.prefill.server.env.STAND_IN_KV_USAGE=0.25"]
    words += ["--set", "proxy.keepalive=77"]
    before = site.pids()
    with load() as made, endless(site, PORT) as end:  # an answer from an old worker of nginx
        assert "c0: reloaded\n" in site.run("reload_proxy.py", *words)
        assert "c0: unchanged\n" in site.run("reload_proxy.py", *words)
        assert "keepalive 77;" in site.conf().read_text()
        assert end().endswith("data: [DONE]")
    assert made.errors == []
    assert site.pids() == before
    said = site.run("reload_proxy.py", "--set", "ports.proxy=32011", code=2)
    assert "a deploy would restart it" in said


def test_wrong_inputs_name_what_is_right(site: Site) -> None:
    said = site.run("roll_prefill.py", "--instance", "p7", code=2)
    assert "there is no prefill instance 'p7'" in said and "one of p0, p1" in said
    dry = site.run("roll_prefill.py", "--dry-run", "--instance", "p1")
    assert dry.splitlines()[0].startswith("p1: leave 127.0.0.1:31301 out of the proxy")


def test_both_roles_change_their_version_and_a_roll_that_failed_is_finished(site: Site) -> None:
    new = ["--set", "server.args.block-size=64"]
    before = site.pids()
    with load() as made:
        failing = ["--set", "roles.decode.server.env.STAND_IN_FAILS=out of luck today"]
        said = site.run("roll.py", *new, *failing, code=1)
        assert "restarted: p0; not restarted, or not ready again: d0, p1, d1" in said
        assert "out of luck today" in said and "d0 did not come back" in said
        assert "run this again" in said
        left = site.pids()
        assert all(left[name] == before[name] for name in ("p1", "d1", "c0"))
        said = site.run("roll.py", *new)
        assert "restarted one after the other: d0, p1, d1, p0; all serve" in said
    assert made.errors == [] and made.answered > 20
    after = site.pids()
    assert all(after[name] != before[name] for name in ("p0", "p1", "d0", "d1"))
    assert after["c0"] == before["c0"]
    pairs = [set(pair.split(", ")) for pair in site.pairs()]
    assert all(len(pair) == 1 for pair in pairs)  # old with old, new with new
    assert len({word for pair in pairs for word in pair}) == 2


def test_a_roll_that_failed_is_turned_back_one_by_one(site: Site) -> None:
    old = site.pids()
    new = ["--set", "server.args.block-size=32"]
    with load() as made:
        failing = ["--set", "roles.decode.server.env.STAND_IN_FAILS=out of luck today"]
        said = site.run("roll.py", *new, *failing, code=1)
        assert "bring what ran before back, one by one as well: invoke rollback" in said
        mid = site.pids()
        assert mid["p0"] != old["p0"] and mid["p1"] == old["p1"]
        said = site.run("rollback.py", "--yes")
        assert ", which was proved last" in said
        assert "one by one, without an interruption: d0, p0" in said
    assert made.errors == []
    now = site.pids()
    assert (now["p1"], now["d1"], now["c0"]) == (mid["p1"], mid["d1"], mid["c0"])
    assert site.crossed() == []


def test_a_deploy_goes_one_by_one_and_turns_back_what_fails(site: Site) -> None:
    new = ["--set", "server.args.block-size=32"]
    with load() as made:
        failing = ["--set", "roles.decode.server.env.STAND_IN_FAILS=out of luck today"]
        said = site.run("deploy.py", "--yes", *new, *failing, code=1)
        assert "out of luck today" in said and "turned back to release" in said
        before = site.pids()
        said = site.run("deploy.py", "--yes", *new)
        assert "one by one, without an interruption: p0, d0, p1, d1" in said
        assert "is ready: replaced one by one" in said
    assert made.errors == []
    assert all(site.pids()[name] != before[name] for name in ("p0", "p1", "d0", "d1"))
    assert site.crossed() == []
    said = site.run("deploy.py", "--dry-run", "--at-once")
    assert "this interrupts the service, because it was asked for all at once" in said


def test_the_proxy_itself_is_replaced_during_an_answer(site: Site) -> None:
    new = ["--set", "server.args.block-size=32"]
    before = site.pids()
    with load() as made, endless(site, PORT) as end:  # an answer from the process before
        assert "restarted one after the other: c0; all serve" in site.run(
            "roll.py", "--role", "proxy", *new
        )
        now = site.pids()
        assert end().endswith("data: [DONE]")
    assert made.errors == []
    assert now["c0"] != before["c0"] and {**now, "c0": 0} == {**before, "c0": 0}
    wait_for(lambda: not Path(f"/proc/{before['c0']}").exists(), "the one before has ended")
    said = site.run("roll.py", "--role", "proxy", *new, "--set", "ports.proxy=32011", code=2)
    assert "its address or port would change" in said


def test_a_proxy_that_does_not_come_up_is_not_taken(site: Site) -> None:
    broken = site.folder / "nginx"  # accepts every configuration, and serves none
    broken.write_text('#!/bin/sh\ncase " $* " in *" -t "*) exit 0;; esac\nexit 1\n')
    broken.chmod(0o755)
    new = ["--set", "server.args.block-size=32"]
    before = site.pids()
    with load() as made:
        said = site.run("roll.py", *new, "--set", f"proxy.nginx={broken}", code=1)
    assert "c0 was not replaced: the new process did not start" in said
    assert made.errors == [] and site.pids() == before


OWN = ["--set", "server.args.block-size=64"]


def others(before: dict[str, int], after: dict[str, int], *but: str) -> None:
    """Nobody else was started, ended or restarted."""
    assert {n: p for n, p in after.items() if n not in but} == {
        n: p for n, p in before.items() if n not in but
    }


def test_instances_join_and_leave_under_load_and_nobody_else_is_touched(site: Site) -> None:
    file = site.folder / "roll.yaml"
    file.write_text(file.read_text().replace("topology:", "topology:  # mine"))
    new = ["--host", "local", "--role", "prefill", "--instance", "p2", *OWN]
    site.run("deploy.py", "--yes", *OWN)
    before, old = site.pids(), file.read_text()
    with load() as made:
        said = site.run("add_host.py", *new, "--dry-run")
        assert "+    - {hosts: [local]}" in said and "start" in said
        assert (file.read_text(), site.pids()) == (old, before)
        said = site.run("add_host.py", *new)
        assert "p2: started on local" in said
        joined = site.pids()
        others(before, joined, "p2")
        assert site.upstream() == ["31300", "31301", "31302"]
        said = site.run("add_host.py", *new)
        assert "p2 on local is in the environment already" in said and "nothing to change" in said
        said = site.run("remove_host.py", "--instance", "p0", *OWN, "--dry-run")
        assert "p0: ended after its last request" in said and "interrupt" not in said
        said = site.run("remove_host.py", "--instance", "p0", *OWN)
        assert re.search("p0: idle.*, is ended now", said)
        left = site.pids()
        others(joined, left, "p0")
        assert "p0" not in left and site.upstream() == ["31301", "31302"]
        said = site.run("remove_host.py", "--instance", "p0", *OWN)
        assert "p0 on local is out already" in said and "nothing to change" in said
        assert "nothing to change" in site.run("deploy.py", *OWN)
    assert made.errors == [] and made.answered > 20
    text = file.read_text()
    assert "topology:  # mine" in text and text.count("out: true") == 1


def killed(site: Site, at: str, script: str, *words: str) -> None:
    """A command that is killed, with all that it started, when it says something."""
    command = subprocess.Popen(
        site.argv(script, "--json", *words, *OWN),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert command.stdout is not None
        assert any(at in line for line in command.stdout)
    finally:
        os.killpg(command.pid, signal.SIGKILL)
        command.communicate()


def test_who_was_killed_while_one_joins_or_leaves_is_finished(site: Site) -> None:
    back = ["--instance", "p0"]
    with load() as made:
        killed(site, "written", "add_host.py", *back)
        assert "p0" not in site.pids()
        site.run("add_host.py", *back, *OWN)  # the same again
        killed(site, "d0: out of the proxy", "remove_host.py", "--instance", "d0")
        joined = site.pids()
        assert "d0" in joined and site.upstream() == ["31300", "31301", "31302"]
        said = site.run("deploy.py", "--yes", *OWN)
        assert "d0: idle, is ended now" in said
        others(joined, site.pids(), "d0")
        assert "nothing to change" in site.run("deploy.py", *OWN)
    assert made.errors == []
    assert "d0" not in site.pids() and "31400" not in site.conf().read_text()


def test_the_last_of_a_role_stays(site: Site) -> None:
    old = (site.folder / "roll.yaml").read_text()
    said = site.run("remove_host.py", "--instance", "d1", *OWN, code=2)
    assert "without d1 no decode instance would be left" in said and "invoke add-host" in said
    assert (site.folder / "roll.yaml").read_text() == old
