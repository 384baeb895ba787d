"""The tutorials are walked: commands and what they show are those of docs/tutorials.md.

Chapter 1 is walked where a real engine serves anyway (tests/test_deploy.py), chapter 3 with users'
files. The others share a fleet behind real SSH, whose servers and NPU tools are stand-ins, and
build on each other, in order.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import check_cases
import pytest
import tutorial
from foreign_files import DEPLOYMENT, TWO_P
from ssh_fleet import STAND_INS, Fleet, FleetHost, ssh_fleet
from tutorial import PASSWORD, Walk, chapters
from twin_fleet import make_model

RECIPE = tutorial.ROOT / "tests" / "facts" / "recipes" / "vllm-ascend" / "QWEN3_235B_PD.yaml"
_NO_IMAGE = "the hosts of the test have no container engine and no registry"
# What of each chapter cannot be run here, and why.
NOT_RUN = {
    1: [("git clone", "it has no address here, and the test is in a clone already")],
    2: [("invoke pull-image", _NO_IMAGE)],
    3: [],
    4: [("invoke pull-image", _NO_IMAGE)],
    5: [],
    6: [],
}
# What makes servers of the stand-ins; all else is as the chapters write it.
_SITE = f"""\
keys: {{private_key: KEY, known_hosts: KNOWN}}
runtime: process
model: {{placement: false}}
roles: {{disaggregated: {{server: {{workdir: null}}}}}}
server: {{command: [python3, {STAND_INS}/fleet_server.py, serve, '${{plan.model_path}}']}}
proxy: {{kind: nginx-lua, prefill_balance: least_work, decode_balance: least_work,
  worker_processes: 1, worker_connections: 1024}}
readiness: {{poll_interval_s: 0.1, deadline_s: 60, request_timeout_s: 2}}
stop: {{grace_s: 3}}
fleet: {{connect_timeout_s: 4}}
"""


def test_both_languages_have_the_same_six_chapters_and_commands() -> None:
    english, chinese = chapters(), chapters(".zh-CN")
    assert sorted(english) == [1, 2, 3, 4, 5, 6]
    assert english == chinese


def test_nothing_else_is_left_out_than_what_cannot_be_run_here() -> None:
    left = {
        number: [
            (step.commands, step.mark.removeprefix("not run: "))
            for step in steps
            if step.mark.startswith("not run: ")
        ]
        for number, steps in chapters().items()
    }
    assert {n: [why for _, why in steps] for n, steps in left.items()} == {
        n: [why for _, why in steps] for n, steps in NOT_RUN.items()
    }
    for number, steps in left.items():
        for (commands, _), (begin, _) in zip(steps, NOT_RUN[number]):
            assert commands.startswith(begin)
            assert number == 1 or len(commands.splitlines()) == 1


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (tutorial.Step("echo one\n", "", 0, ["two"]), "nothing like 'two'"),
        (tutorial.Step("false\ntrue\n", "", 0), "exit status 1"),
        (tutorial.Step("true\n", "", 0, ["exit status 1"]), "nothing like 'exit status 1'"),
    ],
)
def test_a_wrong_tutorial_would_be_found(tmp_path: Path, step: tutorial.Step, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        Walk([step], tmp_path, {}).run()


def test_a_shell_keeps_what_was_set_and_is_answered(tmp_path: Path) -> None:
    steps = [
        tutorial.Step("export A=1\ncd tests\n", "", 0),
        tutorial.Step(
            "read -rp 'Go on? [y/N] ' WORD\necho $A $WORD ${PWD##*/}\n", "", 0, ["1 … tests"]
        ),
    ]
    Walk(steps, tmp_path, {}).run()


def test_chapter_3_from_omni_infers_own_files(tmp_path: Path) -> None:
    home, site = tmp_path / "home", tmp_path / "site"
    (home / "omni").mkdir(parents=True)
    site.mkdir()
    for file in (DEPLOYMENT, TWO_P, RECIPE):
        shutil.copy(file, home / "omni")
    Walk(chapters()[3], tmp_path, {"HOME": str(home), "OMNIKIT_SITE": str(site)}).run()


@dataclass(frozen=True)
class World:
    """Hosts, and the home and folder of who deploys to them."""

    fleet: Fleet
    folder: Path

    def walk(self, number: int) -> Walk:
        """A chapter; these hosts stand for its own: the first for 10.0.0.11 and 10.0.0.21."""
        env = {"HOME": str(self.folder), "OMNIKIT_SITE": str(self.folder / "site")}
        network = self.fleet.network
        addresses = [
            (r"10\.0\.0\.[12](\d)-[12](\d)\b", rf"{network}.\1-\2"),
            (r"10\.0\.0\.[12](\d)\b", rf"{network}.\1"),
        ]
        shell = self.folder / str(number)
        shell.mkdir()
        return Walk(chapters()[number], shell, env, addresses)

    def d0(self) -> FleetHost:
        """Where chapter 4 has its decode instance."""
        return self.fleet.hosts["n2"]

    def signal(self, number: int, of_all: bool) -> None:
        """To the first server of d0, or to all its processes: its writer would start another."""
        record = json.loads(self.d0().path("/data/omnikit/state/d0.json").read_text())
        servers = [one["process"]["pid"] for one in record["servers"]]
        keepers = [record["log_writer"]["pid"], record["supervisor"]["pid"]]
        pids = [*keepers, *servers] if of_all else servers[:1]
        self.fleet.run("n2", f"kill -{number} {' '.join(map(str, pids))} || true")

    def lock(self) -> None:
        """Of a colleague's command that was killed."""
        held = {"owner": "ann@bastion:/opt", "what": "deploy of ascend", "since": time.time()}
        self.d0().path("/data/omnikit/deploy.lock").write_text(json.dumps(held))

    def fill(self) -> None:
        """Have the disk of the logs full."""
        small = "mount -t tmpfs -o size=1m small /data/omnikit/logs"
        self.fleet.run("n2", f"{small}; cat /dev/zero >/data/omnikit/logs/filler || true")

    def empty(self) -> None:
        """Make room there."""
        self.fleet.run("n2", "umount -l /data/omnikit/logs")


