"""An image by its layers: which are on this host, which go to others, and the image put together of
those that came and those that were here. They travel as a folder's files, named by their SHA-256.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import re
import shutil
import tarfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Collection, Iterable, Iterator, Optional, Sequence, Union

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from hostkit.containers import engines, image_archive, image_look, images
from hostkit.containers.engines import Engine
from hostkit.containers.image_look import MIB, is_called, parse
from hostkit.spread import folder
from hostkit.spread.folder import Meter

_NAMED = re.compile(r"([0-9a-f]{64})(?:\.tar)?")
_GZIP = b"\x1f\x8b"
_OCI = "application/vnd.oci.image"
_STEP = 1 << 20


def chains(layers: Iterable[str]) -> list[str]:
    """For each layer the name of it with all that are below (OCI: chain ID): only where those are
    here, too, can an engine use it.

    >>> chains(["sha256:a"])
    ['sha256:a']
    """
    found: list[str] = []
    for layer in layers:
        both = f"{found[-1]} {layer}" if found else ""
        found.append(f"sha256:{hashlib.sha256(both.encode()).hexdigest()}" if found else layer)
    return found


def lacking(layers: Sequence[str], here: Collection[str]) -> list[str]:
    """The layers of an image that are not among the chains of a host, each once."""
    pairs = zip(layers, chains(layers))
    return list(dict.fromkeys(layer for layer, chain in pairs if chain not in here))


def look(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: the image of a name on this host, None without it; chains of layers that are here.

    parameters: image, engine. place, free_mib: where images live; None where that is not seen.
    """
    engine = engines.find(parameters["engine"])
    found = image_look.find(engine, parameters["image"])
    place = image_look.folder(engine)
    return {
        "changed": False,
        "platform": engine.platform(),
        "image": asdict(found) if found else None,
        "chains": sorted(_here(engine)),
        "place": str(place) if place else None,
        "free_mib": image_look.free_mib(place) if place else None,
    }


def _here(engine: Engine) -> set[str]:
    if engine.kind == "docker":
        # That store wants each layer packed as it was pulled, which no archive has.
        told = engine.ask("info", "--format", "{{json .DriverStatus}}")
        if "io.containerd.snapshotter" in told.out:
            return set()
    ids = set(engine.ask("image", "ls", "--quiet", "--no-trunc").out.split())
    if not ids:
        return set()
    done = engine.ask("image", "inspect", *sorted(ids), check=False)  # one may just have gone
    return {
        chain
        for there in json.loads(done.out or "[]")
        for chain in chains(image_look.layers(there))
    }


# --- who gives ------------------------------------------------------------------------------------


