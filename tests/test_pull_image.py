"""scripts/pull_image.py: what is meant, shown and refused; from any directory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pull_image
import pytest
from docker_host import BASE_IMAGE, DockerHost, registry
from image_cases import forget, image_id, push, use
from platform_cases import OWN
from port_rooms import free_port
from settings_file import FLEET, write

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "pull_image.py"


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_help_names_the_script_and_its_options(tmp_path: Path) -> None:
    done = started(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: pull_image.py ")
    for word in ("--host", "--export", "--from-archive", "--dry-run", "--json", "exit codes"):
        assert word in done.stdout


def test_a_dry_run_works_from_any_directory_and_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    done = started(tmp_path, "--environment", "2p1d", "--dry-run")
    assert done.returncode == 0 and "p1:\n  docker image inspect -- swr." in done.stdout
    done = started(tmp_path, "no image")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


OPTIONS = ["--set", "image.free_mib=1", "--set", "image.delay_s=0.1"]


def test_an_image_alone_means_this_machine(capsys) -> None:
    assert pull_image.main(["r.example/a:1", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "this machine:",
        "  docker image inspect -- r.example/a:1",
        '  docker pull --platform "linux/$(uname -m)" r.example/a:1',
    ]


def test_an_environment_means_its_hosts(capsys, tmp_path: Path) -> None:
    path = str(write(tmp_path, FLEET + "container: {image: r.example/a:1, engine: podman}\n"))
    words = ["--environment", path, "--dry-run", "--json"]
    assert pull_image.main([*words, "--host", "d1", "--host", "p0"]) == 0
    shown = json.loads(capsys.readouterr().out)["commands"]
    assert list(shown) == ["p0", "d1"]
    assert shown["d1"][-1] == 'podman pull --platform "linux/$(uname -m)" r.example/a:1'
    assert pull_image.main([*words, "b:2"]) == 0
    shown = json.loads(capsys.readouterr().out)["commands"]
    assert list(shown) == ["p0", "p1", "d0", "d1"] and shown["d0"][-1].endswith(" b:2")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["A B"], "not an image's name"),
        (["a:1", "--export", "x.tar", "--from-archive", "y.tar"], "--export works on this machine"),
        (["a:1", "--from-archive", "none.tar"], "check sum is not there"),
        (["-e", "local", "--host", "x"], "there is no host 'x'"),
    ],
)
def test_mistakes_are_said(capsys, monkeypatch, tmp_path, words, text) -> None:
    monkeypatch.chdir(tmp_path)
    assert pull_image.main(words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_pull_export_and_from_archive(
    docker_host: DockerHost, tmp_path: Path, monkeypatch, capsys
) -> None:
    use(monkeypatch, docker_host)
    archive = tmp_path / "app.tar"
    with registry(tmp_path / "registry", free_port()) as address:
        image = f"{address}/team/command:1"
        push(docker_host, image)
        assert pull_image.main([image, *OPTIONS, "--dry-run"]) == 0
        assert image_id(docker_host, image) == ""
        assert pull_image.main([image, "--export", str(archive), *OPTIONS]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert "this machine: saved" in line and f" for {OWN}, archive {archive}" in line
        assert pull_image.main([image, "--export", str(archive), *OPTIONS]) == 0
        assert capsys.readouterr().out.startswith("this machine: unchanged")
        assert pull_image.main([f"{address}/team/none:1", *OPTIONS, "--json"]) == 1
        said = capsys.readouterr()
        assert "no such image" in json.loads(said.out)["errors"]["this machine"]
        assert said.err.rstrip().splitlines()[-1].startswith("  What to do: ")
    try:
        forget(docker_host, image)
        words = [image, "--from-archive", str(archive), *OPTIONS]
        assert pull_image.main([*words, "--dry-run"]) == 0
        assert image_id(docker_host, image) == ""
        capsys.readouterr()
        for action in ("loaded", "unchanged"):
            assert pull_image.main([*words, "--json"]) == 0
            result = json.loads(capsys.readouterr().out)["hosts"]["this machine"]
            assert (result["action"], result["changed"]) == (action, action == "loaded")
            assert result["id"] == image_id(docker_host, BASE_IMAGE)
        assert archive.exists()
    finally:
        forget(docker_host, image)
