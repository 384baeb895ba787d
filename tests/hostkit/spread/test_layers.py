"""Layers taken out of archives of all engines' kinds, only those that somebody lacks."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any, Optional

import pytest
from docker_host import BASE_IMAGE, DockerHost
from image_cases import forget, image_id, use

from hostkit.base.errors import ActionError, InputError
from hostkit.spread import layers

IMAGE = "registry.invalid/team/app:2"
BLOBS = [os.urandom(3000), b"", os.urandom(2000), b""]  # the second and last are the same
HEXES = [hashlib.sha256(one).hexdigest() for one in BLOBS]
LAYERS = [f"sha256:{one}" for one in HEXES]
CONFIG = json.dumps({"rootfs": {"diff_ids": LAYERS}}).encode()
CONFIG_HEX = hashlib.sha256(CONFIG).hexdigest()


def archive(
    path: Path, files: dict[str, bytes], names: list[str], config: str, links: dict[str, str]
) -> Path:
    """An archive as docker save writes them. names: of the layers in it."""
    told = [{"Config": config, "RepoTags": [IMAGE], "Layers": names}]
    with tarfile.open(path, "w") as made:
        for name, data in {
            **files,
            config: CONFIG,
            "manifest.json": json.dumps(told).encode(),
        }.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            made.addfile(about, io.BytesIO(data))
        for name, target in links.items():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.SYMTYPE, target
            made.addfile(about)
    return path


def old(path: Path) -> Path:
    """Of Docker before 25: layers by names that say nothing, one twice by a link."""
    files = {f"{number}/layer.tar": data for number, data in enumerate(BLOBS[:3])}
    files["repositories"] = b"{}"
    names = [f"{number}/layer.tar" for number in range(4)]
    return archive(path, files, names, f"{CONFIG_HEX}.json", {"3/layer.tar": "../1/layer.tar"})


def new(path: Path, pack: Any = bytes) -> Path:
    """Of Docker since 25, or of its store of containerd, which keeps layers packed."""
    packed = [pack(one) for one in BLOBS]
    names = [f"blobs/sha256/{hashlib.sha256(one).hexdigest()}" for one in packed]
    return archive(path, dict(zip(names, packed)), names, f"blobs/sha256/{CONFIG_HEX}", {})


def podman(path: Path) -> Path:
    names = [f"{one}.tar" for one in HEXES]
    return archive(path, dict(zip(names, BLOBS)), names, f"{CONFIG_HEX}.json", {})


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def in_members(data: bytes) -> bytes:
    """As estargz packs: one after the other."""
    return packed(data[:1000]) + packed(data[1000:])


def offered(folder: Path, path: Path, here: Optional[list[str]] = None) -> dict[str, Any]:
    return layers.offer(
        {
            **{"image": IMAGE, "engine": "docker", "dir": str(folder / "work" / "layers")},
            **{"work_dir": str(folder / "work"), "archive": str(path), "free_mib": 0},
            "chains": here or [],
        }
    )


@pytest.mark.parametrize(
    "make", [old, new, podman, lambda p: new(p, packed), lambda p: new(p, in_members)]
)
def test_what_is_lacking_is_taken_out_unpacked(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "app.tar")
    found = offered(tmp_path, path)
    place = tmp_path / "work" / "layers"
    assert {one.name for one in place.iterdir()} == {CONFIG_HEX, *HEXES} == set(found["files"])
    assert (place / HEXES[0]).read_bytes() == BLOBS[0]
    assert found["layers"] == LAYERS and found["config"] == CONFIG_HEX
    # Three layers are on the other hosts, one of them is needed again above the third.
    chains = layers.chains(LAYERS)
    found = offered(tmp_path, path, chains[:2])
    assert {one.name for one in place.iterdir()} == {CONFIG_HEX, *HEXES[1:3]}
    assert found["sizes"] == dict(zip(LAYERS, (3000, 0, 2000, 0)))
    assert set(offered(tmp_path, path, chains)["files"]) == {CONFIG_HEX}
    layers.clear({"dir": str(place), "work_dir": str(tmp_path / "work"), "files": found["files"]})
    assert not place.exists()


def test_layers_are_here_only_above_the_same_ones() -> None:
    chains = layers.chains(LAYERS)
    assert chains[0] == LAYERS[0] and len(set(chains)) == 4
    known = hashlib.sha256(f"{LAYERS[0]} {LAYERS[1]}".encode()).hexdigest()
    assert chains[1] == f"sha256:{known}"  # as OCI's image-spec has it
    assert layers.lacking(LAYERS, chains[:3]) == [LAYERS[3]]
    assert layers.lacking([LAYERS[2], LAYERS[0]], chains) == [LAYERS[2], LAYERS[0]]


def test_what_is_not_the_layer_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    damaged = new(tmp_path / "a.tar", lambda data: data[:-1] + b"x" if data else data)
    with pytest.raises(ActionError, match="is not the layer sha256:"):
        offered(tmp_path, damaged)
    cut = old(tmp_path / "b.tar")
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises((ActionError, InputError)):
        offered(tmp_path, cut)
    torn = new(tmp_path / "c.tar", lambda data: packed(data)[:-9])
    with pytest.raises(ActionError, match="cannot be read"):
        offered(tmp_path, torn)
    assert not (tmp_path / "work" / "layers").exists()


def test_a_full_disk_is_seen_before_a_layer_is_written(tmp_path: Path) -> None:
    path = new(tmp_path / "app.tar")
    given = {"image": IMAGE, "engine": "docker", "dir": str(tmp_path / "layers"), "chains": []}
    more = {"work_dir": str(tmp_path), "archive": str(path), "free_mib": 1 << 40}
    with pytest.raises(InputError, match=r"too little space for a layer: .*distribution\.free_mib"):
        layers.offer({**given, **more})
    assert not (tmp_path / "layers").exists()


@pytest.mark.slow
@pytest.mark.needs("podman", "dockerd", "docker", root=True)
def test_podman_takes_what_it_lacks_from_docker(
    docker_host: DockerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, docker_host)
    storage = tmp_path / "storage.conf"
    folders = f'graphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n'
    storage.write_text(f'[storage]\ndriver = "vfs"\n{folders}')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    made = docker_host.docker("create", BASE_IMAGE, "/bin/bash").stdout.strip()
    docker_host.docker("cp", str(Path(__file__)), f"{made}:/block")
    docker_host.docker("commit", made, IMAGE)
    docker_host.docker("rm", made)
    docker_host.docker("tag", BASE_IMAGE, f"{IMAGE}-base")
    place, work_dir = str(tmp_path / "work" / "layers"), str(tmp_path / "work")
    for image, note in ((f"{IMAGE}-base", "1 of 1 layers came"), (IMAGE, "1 of 2 layers came,")):
        look = layers.look({"image": image, "engine": "podman"})
        given = {"image": image, "dir": place, "work_dir": work_dir, "free_mib": 1}
        more = {"engine": "docker", "archive": None, "chains": look["chains"]}
        offer = layers.offer({**given, **more})
        told = {name: offer[name] for name in ("layers", "sizes", "config")}
        about = {"engine": "podman", "platform": None, "platforms": [], "giver": "a"}
        result = layers.load({**given, **about, **told})
        assert (result["action"], result["id"]) == ("loaded", image_id(docker_host, image))
        assert result["note"].startswith(note) and not Path(place).exists()
    forget(docker_host, IMAGE, f"{IMAGE}-base")
