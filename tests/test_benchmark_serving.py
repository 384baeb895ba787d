"""The command line of the load test; real loads on real servers: test_deploy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import DockerHost
from load_cases import GENERATOR
from proxy_backend import Backend
from python_image import make_python_image
from ssh_hosts import kept_connections, make_key, ssh_host

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "198.51.100.91"


def benchmark(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/benchmark_serving.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )


@pytest.fixture
def server() -> Iterator[str]:
    """A server that says that it serves the model "tiny", on a port of its own."""
    text = json.dumps({"data": [{"id": "tiny", "max_model_len": 4096}]})
    backend = Backend("decode", behave=lambda handler, _: handler.answer(200, text))
    yield "http://{}:{}".format(*backend.address)
    backend.close()


@pytest.fixture
def engine(tmp_path: Path) -> str:
    """A virtual environment with the stand-in generator."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    line = f'PYTHONPATH="{GENERATOR}" exec "{sys.executable}" "$@"'
    python.write_text(f"#!/bin/sh\n{line}\n")
    python.chmod(0o755)
    return f"engine.venv={python.parents[1]}"


def test_a_result_is_shown_kept_drawn_and_compared(
    server: str, engine: str, tmp_path: Path
) -> None:
    words = ["--url", server, "--set", engine, "--set", "benchmark.generator=vllm-0.9"]
    words += ["--tokenizer", str(tmp_path), "--concurrency", "1,2", "--requests", "4"]
    done = benchmark(*words, "--out", str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    (first,) = (tmp_path / "a").iterdir()
    assert f"all of it: {first}" in done.stdout
    pictures = {
        f"{n}.{e}" for n in ("latency", "throughput", "distribution") for e in ("svg", "png")
    }
    kept = {path.name for path in first.iterdir()}
    assert kept == {"result.json", "result.csv", "generator.log", *pictures}
    again = benchmark(*words, "--out", str(tmp_path / "b"), "--compare", str(first), "--json")
    assert again.returncode == 0, again.stderr
    figures = json.loads(again.stdout)
    assert [run["completed"] for run in figures["runs"]] == [4, 4]
    assert "raw" not in figures["runs"][0]


def test_failed_requests_exit_1_with_the_evidence(server: str, engine: str, tmp_path: Path) -> None:
    text = json.dumps({"data": [{"id": "half"}]})
    backend = Backend("decode", behave=lambda handler, _: handler.answer(200, text))
    url = "http://{}:{}".format(*backend.address)
    words = ["--url", url, "--set", engine, "--tokenizer", str(tmp_path), "--model", "half"]
    done = benchmark(
        *words, "--out", str(tmp_path / "out"), "--set", "benchmark.generator=vllm-0.9"
    )
    backend.close()
    assert done.returncode == 1
    assert "20 x answer: Bad Gateway" in done.stdout
    assert f"error: {url}: requests failed" in done.stderr and "invoke status" in done.stderr


def test_dry_run_shows_the_command_and_sends_nothing() -> None:
    done = benchmark("-e", "2p1d", "--rate", "1,2", "--input", "512", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["runs_on"] == "container omnikit_2p1d_p0 on p0"
    assert shown["command"].count("--request-rate") == 2
    assert "--random-input-len=512" in shown["command"]


def test_nothing_served_is_said_with_the_state() -> None:
    done = benchmark("-e", "local", "--set", "ports.proxy=7")
    assert done.returncode == 2
    assert "does not serve (ConnectionRefusedError" in done.stderr
    assert "instance  role" in done.stderr and "make deploy" in done.stderr
    assert done.stdout == ""


def test_where_the_engine_is_not_here_the_load_comes_from_a_host_over_ssh(
    server: str, engine: str, tmp_path: Path
) -> None:
    """A real SSH server; the host's engine is the stand-in, and its model is not known here."""
    with ssh_host(tmp_path / "p0", ADDRESS, make_key(tmp_path / "key"), {}) as host:
        site = tmp_path / "site.yaml"
        site.write_text(
            "profile: {engine: cpu, model: tiny-qwen2}\n"
            f"paths: {{work_dir: {tmp_path}/work}}\n"
            "model: {path: /only/there}\n"
            "benchmark: {generator: vllm-0.9}\n"
            f"keys: {{known_hosts: {host.known_hosts}}}\n"
            f"hosts: {{p0: {host.entry()}}}\n"
            "topology: {colocated: [{hosts: [p0]}]}\n"
        )
        words = ["-e", str(site), "--set", engine, "--url", server, "--requests", "4"]
        with kept_connections() as env:
            options = f"{env['ANSIBLE_SSH_ARGS']} -o UserKnownHostsFile={host.known_hosts}"
            done = benchmark(*words, "--out", str(tmp_path / "out"), ANSIBLE_SSH_ARGS=options)
    assert done.returncode == 0, done.stderr
    assert f"tiny at {server}, load from host p0" in done.stdout
    (result,) = (tmp_path / "out").glob("*/result.json")
    kept = json.loads(result.read_text())
    assert kept["ran_on"] == "host p0" and "ssh " in kept["command"]
    assert [run["completed"] for run in kept["runs"]] == [4, 4]


def test_where_servers_run_in_containers_the_load_comes_from_one_of_them(
    server: str, docker_host: DockerHost, tmp_path: Path
) -> None:
    """A real container with the stand-in generator; the driver's text goes in by standard input."""
    site = tmp_path / "boxes.yaml"
    site.write_text(
        "profile: {engine: cpu, model: tiny-qwen2}\n"
        "runtime: docker\n"
        f"paths: {{work_dir: {tmp_path}/work}}\n"
        f"engine: {{venv: {tmp_path}/none}}\n"
        "container: {venv: null}\n"
        "benchmark: {generator: vllm-0.9}\n"
        "hosts: {here: {address: 127.0.0.1, connection: local}}\n"
        "topology: {colocated: [{hosts: [here]}]}\n"
    )
    name = "omnikit_boxes_s0"
    words = ["run", "-d", "--name", name, "--network", "host", "-v", f"{GENERATOR}:/generator:ro"]
    words += ["-e", "PYTHONPATH=/generator", make_python_image(docker_host), "sleep", "600"]
    docker_host.docker(*words)
    try:
        asked = ["-e", str(site), "--url", server, "--requests", "4", "--concurrency", "2"]
        done = benchmark(*asked, "--out", str(tmp_path / "out"), **docker_host.env)
    finally:
        docker_host.docker("rm", "-f", name)
    assert done.returncode == 0, done.stderr
    assert f"load from container {name} on here" in done.stdout
    assert "4 of 4" in done.stdout
    gone = benchmark(*asked, "--out", str(tmp_path / "out"), **docker_host.env)
    assert gone.returncode == 1
    assert name in gone.stderr and "before the first answer" in gone.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--concurrency", "0"], "'0' is no whole number of at least 1"),
        (["--concurrency", "1,x"], "'x' is no whole number of at least 1"),
        (["--rate", "0"], "'0' is no number above 0"),
        (["--rate", "inf"], "'inf' is no number above 0"),
        (["--output", "1"], "'1' is no whole number of at least 2"),
        (["--concurrency", "1,2", "--rate", "1"], "found 2 values and a rate"),
        (["--instance", "d1"], "there is no server 'd1', is it 'd0'?"),
        (["--instance", "d0", "--url", "http://h:1"], "not allowed with argument"),
        (["--url", "h"], "expected http://HOST:PORT"),
        (["--url", "http://127.0.0.1:99999"], "with a port up to 65535"),
        (["--url", "http://a..b:80"], "expected http://HOST:PORT"),
        (["--compare", "no-such-file"], "the earlier result cannot be read"),
        (["-e", "2p1d", "--chat", "--url", "http://h:1"], "sends completions only"),
    ],
)
def test_misuse_exits_2(words: list[str], said: str) -> None:
    done = benchmark(*words)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