def offer(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: what others lack of an image, as files in a folder: layers, unpacked, and configuration.

    parameters: image, engine, dir, work_dir, archive (a path; None: the engine's own image), chains
    (those that all others have), free_mib (stays free on the disk).
    """
    image, place = str(parameters["image"]), Path(parameters["dir"])
    archive = Path(parameters["archive"]) if parameters["archive"] else None
    source: Union[Path, list[str]]
    if archive is not None:
        layers, size, source = image_archive.layers(archive, image), archive.stat().st_size, archive
    else:
        engine = engines.find(parameters["engine"])
        found = image_look.find(engine, image)
        if found is None:
            raise InputError(f"the image {image} is not on this host.")
        layers, size, source = list(found.layers), found.size, engine.argv("save", image)
    wanted = lacking(layers, set(parameters["chains"]))
    skip = {_hex(layer) for layer in layers} - {_hex(layer) for layer in wanted}
    say(f"reading {image}: {len(wanted)} of {len(layers)} layers are lacking somewhere")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, mode=0o700)
    try:
        with _stream(source) as stream:
            export = _Export(stream, place, skip, parameters["free_mib"], Meter("reading", size))
            export.read()
        entry = export.entry(image)
        config = export.digests[entry["Config"]]
        told = json.loads((place / config).read_bytes())
        _same(export, told["rootfs"]["diff_ids"], entry["Layers"], layers)
        names = {config, *map(_hex, wanted)}
        for path in place.iterdir():
            if path.name not in names:
                path.unlink()
    except BaseException as error:
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, (tarfile.TarError, EOFError, KeyError, ValueError, TypeError)):
            raise ActionError(f"the layers of {image} cannot be read: {error}.") from error
        raise
    folder.note(parameters["work_dir"], place, {name: name for name in names})
    return {
        "changed": True,
        "files": {
            name: {"size": (place / name).stat().st_size, "sha256": name} for name in sorted(names)
        },
        "layers": layers,
        "sizes": {layer: export.sizes[_hex(layer)] for layer in layers},
        "config": config,
    }


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _stream(source: Union[Path, list[str]]) -> Any:
    return source.open("rb") if isinstance(source, Path) else run.reading(source)


def _same(export: _Export, told: list[str], names: list[str], layers: list[str]) -> None:
    """Each layer is there, and is what the configuration says."""
    if told != layers or len(names) != len(layers):
        raise ActionError("the image was changed meanwhile.", todo="call it again")
    for layer, name in zip(layers, names):
        if export.digest(name) != _hex(layer):
            raise ActionError(
                f"{name} is not the layer {layer}, or is packed otherwise than by gzip.",
                todo="send the image whole: --set image.pass_on=never",
            )


class _Export:
    """What docker save writes, taken apart while it comes: its files by their hashes, unpacked.

    skip: layers that nobody needs. digests: by name in the archive; sizes: by digest.
    """

    def __init__(
        self, stream: IO[bytes], place: Path, skip: set[str], free_mib: float, meter: Meter
    ) -> None:
        self.stream, self.place, self.skip = stream, place, skip
        self.free_mib, self.meter = free_mib, meter
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.links: dict[str, str] = {}

    def read(self) -> None:
        """All of it."""
        with tarfile.open(fileobj=self.stream, mode="r|") as archive:
            for member in archive:
                name = posixpath.normpath(member.name)
                if member.issym():  # of Docker before 25: a layer that is there twice
                    at = posixpath.join(posixpath.dirname(name), member.linkname)
                    self.links[name] = posixpath.normpath(at)
                elif member.islnk():
                    self.links[name] = posixpath.normpath(member.linkname)
                elif member.isfile():
                    self._take(name, member.size, archive.extractfile(member))

    def _take(self, name: str, size: int, file: Optional[IO[bytes]]) -> None:
        assert file is not None
        named = _NAMED.fullmatch(posixpath.basename(name))
        if named and named[1] in self.skip:
            self.digests[name], self.sizes[named[1]] = named[1], size
            self.meter.add(size)
            return
        image_look.check_space(
            self.place, size / MIB + self.free_mib, "a layer", " (distribution.free_mib)"
        )
        digest, count, part = hashlib.sha256(), 0, self.place / ".part"
        with part.open("wb") as to:
            for block in _unpacked(file):
                digest.update(block)
                to.write(block)
                count += len(block)
        self.meter.add(size)
        found = digest.hexdigest()
        self.digests[name], self.sizes[found] = found, count
        if found in self.skip:
            part.unlink()
        else:
            part.replace(self.place / found)

    def digest(self, name: str) -> str:
        """Of a file in it."""
        name = posixpath.normpath(name)
        return self.digests[self.links.get(name, name)]

    def entry(self, image: str) -> dict[str, Any]:
        """What its manifest says of an image."""
        told = json.loads((self.place / self.digests["manifest.json"]).read_bytes())
        found: list[dict[str, Any]] = [
            one for one in told if is_called(tuple(one.get("RepoTags") or ()), image)
        ]
        return (found or told)[0]


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    head = file.read(2)
    if head != _GZIP:
        yield head
        while block := file.read(_STEP):
            yield block
        return
    with gzip.GzipFile(fileobj=_Joined(head, file)) as inner:
        while block := inner.read(_STEP):
            yield block


class _Joined(io.RawIOBase):
    """Bytes, and then the rest of the file that they were read from."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes at most."""
        if self.head:
            head, self.head = self.head, b""
            return head
        return self.rest.read(size)


def clear(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: take the files away again. parameters: dir, work_dir, files."""
    shutil.rmtree(parameters["dir"], ignore_errors=True)
    kept = Path(parameters["work_dir"]) / "spread" / folder.digest(parameters["files"])
    for ending in (".torrent", ".json"):
        with suppress(FileNotFoundError):
            kept.with_suffix(ending).unlink()
    return {"changed": True}


# --- who gets them --------------------------------------------------------------------------------


def load(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: the image of the layers in a folder and those that are here; the folder goes.

    parameters: those of images.load but archive, sha256 and ids; dir, layers, sizes, config, giver.
    """
    place, archive = Path(parameters["dir"]), Path(parameters["dir"]) / ".image.tar"
    layers = parameters["layers"]
    came = [layer for layer in dict.fromkeys(layers) if (place / _hex(layer)).is_file()]
    try:
        manifest = _write(archive, parameters, came)
        ids = [parameters["config"], manifest]
        sha256 = image_archive.checksum(archive)
        result = images.load({**parameters, "archive": str(archive), "sha256": sha256, "ids": ids})
    finally:
        shutil.rmtree(place, ignore_errors=True)
    count = len(set(layers))
    note = f"{len(came)} of {count} layers came" + (", the others were here" * (len(came) < count))
    return {**result, "from": parameters["giver"], "note": note}


def _write(path: Path, given: dict[str, Any], came: Sequence[str]) -> str:
    """The archive that an engine loads: as docker save writes it, in Docker's and in OCI's words,
    but without the layers that are here. Returns the hash of its manifest.
    """
    place, config, wanted = Path(given["dir"]), given["config"], parse(given["image"])

    def about(kind: str, digest: str, size: int) -> dict[str, Any]:
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": size}

    size = (place / config).stat().st_size
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": about("config.v1+json", config, size),
        "layers": [about("layer.v1.tar", _hex(x), given["sizes"][x]) for x in given["layers"]],
    }
    data = json.dumps(manifest).encode()
    own = hashlib.sha256(data).hexdigest()
    name = wanted.at(wanted.registry)
    entry = {
        **about("manifest.v1+json", own, len(data)),
        "annotations": dict.fromkeys(
            ("io.containerd.image.name", "org.opencontainers.image.ref.name"), name
        ),
    }
    saved = {
        "Config": f"blobs/sha256/{config}",
        "RepoTags": [f"{wanted.name}:{wanted.tag or 'latest'}"],
        "Layers": [f"blobs/sha256/{_hex(layer)}" for layer in given["layers"]],
    }
    texts = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        "manifest.json": json.dumps([saved]).encode(),
        f"blobs/sha256/{own}": data,
    }
    with tarfile.open(path, "w") as archive:
        for at, text in texts.items():
            about_it = tarfile.TarInfo(at)
            about_it.size = len(text)
            archive.addfile(about_it, io.BytesIO(text))
        for digest in (config, *map(_hex, came)):
            archive.add(place / digest, f"blobs/sha256/{digest}")
    return own
