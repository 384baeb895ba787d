"""Deployments into images whose ~/.bashrc alone has the environment: it is loaded, or named.

Servers are stand-ins that die without the library that this file lets the loader find. The tests
share one deployment and build on each other, in order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from docker_host import DockerHost
from profile_image import DEBIANS, GOOD, LIBRARY, NEEDY_SERVER, ROUGH, profile_image

from hostkit.containers.profile import FAILED

ROOT = Path(__file__).resolve().parents[1]
NAMES = [f"omnikit_profiled_{node}" for node in ("c0", "d0", "p0")]
# A release's image under another name, and what is said of it; None: it has no such file.
WRONG: dict[str, tuple[Optional[str], str]] = {
    "none": (None, "there is no file /root/.bashrc"),
    "guard": (DEBIANS, "leaves the file early, at the return in line 4"),
    "ends": (f"{GOOD}exit 0\n", "/root/.bashrc ends the shell"),
    "replaces": (f"{GOOD}exec sleep 1\n", "replaces the shell that loads it: exec sleep 1"),
    "silent": (f"trap : EXIT\n{GOOD}exit 0\n", "the file perhaps ends or replaces its shell"),
    "elsewhere": (
        "source /usr/local/Ascend/ascend-toolkit/set_env.sh\n",
        "it said: /root/.bashrc: line 1: /usr/local/Ascend/ascend-toolkit/set_env.sh: No such file",
    ),
}

_RENAME = 'python3 -c \'import os; os.rename("{}", "{}")\''

pytestmark = pytest.mark.slow


class Site:
    """The environment "profiled" on this machine, against the tests' engine."""

    def __init__(self, folder: Path, engine: DockerHost) -> None:
        self.folder, self.engine = folder, engine
        self.file = folder / "profiled.yaml"
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        self.file.write_text(
            "profile: {engine: cpu, model: tiny-qwen2}\n"
            "runtime: docker\n"
            "hosts: {local: {address: 127.0.0.1, connection: local}}\n"
            "topology: {prefill: [{hosts: [local]}], decode: [{hosts: [local]}], proxy: local}\n"
            f"paths: {{work_dir: '{folder}/work'}}\n"
            f"model: {{path: '{folder}/model', generate_seed: null}}\n"
            "container: {build: null, venv: null, shm_size: 64m, user: root,\n"
            f"  profile: /root/.bashrc, profile_library: {LIBRARY}}}\n"
            "engine: {venv: null, requirements: null, memory_per_server_mib: 30}\n"
            f"server: {{command: [python3, {NEEDY_SERVER}], env: {{WHO_WINS: plan}}}}\n"
            "proxy: {kind: nginx-lua, listen_host: 127.0.0.1}\n"
            "ports: {api_base: 27100, master_base: 27300, proxy: 27500, kv_side_channel: 27700,\n"
            "  zmq: 27900}\n"
            "readiness: {poll_interval_s: 0.1, deadline_s: 60}\n"
            "stop: {grace_s: 3}\n"
            "checks: {free_mib: {model: 1, log: 1, code: 1}}\n"
        )
        self.image = ""

    def run(
        self, name: str, *words: str, code: Optional[int] = 0
    ) -> subprocess.CompletedProcess[str]:
        """A script about this environment. code: its exit status; None: any."""
        runner = ["bash"] if name.endswith(".sh") else [sys.executable]
        settings = ["-e", str(self.file), "--set", f"container.image={self.image}"]
        done = subprocess.run(
            [*runner, f"scripts/{name}", *settings, *words],
            cwd=ROOT,
            env={**os.environ, **self.engine.env},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert code in (done.returncode, None), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def containers(self) -> list[str]:
        found = self.engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()
        return sorted(name for name in found if not name.startswith("omnikit-test"))

    def check(self) -> Any:
        """What check-env says of the environment in containers."""
        found = json.loads(self.run("check_env.py", "--json", code=None).stdout)
        checks = found["hosts"]["local"]["checks"]
        return next(check for check in checks if check["id"] == "engine.environment")

    def servers(self) -> dict[str, int]:
        nodes = json.loads(self.run("status.py", "--json").stdout)["nodes"]
        return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}