def furnish(host: FleetHost, weights: int) -> None:
    """A bare host with the NPU driver, and none, chapter 4's (1) or also 2's (2) weights."""
    root = host.path("/")
    check_cases.make_driver(root)
    tools = root / "usr/local/Ascend/driver/tools"
    tools.mkdir()
    (tools / "hccn_tool").symlink_to("/usr/bin/hccn_tool")
    if weights > 1:
        make_model(root / "data/models/DeepSeek-R1-W8A8")
    if not weights:
        return
    other = root / "data/models/DeepSeek-V3.2-W8A8"
    make_model(other)
    config = json.loads((other / "config.json").read_text())
    del config["quantization_config"]
    config.update(model_type="deepseek_v32", architectures=["DeepseekV32ForCausalLM"])
    (other / "config.json").write_text(json.dumps(config))
    (other / "quant_model_description.json").write_text("{}")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    names = ["n1", "n2", "n3", "n4"]
    variables = {name: {"FAKE_HCCN_HOST": str(n)} for n, name in enumerate(names)}
    with tempfile.TemporaryDirectory(prefix="ot-") as text:  # short: SSH's sockets are below it
        folder = Path(text)
        (folder / "site").mkdir()
        with ssh_fleet(
            folder / "fleet", names, password=PASSWORD, authorized=True, npu=True,
            variables=variables,
        ) as fleet:  # fmt: skip
            for name, host in fleet.hosts.items():
                furnish(host, {"n1": 2, "n2": 1}.get(name, 0))
            site = _SITE.replace("KEY", f"{folder}/key").replace("KNOWN", f"{folder}/known_hosts")
            (folder / "site" / "world.local.yaml").write_text(site)
            yield World(fleet, folder)


_slow = pytest.mark.slow
_needs = pytest.mark.needs("nginx", "lua", "sshd", "ssh", "ip", "unshare", "nsenter", root=True)


@_slow
@_needs
def test_chapter_2_from_bare_hosts_to_a_service(world: World) -> None:
    walk = world.walk(2)
    walk.run()
    Walk([tutorial.Step("invoke stop\n", "", 0)], walk.folder, walk.env).run()


@_slow
@_needs
def test_chapter_4_vllm_ascend(world: World) -> None:
    world.walk(4).run()


@_slow
@_needs
def test_chapter_5_upgrade_without_loss(world: World) -> None:
    walk = world.walk(5)
    shutil.copy(world.folder / "4" / "shell", walk.folder / "shell")  # the same terminal goes on
    walk.run()


@_slow
@_needs
def test_chapter_6_when_it_hurts(world: World) -> None:
    walk = world.walk(6)
    walk.run(
        before={
            (1, 0): lambda: world.signal(signal.SIGKILL, of_all=True),
            (2, 0): lambda: world.signal(signal.SIGSTOP, of_all=False),
            (3, 0): lambda: world.fleet.stop("n2"),
            (3, 1): lambda: world.fleet.start("n2"),
            (4, 0): world.lock,
            (5, 0): world.fill,
            (5, 1): world.empty,
        }
    )
