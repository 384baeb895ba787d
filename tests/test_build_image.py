"""The command line of build_image.py."""

from __future__ import annotations

import json
from pathlib import Path

import build_image
import pytest
from docker_host import BASE_IMAGE, DockerHost
from image_cases import forget, use

from omnikit.images import build


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "WORK", tmp_path / "work")


@pytest.mark.parametrize("given", ["APT_MIRROR", "=x", "a-b=c"])
def test_an_argument_without_a_value_is_misuse(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_image.main(["control", f"--build-arg={given}"]) == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err


def test_a_name_that_nobody_knows_is_misuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_image.main([str(tmp_path / "none")]) == 2
    assert "choose control, cpu-engine, omni-infer" in capsys.readouterr().err


@pytest.mark.needs("docker")
def test_a_stopped_engine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert build_image.main(["control"]) == 2
    assert "the Docker daemon is not running" in capsys.readouterr().err


@pytest.mark.slow
def test_results_go_to_standard_output_and_progress_does_not(
    docker_host: DockerHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(monkeypatch, docker_host)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo hi\n")
    tag = "omnikit-test/script:1"
    words = [str(folder), "--tag", tag, "--set", "image.free_mib=1"]
    try:
        assert build_image.main([*words, "--dry-run"]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert (len(shown), shown[-1]) == (2, f"{tag}: would be built")
        assert build_image.main(words) == 0
        said = capsys.readouterr()
        assert said.out == f"{tag}: built\n"
        assert "step 2 of" in said.err
        assert build_image.main([*words, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["image"], answer["result"]) == (tag, "unchanged")
        assert len(answer["inputs"]) == 64
    finally:
        forget(docker_host, tag)
