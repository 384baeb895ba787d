"""launch_proxy.py as a user runs it: options, exit codes, one whole life of a proxy."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import launch_proxy
import pytest
from certificates import Authority
from port_rooms import free_port
from proxy_backend import Backend

from hostkit.base.health import request
from omnikit.proxy import install

# Real processes, seconds together.
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]

SCRIPT = Path(__file__).parents[1] / "scripts" / "launch_proxy.py"
LISTS = ("--prefill-servers-list", "192.0.2.1:9000", "--decode-servers-list", "192.0.2.2:9100")
NJS = ("--kind", "nginx-lua")


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


def test_keys_and_tls_as_options_and_a_renewed_certificate(
    launch: Launcher, servers: list[Backend], tmp_path: Path
) -> None:
    port, authority, key = free_port(), Authority(tmp_path), "k" * 40
    tls = authority.make()
    (tmp_path / "keys").write_text(f"me: {key}\n")
    options = [*NJS, "--listen-port", port, "--prefill-servers-list", address(servers[0])]
    options += ["--decode-servers-list", address(servers[1])]
    options += ["--set", f"proxy.api_keys={{file: {tmp_path}/keys}}"]
    for name in ("certificate", "key", "ca"):
        options += ["--set", f"proxy.tls.{name}={tls[name]}"]
    shown = launch(*options, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert key not in shown.stdout and "PRIVATE KEY" not in shown.stdout
    started = launch.json(*options)
    assert started["action"] == "started"
    assert launch.json("--status")["state"] == "running"
    context = ssl.create_default_context(cafile=tls["ca"])
    url, body = f"https://127.0.0.1:{port}/v1/completions", {"prompt": "p"}
    may = {"Authorization": f"Bearer {key}"}
    assert request(url, body=body, timeout_s=9, tls=context).status == 401
    assert request(url, body=body, timeout_s=9, tls=context, headers=may).status == 200
    before = ssl.get_server_certificate(("127.0.0.1", port))
    authority.make()
    assert launch.json(*options) == {**started, "action": "reloaded"}
    assert ssl.get_server_certificate(("127.0.0.1", port)) != before
    assert request(url, body=body, timeout_s=9, tls=context, headers=may).status == 200
    assert launch.json(*options) == {**started, "action": "unchanged"}
    private = [path for path in launch.run_dir.rglob("*") if path.is_file()]
    assert {"tls.key", "pd_keys.lua"} <= {path.name for path in private}
    for path in private:
        secret = path.name in ("tls.key", "pd_keys.lua")
        assert key not in path.read_text(errors="replace"), path
        assert not secret or path.stat().st_mode & 0o077 == 0, path


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
    own = ("load_module", "set_request_id", "stream_ops", "prefill /", "pd_score_balance")
    return "\n".join(x for x in text.splitlines() if not x.strip().startswith(own)) + "\n"


def test_omni_infers_file_runs_on_a_host_without_packages(
    launch: Launcher, servers: list[Backend], tmp_path: Path
) -> None:
    """All but the modules' own: other paths go to prefill, generation (here) straight to decode."""
    found = install.find()
    assert found is not None
    port = free_port()
    lists = ["--prefill-servers-list", address(servers[0])]
    lists += ["--decode-servers-list", address(servers[1])]
    lists += ["--metrics-servers-list", address(servers[2])]
    # The same words as for omni-infer's launcher, in their short forms.
    more = ["-p", port, "-c", 1, "-s", 1000, "-l", tmp_path / "e.log", "-d"]
    printed = launch(*lists, *more, "--client-body-buffer-size", "1k", "--stream-ops", "set_opt")
    assert printed.returncode == 0, printed.stderr
    assert "            stream_ops set_opt;" in printed.stdout
    assert "client_body_buffer_size 1k;" in printed.stdout
    file = tmp_path / "nginx.conf"
    file.write_text(without_modules(printed.stdout))
    # -S: no packages, as on a host.
    given = ("--config-file", file, "--nginx", found.path)
    first = launch(*given, python=("-S",))
    assert first.stdout.startswith("started"), first.stderr
    assert "cores up to 1000, this host has" in first.stderr  # a note: nginx leaves it unbound
    assert launch.json(*given, python=("-S",))["action"] == "unchanged"
    assert launch.json("--reload", python=("-S",))["action"] == "reloaded"
    url = f"http://127.0.0.1:{port}"
    assert request(f"{url}/health", timeout_s=5).json()["role"] == "proxy"
    assert request(f"{url}/v1/models", timeout_s=5).status == 200
    assert request(f"{url}/v1/chat/completions", body={"n": 1}, timeout_s=5).status == 200
    assert request(f"{url}/prefill_internal/v1/models", timeout_s=5).status == 404
    assert request(f"{url}/metrics", timeout_s=5).status == 200
    assert [len(one.seen) for one in servers] == [1, 1, 1]
    assert launch.json("--stop", python=("-S",))["action"] == "stopped"


