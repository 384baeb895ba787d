"""Whether containers have their environment, asked of a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
from container_cases import small_spec
from docker_host import BASE_IMAGE, DockerHost
from image_cases import use
from profile_image import GOOD, LIBRARY, profile_image

from hostkit.containers import containers, engines
from hostkit.nodes import setup_look

pytestmark = pytest.mark.slow
TAG = "omnikit-test/good:1"


@pytest.fixture
def engine(docker_host: DockerHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerHost]:
    use(monkeypatch, docker_host)
    profile_image(docker_host, TAG, GOOD)
    before = names(docker_host)
    yield docker_host
    assert names(docker_host) == before  # what was asked is gone


def names(engine: DockerHost) -> list[str]:
    return sorted(engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split())


def a_spec(**changes: Any) -> dict[str, Any]:
    profile = {"file": "/root/.bashrc", "library": LIBRARY, "python": "python3"}
    return small_spec("t-look", image=TAG, profile=profile, **changes)


def test_an_image_with_its_environment_is_asked_once_for_all(
    engine: DockerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    trial = containers.trial_words

    def counted(spec: dict[str, Any], image: str, words: list[str]) -> list[str]:
        asked.append(spec["profile"]["library"])
        return trial(spec, image, words)

    monkeypatch.setattr(containers, "trial_words", counted)
    proxy = a_spec()
    proxy["profile"] = {**proxy["profile"], "library": None}
    assert setup_look.problems([proxy, a_spec(), small_spec("t-none")]) == []
    assert asked == [LIBRARY]


def test_mounts_that_are_not_there_are_not_made(engine: DockerHost, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert setup_look.problems([a_spec(mounts=[f"{absent}:/x", f"{tmp_path}:/y"])]) == []
    assert not absent.exists()


def test_what_a_container_mounts_counts(engine: DockerHost, tmp_path: Path) -> None:
    """The driver's libraries are the host's."""
    (found,) = setup_look.problems([a_spec(mounts=[f"{tmp_path}:/opt/cann"])])
    assert found.asked and f"{LIBRARY}: cannot open shared object file" in found.what


def test_a_question_that_cannot_be_put_is_no_finding(engine: DockerHost) -> None:
    (refused,) = setup_look.problems([a_spec(args=["--no-such-option"])])
    assert not refused.asked and "no-such-option" in refused.what
    (absent,) = setup_look.problems([{**a_spec(), "image": "no/such:1"}])
    assert not absent.asked and "the image is not on this host" in absent.what


def test_an_image_without_the_python_is_named(engine: DockerHost) -> None:
    bare = {**a_spec(), "image": BASE_IMAGE}
    bare["profile"] = {"file": "/etc/passwd", "library": None, "python": "python3"}
    (found,) = setup_look.problems([bare])
    assert found.what == f"the image {BASE_IMAGE} has no python3."


def test_a_file_that_does_not_come_to_its_end_is_named(
    engine: DockerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = profile_image(engine, "omnikit-test/hangs:1", "sleep 1000\n")
    real = engines.find
    monkeypatch.setattr(engines, "find", lambda kind: real(kind, 8.0))
    (found,) = setup_look.problems([{**a_spec(), "image": tag}])
    assert found.what == f"image {tag}: /root/.bashrc has not come to its end in time."


def test_a_container_that_runs_as_wanted_is_asked_itself(engine: DockerHost) -> None:
    spec = a_spec()
    containers.ensure({"spec": spec})
    try:
        assert setup_look.problems([spec]) == []
        engine.docker("exec", "t-look", "bash", "-c", "echo 'exit 1' >/root/.bashrc")
        (found,) = setup_look.problems([spec])
        assert found.what.startswith("container t-look: /root/.bashrc ends the shell")
        # One that would be made anew has the image's file again.
        assert setup_look.problems([{**spec, "shm_size": "17m"}]) == []
    finally:
        engine.docker("rm", "--force", "t-look")


def test_a_supervisor_loads_it_only_where_its_python_needs_it(engine: DockerHost) -> None:
    text = f"{GOOD}mkdir -p /opt/bin; export PATH=/opt/bin:$PATH\n"
    tag = profile_image(engine, "omnikit-test/path:1", f"{text}export FROM_FILE=1\n")
    spec = {**a_spec(), "image": tag}
    containers.ensure({"spec": spec})
    try:
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        program = {"there": "python3", "by the file alone": "python9"}
        engine.docker("exec", "t-look", "python3", "-c", _SECOND_PYTHON)
        for where, python in program.items():
            words = containers.launch_words(spec, [python, "-c", code], "/log", "A=b")
            engine.docker(*[word for word in words[1:] if word != "-d"])
            said = engine.docker("exec", "t-look", "cat", "/log").stdout
            variables = json.loads(said.splitlines()[-1])
            assert ("FROM_FILE" in variables) is (where != "there")
    finally:
        engine.docker("rm", "--force", "t-look")


_SECOND_PYTHON = """
import os
os.makedirs("/opt/bin", exist_ok=True)
os.symlink(os.path.realpath("/bin/python3"), "/opt/bin/python9")
"""
