"""The container scripts as a person calls them: IMAGE and NAME, look first, never a stranger's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import BASE_IMAGE, DockerHost

ROOT = Path(__file__).resolve().parents[1]
# What any machine can run: the guide's defaults need an NPU host.
SMALL = [
    *("--set", "container.privileged=false", "--set", "container.shm_size=16m"),
    *("--set", "container.devices=[]", "--set", "container.mounts=[]"),
    *("--set", "container.workdir=/", "--set", "container.grace_s=1"),
]


def call(script: str, *words: str, host: DockerHost) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", *words],
        cwd=ROOT,
        env={**os.environ, **host.env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def engine(docker_host: DockerHost) -> Iterator[DockerHost]:
    yield docker_host
    names = docker_host.docker("ps", "-aq").stdout.split()
    if names:
        docker_host.docker("rm", "--force", *names)


@pytest.mark.slow
def test_started_then_unchanged_then_made_anew_stopped_and_removed(engine: DockerHost) -> None:
    def start(*more: str) -> str:
        done = call("start_container.py", BASE_IMAGE, "by-name", *SMALL, *more, host=engine)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert start() == "this machine: by-name started\n"
    assert start() == "this machine: by-name unchanged\n"
    said = start("--set", "container.shm_size=32m")
    assert said.splitlines()[0] == "this machine: by-name recreated"
    assert 'shm_size: "16m" -> "32m"' in said
    stop = call("stop_container.py", "by-name", host=engine)
    assert stop.stdout == "this machine: by-name stopped\n"
    assert call("stop_container.py", "by-name", host=engine).stdout.endswith("unchanged\n")
    remove = call("remove_container.py", "by-name", host=engine)
    assert remove.stdout == "this machine: by-name removed\n"
    assert "there is none" in call("remove_container.py", "by-name", host=engine).stdout


@pytest.mark.slow
def test_a_dry_run_prints_the_command_and_starts_nothing(engine: DockerHost) -> None:
    done = call("start_container.py", "--dry-run", BASE_IMAGE, "by-name", host=engine)
    assert done.returncode == 0
    assert done.stdout.startswith("docker run --name by-name -it -d --shm-size=500g")
    assert "by-name: create" in done.stderr
    assert engine.docker("ps", "-aq").stdout == ""


@pytest.mark.slow
def test_a_strangers_container_is_left_alone_by_all_three(engine: DockerHost) -> None:
    engine.docker("run", "-d", "-it", "--net=host", "--name", "theirs", BASE_IMAGE, "bash")
    before = json.loads(engine.docker("inspect", "theirs").stdout)[0]["Id"]
    for script, words in (
        ("start_container.py", [BASE_IMAGE, "theirs", *SMALL]),
        ("stop_container.py", ["theirs"]),
        ("remove_container.py", ["theirs"]),
    ):
        done = call(script, *words, host=engine)
        assert done.returncode == 2
        assert "was not made by this toolkit; it is left alone" in done.stderr
    there = json.loads(engine.docker("inspect", "theirs").stdout)[0]
    assert there["Id"] == before and there["State"]["Running"]


@pytest.mark.slow
def test_missing_devices_are_named_before_anything_starts(engine: DockerHost) -> None:
    done = call("start_container.py", BASE_IMAGE, "by-name", host=engine)
    assert done.returncode == 2
    assert "there is no device /dev/davinci_manager" in done.stderr
    assert engine.docker("ps", "-aq").stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["image:1"], "IMAGE and NAME belong together"),
        (["image:1", "a b; rm -rf x"], "cannot be the name of a container"),
        (["$(id)", "name"], "cannot be the image of a container"),
        (["--environment", "local"], "do not run in containers"),
        (["--environment", "2p1d", "--host", "p9", "--dry-run"], "there is no host 'p9'"),
    ],
)
def test_wrong_words_are_misuse(words: list[str], said: str) -> None:
    done = call("start_container.py", *words, host=DockerHost(Path("/no/such")))
    assert done.returncode == 2 and said in done.stderr


def test_the_planned_containers_are_shown_for_every_host() -> None:
    done = call("start_container.py", "-e", "2p1d", "--dry-run", host=DockerHost(Path("/no/such")))
    assert done.returncode == 0
    hosts = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert hosts == ["p0", "p0", "p1", "d0", "d1"]