@pytest.mark.parametrize("closed", [False, True])
def test_a_request_larger_than_the_buffer_goes_through_a_file(
    closed: bool, servers: list[Backend]
) -> None:
    """nginx's workers are not root: they must be able to enter the folder."""
    found = install.find()
    assert found is not None
    fails = closed and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o700 if closed else 0o711)
        launch = Launcher(Path(folder) / "run")
        port = free_port()
        lists = ["--prefill-servers-list", "", "--decode-servers-list", address(servers[1])]
        more = ["-p", port, "--client-body-buffer-size", "1k", "--nginx", found.path]
        more += ["--decode-lb-sdk", "least_conn", "-l", Path(folder) / "e.log"]
        try:
            done = launch(*lists, *more)
            assert done.returncode == 0, done.stderr
            assert (f"cannot enter {folder}" in done.stderr) == fails
            body = {"prompt": "long " * 10_000}
            answer = request(f"http://127.0.0.1:{port}/v1/completions", body=body, timeout_s=5)
            assert answer.status == (500 if fails else 200)
        finally:
            launch("--stop", "--grace", 0)


def test_missing_modules_are_wrong_input(launch: Launcher) -> None:
    found = install.find()
    assert found is not None
    done = launch(*LISTS, "--nginx", found.path, "--listen-port", free_port())
    assert done.returncode == 2
    assert "ngx_http_set_request_id_module.so" in done.stderr
    assert "proxy.modules_dir" in done.stderr
    assert not launch.run_dir.exists() or not list(launch.run_dir.glob("nginx*"))


@pytest.mark.parametrize("option", [name for names in launch_proxy.NOT_TAKEN for name in names])
@pytest.mark.parametrize("value", [(), ("7000",)])
def test_an_option_that_is_not_taken_says_why(
    option: str, value: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch_proxy.main([*LISTS, option, *value]) == 2
    said = capsys.readouterr().err
    assert "it is not taken: " in said and "What to do: " in said


def test_an_empty_variable_of_a_script_asks_for_nothing(launch: Launcher) -> None:
    done = launch(*LISTS, "--dry-run", "--bootstrap-port", "", "--engine-type", "vllm")
    assert done.returncode == 0, done.stderr


def test_there_is_nothing_to_roll_back(launch: Launcher) -> None:
    done = launch("-S", "-R")
    assert done.returncode == 0 and "nothing to roll back" in done.stderr
    assert done.stdout == "unchanged\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--decode-servers-list", "a:1"), "--prefill-servers-list"),
        ((), "--prefill-servers-list"),
        ((*LISTS, "--prefill-lb-sdk", "fastest"), "proxy.prefill_balance"),
        ((*LISTS, "--core-num", "0"), "proxy.worker_processes"),
        ((*NJS, *LISTS, "--decode-lb-sdk", "pd_score_balance"), "one of least_work, least_conn"),
        (("--config-file", "/no/such", "--core-num", "2"), "--core-num"),
        (("--config-file", "/no/such"), "/no/such"),
        (("--stop", "--reload"), "not allowed with"),
        ((*NJS, *LISTS, "--listen-port", "1", "--nginx", "/no/such/nginx"), "/no/such/nginx"),
        (("--reload", *NJS, *LISTS), "no running proxy"),
        ((*LISTS, "--engine-type", "sglang"), "found 'sglang', expected vllm"),
        ((*LISTS, "--rollback"), "add --stop"),
        ((*LISTS, "--stream-ops", "often"), "proxy.stream_ops"),
        ((*LISTS, "--client-body-buffer-size", "1 MB"), "proxy.client_body_buffer_size"),
        ((*LISTS, "--decode-max-num-seqs", "0"), "max-num-seqs of decode servers"),
        ((*LISTS, "--metrics-servers-list", "a"), "--metrics-servers-list"),
        ((*NJS, *LISTS, "--metrics-servers-list", "a:1"), "answers /metrics itself"),
        (("--config-file", "/no/such", "--stream-ops", "off"), "--stream-ops"),
    ],
)
def test_misuse_is_named_with_status_2(launch: Launcher, words: tuple, says: str) -> None:
    done = launch(*words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr


def test_without_packages_it_says_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(SCRIPT.parent, tmp_path / "scripts")  # without an environment beside it
    argv = [sys.executable, "-S", str(tmp_path / "scripts" / SCRIPT.name), *LISTS]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"make -C {tmp_path}" in done.stderr and "Traceback" not in done.stderr
