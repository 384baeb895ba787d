"""The commands of a pull, in order. Real pulls: test_host_image.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_cases import parameters

from hostkit.base.errors import InputError
from hostkit.containers import image_pull
from hostkit.containers.engines import Engine

ENGINE = Engine("docker", "docker")
DIGEST = "sha256:" + "a" * 64


def lines(image: str, **more) -> list[str]:
    given = parameters(image, **{"platform": "linux/arm64", **more})
    return [" ".join(argv) for argv in image_pull.plan_argvs(ENGINE, given)]


def test_mirrors_are_asked_before_the_registry() -> None:
    found = lines("r.example/a:1", mirrors=["m.example", "n.example/x"], credentials="u:")
    assert found == [
        "docker image inspect -- r.example/a:1",
        "docker pull --platform linux/arm64 m.example/a:1",
        "docker tag m.example/a:1 r.example/a:1",
        "docker rmi m.example/a:1",
        "docker pull --platform linux/arm64 n.example/x/a:1",
        "docker tag n.example/x/a:1 r.example/a:1",
        "docker rmi n.example/x/a:1",
        "docker login --username u --password-stdin r.example",
        "docker pull --platform linux/arm64 r.example/a:1",
    ]


def test_a_digest_keeps_the_mirrors_name_because_no_other_can_be_given() -> None:
    rename = image_pull.rename_argvs
    assert rename(ENGINE, f"m/a@{DIGEST}", f"r.example/a@{DIGEST}") == []
    assert rename(ENGINE, f"m/a@{DIGEST}", f"r.example/a:1@{DIGEST}") == [
        ["docker", "tag", f"m/a@{DIGEST}", "r.example/a:1"]
    ]


DOCKER, PODMAN = Engine("docker", "docker"), Engine("podman", "podman")


def test_the_password_is_not_among_the_words() -> None:
    words = ["docker", "login", "--username", "u", "--password-stdin"]
    assert image_pull.argv(DOCKER, "r.example", "u") == [*words, "r.example"]
    assert image_pull.argv(DOCKER, "docker.io", "u") == words
    assert image_pull.argv(PODMAN, "docker.io", "u")[-1] == "docker.io"


@pytest.mark.parametrize("text", ["", "only-a-secret", "user:", ":secret"])
def test_credentials_have_two_parts_and_are_not_shown(text) -> None:
    with pytest.raises(InputError) as caught:
        image_pull.split(text)
    assert "USER:PASSWORD" in str(caught.value) and "secret" not in str(caught.value)


def test_a_password_may_hold_colons() -> None:
    assert image_pull.split("u:a:b\n") == ("u", "a:b")


@pytest.mark.parametrize("engine", [DOCKER, PODMAN])
def test_the_folder_is_private_and_goes(engine) -> None:
    with image_pull.private(engine, "r.example") as env:
        path = Path(*env.values())
        folder = path if engine.kind == "docker" else path.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    assert not folder.exists()