@pytest.fixture(scope="module")
def site(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("profiled"), docker_host)
    made.image = profile_image(docker_host, "omnikit-test/rough:1", ROUGH)
    try:
        yield made
    finally:
        made.run("stop.py")
        made.run("remove_container.py")


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


@pytest.mark.parametrize("kind", WRONG)
def test_an_image_without_the_environment_is_refused_before_anything_starts(
    site: Site, docker_host: DockerHost, kind: str
) -> None:
    bashrc, said = WRONG[kind]
    good, site.image = site.image, profile_image(docker_host, f"omnikit-test/{kind}:1", bashrc)
    try:
        done = site.run("deploy.py", code=2)
    finally:
        site.image = good
    assert said in done.stderr and f"image omnikit-test/{kind}:1: " in done.stderr
    assert "container.profile" in done.stderr and "local: " in done.stderr
    assert site.containers() == []  # not even the one that was asked


def test_check_env_says_it_too(site: Site) -> None:
    assert site.check()["state"] == "ok"
    good, site.image = site.image, "omnikit-test/guard:1"
    try:
        wrong = site.check()
    finally:
        site.image = good
    assert wrong["state"] == "failed" and "the return in line 4" in wrong["found"]
    assert LIBRARY in wrong["needed"] and "container.profile" in wrong["todo"]
    assert site.containers() == []


def test_with_a_rough_file_it_deploys_and_the_plans_variables_win(site: Site) -> None:
    done = site.run("deploy.py", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ready"] and set(result["changed"]) == {"p0", "d0", "c0"}
    assert site.containers() == NAMES
    pids = site.servers()
    for name in ("p0", "d0"):
        there = environment(pids[name])
        assert (there["FROM_FILE"], there["WHO_WINS"]) == ("1", "plan")
        assert there["LD_LIBRARY_PATH"] == "/opt/cann/lib64:"  # loaded once
    # nginx writes its title over its variables.
    assert "welcome" in (site.folder / "work/logs/c0/proxy.log").read_text()


def test_a_second_deployment_changes_nothing(site: Site) -> None:
    before = site.servers()
    assert "nothing to change" in site.run("deploy.py").stderr
    assert site.servers() == before


def test_running_containers_are_asked_themselves(site: Site) -> None:
    inside(site, "p0", _RENAME.format("/root/.bashrc", "/root/aside"))
    wrong = site.check()
    inside(site, "p0", _RENAME.format("/root/aside", "/root/.bashrc"))
    assert wrong["state"] == "failed"
    assert wrong["found"] == f"container {NAMES[2]}: there is no file /root/.bashrc."
    assert site.check()["state"] == "ok"


def test_jobs_run_in_the_environment_and_their_answers_are_whole(site: Site) -> None:
    words = ["--in-container", NAMES[2], "--only", "check", "--json"]
    done = site.run("build_from_source.py", *words, "--set", "source.packages=[none]", code=1)
    assert json.loads(done.stdout)["check"]["hosts"]["local"]["wrong"] == ["none"]
    assert "welcome" in done.stderr


def test_start_scripts_run_by_hand_and_look_again(site: Site) -> None:
    script = f"{site.folder}/work/bundle/p0/start.sh"
    inside(site, "p0", "echo 'exit 0' >/root/.bashrc")
    done = site.engine.docker("exec", NAMES[2], "bash", script, check=False)
    assert done.returncode == FAILED and done.stdout == ""
    assert done.stderr.startswith(f"error: container {NAMES[2]}: /root/.bashrc ends the shell")


def test_a_restart_in_a_spoilt_container_is_refused_and_the_server_lives_on(site: Site) -> None:
    before = site.servers()
    words = ["--set", "server.env.MORE=1", "--yes"]
    done = site.run("deploy.py", *words, code=2)
    assert f"container {NAMES[2]}: /root/.bashrc ends the shell that loads it." in done.stderr
    assert site.servers() == before


def inside(site: Site, node: str, command: str) -> None:
    site.engine.docker("exec", f"omnikit_profiled_{node}", "bash", "-c", command)
