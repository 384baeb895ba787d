"""Jobs in a real container: the same steps, the same results, and their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from docker_host import DockerHost, wait_for
from image_cases import use
from python_image import make_python_image
from source_cases import Sources, make_sources, parameters

from hostkit.base.errors import ActionError, InputError
from hostkit.base.writing import write_private
from hostkit.containers import engines, inside
from hostkit.source import packages, source_jobs
from omnikit.fleet import bundle, jobs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
NAME = "omnikit-test-inside"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the container sees at the same path."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def container(docker_host: DockerHost, shared: Path) -> Iterator[str]:
    words = ["run", "-d", "--name", NAME, "--network=host", "-v", f"{shared}:{shared}"]
    words += ["-e", f"HOLD={shared}/hold", make_python_image(docker_host), "sleep", "600"]
    docker_host.docker(*words)
    yield NAME
    docker_host.docker("rm", "--force", NAME, check=False)


@pytest.fixture(scope="module")
def sources(shared: Path) -> Sources:
    return make_sources(shared / "repos")


@pytest.fixture
def given(
    container: str,
    sources: Sources,
    shared: Path,
    tmp_path: Path,
    docker_host: DockerHost,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    use(monkeypatch, docker_host)
    archive = tmp_path / "jobs.pyz"
    write_private(archive, bundle.archive({}, bundle.host_code()))
    return parameters(
        sources,
        shared / "code",
        python="python3",
        container=container,
        engine="docker",
        container_python="python3",
        archive=str(archive),
    )


def left(host: DockerHost) -> str:
    """Files that a job has left in the container's /tmp."""
    code = "import os; print([n for n in os.listdir('/tmp') if n.startswith('omnikit')])"
    return host.docker("exec", NAME, "python3", "-c", code).stdout.strip()


def test_all_steps_twice(given: dict[str, Any], docker_host: DockerHost, capsys) -> None:
    for changed in (True, False):
        assert source_jobs.fetch(given)["changed"] is changed
        assert source_jobs.build(given)["changed"] is changed
        assert packages.install(given)["changed"] is changed
        found = packages.check(given)
        assert found["wrong"] == [] and found["packages"][0]["version"] == "0.4.1"
        said = capsys.readouterr().err
        assert ("installing omni_infer-0.4.1" in said) is changed
    assert left(docker_host) == "[]"
    # It is the container that has them, and not this machine.
    assert "vllm" in packages.check({**given, "container": None})["wrong"]


def test_an_error_in_the_container_is_the_same_error(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no such folder with wheels") as caught:
        packages.install({**given, "dir": "/none"})
    assert str(caught.value).startswith(f"container {NAME}: /none/build/dist: ")
    assert "--only build" in str(caught.value)
    with pytest.raises(ActionError, match="exit status is 3"):
        source_jobs.fetch(given)
        source_jobs.build({**given, "build": ["bash", "-c", "exit 3"]})


def test_parameters_are_in_no_command_line(given: dict[str, Any], tmp_path: Path) -> None:
    url = "https://me:s3cret@host.invalid/code.git"
    seen = tmp_path / "words"
    # No double: the real docker does the work, its words are written down.
    real = engines.find("docker").program
    script = tmp_path / "docker"
    script.write_text(f'#!/bin/bash\necho "$@" >> {seen}\nexec {real} "$@"\n')
    script.chmod(0o755)
    engine = engines.Engine("docker", str(script))
    told = {key: value for key, value in given.items() if key != "container"}
    told["omniinfer"] = {"urls": [url], "ref": "v1", "commit": None}
    told.update(dir=str(tmp_path / "x"), attempts=1)
    with pytest.raises(ActionError) as caught:
        inside.inside(engine, NAME, "python3", Path(given["archive"]), "source", told)
    assert "s3cret" not in seen.read_text() + str(caught.value)
    assert "host.invalid" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"container": "omnikit-none"}, "there is no container omnikit-none"),
        ({"container_python": "python9"}, "has no python9"),
        ({"container_python": "cat"}, "cat of the container .* is no Python 3.9"),
        ({"archive": "/none"}, "code for hosts is not there"),
    ],
)
def test_what_is_not_there_is_named(given: dict[str, Any], change: Any, text: str) -> None:
    with pytest.raises((InputError, ActionError), match=text):
        packages.check({**given, **change})


def test_a_stopped_container_is_named(given: dict[str, Any], docker_host: DockerHost) -> None:
    image = make_python_image(docker_host)
    docker_host.docker("create", "--name", "omnikit-test-stopped", image, "sleep", "1")
    try:
        with pytest.raises(InputError, match="does not run") as caught:
            packages.check({**given, "container": "omnikit-test-stopped"})
        assert "docker start omnikit-test-stopped" in str(caught.value)
    finally:
        docker_host.docker("rm", "omnikit-test-stopped")


def test_on_a_host_the_shipped_code_ships_itself(given: dict[str, Any]) -> None:
    words = [sys.executable, given["archive"], "job", "--job=packages"]
    told = jobs.encode({**given, "archive": None, "packages": ["none"], "optional": []})
    done = subprocess.run(words, input=told, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["wrong"] == ["none"]


def test_an_interrupt_ends_it_in_the_container_too(
    given: dict[str, Any], docker_host: DockerHost, shared: Path
) -> None:
    source_jobs.fetch(given)
    hold = shared / "hold"
    hold.touch()
    wheel = shared / "code/build/dist/vllm-0.9.0-py3-none-any.whl"
    wheel.unlink(missing_ok=True)
    words = [str(ROOT / "scripts/build_from_source.py"), "--dir", given["dir"], "--only", "build"]
    words += ["--in-container", NAME, "--set", "source.free_mib=1"]
    process = subprocess.Popen(words, env=os.environ, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(wheel.exists, "the first wheel")
        process.terminate()
        assert "interrupted" in process.communicate(timeout=60)[1]
        hold.unlink()

        def quiet() -> bool:
            return docker_host.docker("top", NAME).stdout.count("\n") == 2  # title, sleep 600

        wait_for(quiet, "nothing is left in the container")
        assert left(docker_host) == "[]"
        assert source_jobs.build(given)["changed"] is True
    finally:
        process.kill()
        process.wait()
        hold.unlink(missing_ok=True)


def test_the_script_does_it_by_name(given: dict[str, Any]) -> None:
    words = [str(ROOT / "scripts/build_from_source.py"), "--dir", given["dir"], "--json"]
    words += ["--in-container", NAME, "--only", "check", "--set", "source.packages=[none]"]
    done = subprocess.run(words, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 1 and "none is missing" in done.stderr
    found = json.loads(done.stdout)["check"]["hosts"]["this machine"]
    assert found["wrong"] == ["none"] and sys.executable not in done.stdout
