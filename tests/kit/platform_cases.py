"""Images for other processors, made without running them; and archives and indexes with several.

Nothing in them is of another architecture but what they say of themselves: that is what engines,
and the toolkit, go by.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from docker_host import DockerHost, small_root
from image_cases import forget
from port_rooms import free_port

from hostkit.containers import engines as containers_platforms

OWN = containers_platforms.own()
OTHER = "linux/arm64" if OWN == "linux/amd64" else "linux/amd64"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def archive_for(path: Path, tag: str, platform: str) -> Path:
    """An archive of docker save with the small image, which says that it is for a platform."""
    root = small_root(path.with_suffix(".root"))
    layer = root.read_bytes()
    root.unlink()
    system, machine = platform.split("/")
    config = json.dumps(
        {
            "os": system,
            "architecture": machine,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
        }
    ).encode()
    name = f"{_sha256(config)}.json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]
    _tar(path, {"layer.tar": layer, name: config, "manifest.json": _json(manifest)})
    return path


def oci_archive(path: Path, platforms: Sequence[str], name: str, nested: bool = True) -> Path:
    """An OCI layout with an image for each platform below one name, and what is no image."""
    files: dict[str, bytes] = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"})}

    def blob(data: bytes) -> dict[str, Any]:
        files[f"blobs/sha256/{_sha256(data)}"] = data
        return {"digest": f"sha256:{_sha256(data)}", "size": len(data)}

    kind = "application/vnd.oci.image."
    layer = {"mediaType": f"{kind}layer.v1.tar", **blob(_tar(None, {"file": b"x"}))}
    entries = []
    for platform in (*platforms, "unknown/unknown"):
        system, machine = platform.split("/")
        diff = layer["digest"]
        config: dict[str, Any] = {"os": system, "architecture": machine, "config": {}}
        config["rootfs"] = {"type": "layers", "diff_ids": [diff]}
        manifest = {"schemaVersion": 2, "mediaType": f"{kind}manifest.v1+json", "layers": [layer]}
        manifest["config"] = {"mediaType": f"{kind}config.v1+json", **blob(_json(config))}
        entry = {"mediaType": f"{kind}manifest.v1+json", **blob(_json(manifest))}
        entries.append({**entry, "platform": {"os": system, "architecture": machine}})
    missing = {"mediaType": f"{kind}manifest.v1+json", "digest": f"sha256:{'0' * 64}", "size": 1}
    entries.append({**missing, "platform": {"os": "linux", "architecture": "riscv64"}})
    index = {"schemaVersion": 2, "mediaType": f"{kind}index.v1+json", "manifests": entries}
    notes = {"annotations": {"org.opencontainers.image.ref.name": name}}
    if nested:
        inner = {"mediaType": f"{kind}index.v1+json", **blob(_json(index)), **notes}
        index = {"schemaVersion": 2, "manifests": [inner]}
    else:
        index["manifests"] = [{**entry, **notes} for entry in entries[: len(platforms)]]
    files["index.json"] = _json(index)
    _tar(path, files)
    return path


def add_sum(path: Path) -> Path:
    """Write an archive's check sum beside it."""
    Path(f"{path}.sha256").write_text(f"{_sha256(path.read_bytes())}  {path.name}\n")
    return path


def load_for(host: DockerHost, tag: str, platform: str) -> str:
    """An image for a platform in that engine, whichever it has itself; its tag."""
    archive = archive_for(host.folder / "foreign.tar", tag, platform)
    host.docker("load", "--input", str(archive))
    archive.unlink()
    return tag


def push_for(host: DockerHost, name: str, *platforms: str) -> None:
    """One image for a platform at a registry; for several an index of them. Not kept here."""
    single = [name] if len(platforms) == 1 else [f"{name}-{p.split('/')[1]}" for p in platforms]
    for tag, platform in zip(single, platforms):
        load_for(host, tag, platform)
        host.docker("push", tag)
        forget(host, tag)
    if len(platforms) == 1:
        return
    address, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    entries = []
    for one, platform in zip(single, platforms):
        address_of = f"http://{address}/v2/{repository}/manifests/{one.rpartition(':')[2]}"
        request = urllib.request.Request(address_of, headers={"Accept": _MANIFEST})
        data = urllib.request.urlopen(request).read()
        system, machine = platform.split("/")
        where: dict[str, str] = {"os": system, "architecture": machine}
        where.update({"variant": "v8"} if machine == "arm64" else {})
        entry = {"mediaType": _MANIFEST, "size": len(data), "digest": f"sha256:{_sha256(data)}"}
        entries.append({**entry, "platform": where})
    index = _json({"schemaVersion": 2, "mediaType": _LIST, "manifests": entries})
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{tag}",
        data=index,
        method="PUT",
        headers={"Content-Type": _LIST},
    )
    urllib.request.urlopen(request).close()


def platform_of(host: DockerHost, name: str) -> str:
    """What an image of that engine is for; empty when it is not there."""
    words = ("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", name)
    return host.docker(*words, check=False).stdout.strip()


def answers_as(folder: Path, platform: str) -> Path:
    """A docker in a folder that says that its engine is of a platform; the real one does the work.

    There is no machine of another architecture here.
    """
    folder.mkdir(parents=True)
    script, real = folder / "docker", shutil.which("docker")
    answer = f"*Server.Arch*) echo {platform} ;;"
    script.write_text(f'#!/bin/bash\ncase "$*" in\n{answer}\n*) exec {real} "$@" ;;\nesac\n')
    script.chmod(0o755)
    return folder


@contextmanager
def silent_host(folder: Path) -> Iterator[Path]:
    """An environment whose one host refuses connections; its file.

    The address is one for documentation, given to the loopback interface meanwhile.
    """
    address = "198.51.100.77"
    path = folder / "silent.yaml"
    path.write_text(
        "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
        f"hosts:\n  p0: {{address: {address}, user: root, port: {free_port()}}}\n"
        "topology: {colocated: [{hosts: [p0]}]}\n"
    )
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield path
    finally:
        subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(data: Any) -> bytes:
    return json.dumps(data).encode()


def _tar(path: Any, files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    if path is not None:
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()
