"""The log-in's command and its private folder. Real log-ins: test_host_image.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from hostkit.containers import registry_login
from hostkit.containers.engines import Engine

DOCKER, PODMAN = Engine("docker", "docker"), Engine("podman", "podman")


def test_the_password_is_not_among_the_words() -> None:
    words = ["docker", "login", "--username", "u", "--password-stdin"]
    assert registry_login.argv(DOCKER, "r.example", "u") == [*words, "r.example"]
    assert registry_login.argv(DOCKER, "docker.io", "u") == words
    assert registry_login.argv(PODMAN, "docker.io", "u")[-1] == "docker.io"


@pytest.mark.parametrize("text", ["", "only-a-secret", "user:", ":secret"])
def test_credentials_have_two_parts_and_are_not_shown(text) -> None:
    with pytest.raises(InputError) as caught:
        registry_login.split(text)
    assert "USER:PASSWORD" in str(caught.value) and "secret" not in str(caught.value)


def test_a_password_may_hold_colons() -> None:
    assert registry_login.split("u:a:b\n") == ("u", "a:b")


@pytest.mark.parametrize("engine", [DOCKER, PODMAN])
def test_the_folder_is_private_and_goes(engine) -> None:
    with registry_login.private(engine, "r.example") as env:
        path = Path(*env.values())
        folder = path if engine.kind == "docker" else path.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    assert not folder.exists()
