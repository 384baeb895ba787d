"""The same jobs with Podman: a real one with its own folders, and a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker_host import BASE_IMAGE, DockerHost, free_port
from image_cases import PASSWORD, USER, image_id, locked_registry, parameters, push
from omnikit import host_engine, host_image, host_image_archive, host_image_look
from omnikit.errors import ActionError

pytestmark = pytest.mark.slow


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> host_engine.Engine:
    """Podman's images of this test are below its folder."""
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    return host_engine.find("podman")


def allow(monkeypatch: pytest.MonkeyPatch, folder: Path, *addresses: str) -> None:
    """Unlike Docker, Podman wants to be told that a registry on the loopback has no TLS."""
    text = "".join(f'[[registry]]\nlocation = "{one}"\ninsecure = true\n' for one in addresses)
    (folder / "registries.conf").write_text(text)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(folder / "registries.conf"))


def test_podman_pulls_with_log_in_and_mirror_saves_and_loads(
    podman: host_engine.Engine, docker_host: DockerHost, tmp_path: Path, monkeypatch
) -> None:
    with locked_registry(tmp_path / "locked") as address:
        docker_host.docker("login", "--username", USER, "--password", PASSWORD, address)
        image, down = f"{address}/team/app:1", f"127.0.0.1:{free_port()}"
        expected = image_id(docker_host, BASE_IMAGE)
        digest = push(docker_host, image)
        docker_host.docker("logout", address)
        allow(monkeypatch, tmp_path, address, down)
        more = {"engine": "podman", "credentials": f"{USER}:{PASSWORD}", "mirrors": [down]}
        with pytest.raises(ActionError, match="does not let this host have it"):
            host_image.pull(parameters(image, **{**more, "credentials": None}))
        first = host_image.pull(parameters(image, **more))
        assert (first["action"], first["id"], first["digest"]) == ("pulled", expected, digest)
        assert host_image.pull(parameters(image, **more))["action"] == "unchanged"
        with pytest.raises(ActionError, match="no such image"):
            host_image.pull(parameters(f"{address}/team/app:7", **more))
    archive = tmp_path / "app.tar"
    assert host_image.save({"image": image, "engine": "podman", "archive": str(archive)})["changed"]
    podman.ask("rmi", image)
    assert host_image_look.find(podman, image) is None
    given = {
        "image": image,
        "engine": "podman",
        "archive": str(archive),
        "sha256": host_image_archive.expected(archive),
        "ids": list(host_image_archive.content(archive).ids),
        "free_mib": 1,
    }
    assert host_image.load(given)["action"] == "loaded"
    assert host_image.load(given)["action"] == "unchanged"
