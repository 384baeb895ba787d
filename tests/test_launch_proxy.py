"""launch_proxy.py as a user runs it: options, exit codes, one whole life of a proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from omnikit import proxy_install
from omnikit.health import request
from proxy_backend import Backend, free_port

# Real processes, seconds together.
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "scripts" / "launch_proxy.py"
LISTS = ("--prefill-servers-list", "192.0.2.1:9000", "--decode-servers-list", "192.0.2.2:9100")
NJS = ("--kind", "nginx-njs")


class Launcher:
    """Runs the script with one run_dir."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def __call__(self, *words: object, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        argv = [sys.executable, *python, str(SCRIPT), "--run-dir", str(self.run_dir)]
        return subprocess.run([*argv, *map(str, words)], capture_output=True, text=True, timeout=60)

    def json(self, *words: object, code: int = 0, python: tuple[str, ...] = ()) -> dict:
        done = self(*words, "--json", python=python)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    made = Launcher(tmp_path / "run")
    yield made
    assert made("--stop", "--grace", 0).returncode == 0


@pytest.fixture
def servers() -> Iterator[list[Backend]]:
    made = [Backend("prefill"), Backend("decode"), Backend("decode")]
    yield made
    for one in made:
        one.close()


def address(one: Backend) -> str:
    return f"{one.address[0]}:{one.address[1]}"


def test_one_life_of_a_proxy(launch: Launcher, servers: list[Backend]) -> None:
    port = free_port()
    options = [*NJS, "--listen-port", port, "--core-num", 1]
    options += ["--prefill-servers-list", address(servers[0])]
    first = [*options, "--decode-servers-list", address(servers[1])]
    second = [*options, "--decode-servers-list", address(servers[2])]
    assert launch.json("--status", code=1)["state"] == "stopped"
    started = launch.json(*first)
    assert started["action"] == "started"
    assert launch.json(*first) == {**started, "action": "unchanged"}
    url = f"http://127.0.0.1:{port}/v1/completions"
    assert request(url, body={"prompt": "p"}, timeout_s=9).status == 200
    assert launch.json(*second) == {**started, "action": "reloaded"}
    assert request(url, body={"prompt": "p"}, timeout_s=9).status == 200
    assert (len(servers[1].seen), len(servers[2].seen)) == (1, 1)
    # As it is: no lists, and the kind and the binary are those of the record.
    assert launch.json("--reload") == {**started, "action": "reloaded"}
    assert launch.json("--status")["state"] == "running"
    assert launch.json("--stop")["action"] == "stopped"
    assert launch.json("--stop")["action"] == "unchanged"
    assert request(url, timeout_s=5).status == 0


def test_a_stop_leaves_another_nginx_alone(
    launch: Launcher, servers: list[Backend], tmp_path: Path
) -> None:
    other = Launcher(tmp_path / "other")
    lists = ["--prefill-servers-list", "", "--decode-servers-list", address(servers[1])]
    try:
        launch.json(*NJS, "--listen-port", free_port(), *lists)
        other.json(*NJS, "--listen-port", free_port(), *lists)
        assert launch.json("--stop")["action"] == "stopped"
        assert other.json("--status")["state"] == "running"
    finally:
        other("--stop")


def test_a_taken_port_is_wrong_input_and_its_owner_is_named(
    launch: Launcher, servers: list[Backend]
) -> None:
    done = launch(*NJS, *LISTS, "--listen-port", servers[0].address[1])
    assert done.returncode == 2
    assert f"taken by pid {os.getpid()} " in done.stderr


def test_a_dry_run_prints_the_file_and_changes_nothing(launch: Launcher) -> None:
    done = launch(*LISTS, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# generated from")
    assert "server 192.0.2.1:9000 max_fails=3 fail_timeout=10s;" in done.stdout
    assert "a start would: start" in done.stderr
    assert not launch.run_dir.exists()


def without_modules(text: str) -> str:
    """omni-infer's file less what only its modules know: they exist in its image alone."""
    own = ("load_module", "set_request_id", "prefill /", "pd_score_balance")
    return "\n".join(x for x in text.splitlines() if not x.strip().startswith(own)) + "\n"


def test_omni_infers_file_runs_on_a_host_without_packages(
    launch: Launcher, servers: list[Backend], tmp_path: Path
) -> None:
    """All but the modules' own: other paths go to prefill, generation (here) straight to decode."""
    found = proxy_install.find()
    assert found is not None
    port = free_port()
    lists = ["--prefill-servers-list", address(servers[0])]
    lists += ["--decode-servers-list", address(servers[1])]
    printed = launch(*lists, "--listen-port", port, "--dry-run", "--log-file", tmp_path / "e.log")
    file = tmp_path / "nginx.conf"
    file.write_text(without_modules(printed.stdout))
    # -S: no packages, as on a host.
    given = ("--config-file", file, "--nginx", found.path)
    assert launch.json(*given, python=("-S",))["action"] == "started"
    assert launch.json(*given, python=("-S",))["action"] == "unchanged"
    assert launch.json("--reload", python=("-S",))["action"] == "reloaded"
    url = f"http://127.0.0.1:{port}"
    assert request(f"{url}/health", timeout_s=5).json()["role"] == "proxy"
    assert request(f"{url}/v1/models", timeout_s=5).status == 200
    assert request(f"{url}/v1/chat/completions", body={"n": 1}, timeout_s=5).status == 200
    assert request(f"{url}/prefill_internal/v1/models", timeout_s=5).status == 404
    assert [len(one.seen) for one in servers] == [1, 1, 0]
    assert launch.json("--stop", python=("-S",))["action"] == "stopped"


def test_missing_modules_are_wrong_input_in_nginxs_own_words(launch: Launcher) -> None:
    found = proxy_install.find()
    assert found is not None
    done = launch(*LISTS, "--nginx", found.path, "--listen-port", free_port())
    assert done.returncode == 2
    assert "ngx_http_set_request_id_module.so" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--decode-servers-list", "a:1"), "--prefill-servers-list"),
        ((), "--prefill-servers-list"),
        ((*LISTS, "--prefill-lb-sdk", "fastest"), "proxy.prefill_balance"),
        ((*LISTS, "--core-num", "0"), "proxy.worker_processes"),
        ((*NJS, *LISTS, "--decode-lb-sdk", "pd_score_balance"), "one of least_conn, round_robin"),
        (("--config-file", "/no/such", "--core-num", "2"), "--core-num"),
        (("--config-file", "/no/such"), "/no/such"),
        (("--stop", "--reload"), "not allowed with"),
        ((*NJS, *LISTS, "--listen-port", "1", "--nginx", "/no/such/nginx"), "/no/such/nginx"),
        (("--reload", *NJS, *LISTS), "no running proxy"),
    ],
)
def test_misuse_is_named_with_status_2(launch: Launcher, words: tuple, says: str) -> None:
    done = launch(*words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr


def test_without_packages_it_says_what_to_do(launch: Launcher) -> None:
    done = launch(*LISTS, python=("-S",))
    assert done.returncode == 2
    assert "--config-file" in done.stderr and "Traceback" not in done.stderr
