"""The same jobs with Podman: a real one with its own folders, and a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker_host import BASE_IMAGE, DockerHost, registry
from image_cases import PASSWORD, USER, image_id, locked_registry, parameters, push
from needs import needs
from platform_cases import OTHER, OWN, oci_archive, push_for
from port_rooms import free_port

from hostkit.base.errors import ActionError
from hostkit.containers import engines, image_archive, image_look, images

pytestmark = pytest.mark.slow


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> engines.Engine:
    """Podman's images of this test are below its folder."""
    needs("podman", root=True)
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    return engines.find("podman")


def allow(monkeypatch: pytest.MonkeyPatch, folder: Path, *addresses: str) -> None:
    """Unlike Docker, Podman wants to be told that a registry on the loopback has no TLS."""
    text = "".join(f'[[registry]]\nlocation = "{one}"\ninsecure = true\n' for one in addresses)
    (folder / "registries.conf").write_text(text)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(folder / "registries.conf"))


def test_podman_pulls_with_log_in_and_mirror_saves_and_loads(
    podman: engines.Engine, docker_host: DockerHost, tmp_path: Path, monkeypatch
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
            images.pull(parameters(image, **{**more, "credentials": None}))
        first = images.pull(parameters(image, **more))
        assert (first["action"], first["id"], first["digest"]) == ("pulled", expected, digest)
        assert images.pull(parameters(image, **more))["action"] == "unchanged"
        with pytest.raises(ActionError, match="no such image"):
            images.pull(parameters(f"{address}/team/app:7", **more))
    archive = tmp_path / "app.tar"
    assert images.save({"image": image, "engine": "podman", "archive": str(archive)})["changed"]
    podman.ask("rmi", image)
    assert image_look.find(podman, image) is None
    given = {
        "image": image,
        "engine": "podman",
        "archive": str(archive),
        "sha256": image_archive.expected(archive),
        "ids": list(image_archive.content(archive).ids),
        "platforms": [one.platform for one in image_archive.content(archive).images],
        "free_mib": 1,
    }
    assert images.load(given)["action"] == "loaded"
    assert images.load(given)["action"] == "unchanged"


def test_podman_takes_what_is_for_this_host_and_refuses_the_rest(
    podman: engines.Engine, docker_host: DockerHost, tmp_path: Path, monkeypatch
) -> None:
    with registry(tmp_path / "registry", free_port()) as address:
        allow(monkeypatch, tmp_path, address)
        both, foreign = f"{address}/team/both:1", f"{address}/team/foreign:1"
        push_for(docker_host, both, OTHER, OWN)
        push_for(docker_host, foreign, OTHER)
        assert images.pull(parameters(both, engine="podman"))["action"] == "pulled"
        found = image_look.find(podman, both)
        assert found is not None and found.platform == OWN == podman.platform()
        with pytest.raises(ActionError, match=f"only for {OTHER}, {OWN} is needed"):
            images.pull(parameters(foreign, engine="podman"))
        assert image_look.find(podman, foreign) is None


def test_podman_loads_its_own_of_an_archive_with_several(
    podman: engines.Engine, tmp_path: Path
) -> None:
    image = "localhost/team/both:1"
    archive = oci_archive(tmp_path / "both.tar", [OTHER, OWN], image)
    content = image_archive.content(archive)
    given = {
        "image": image,
        "engine": "podman",
        "archive": str(archive),
        "sha256": image_archive.checksum(archive),
        "ids": list(content.ids),
        "platforms": [one.platform for one in content.images],
        "free_mib": 1,
    }
    assert images.load(given)["action"] == "loaded"
    found = image_look.find(podman, image)
    assert found is not None and found.platform == OWN
