"""A small image with all that a deployment of stand-in servers needs (Python, server, nginx)."""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Mapping, Sequence

from docker_host import DockerHost, static_files
from needs import needs

from omnikit.proxy import spec

SERVER_IMAGE = "omnikit-test/server:1"
# Where the image has the stand-in server (fleet_server.py).
SERVER = "/opt/fleet_server.py"
_NGINX = "/usr/sbin/nginx"
_MODULES = [f"{spec.MODULE_PLACES[0]}/{name}" for name in spec.LUA_MODULES]
_LUA = Path("/usr/share/lua/5.1")  # what the second of them needs
_PROGRAMS = ("bash", "sleep", "cat", "dirname", "realpath", "mkdir", "env")
# Of the standard library: what servers do not need, most of its size.
_LEFT_OUT = ("site-packages", "dist-packages", "test", "__pycache__", "idlelib", "tkinter")
_LEFT_OUT += ("config-*", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "_test*")
# nginx changes to "nobody" for its workers, and does not start where there is none.
_USERS = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/bash\n"
_GROUPS = "root:x:0:\nnogroup:x:65534:\n"


def save_server_image(host: DockerHost, archive: Path) -> Path:
    """Make the image in an engine, and write it into an archive with its check sum beside."""
    return save(host, server_image(host, archive.parent, SERVER_IMAGE), archive)


def save(host: DockerHost, tag: str, archive: Path) -> Path:
    """Write an image into an archive with its check sum beside."""
    host.docker("save", "--output", str(archive), tag)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    return archive


def server_image(host: DockerHost, folder: Path, tag: str, nginx: str = _NGINX) -> str:
    """Make such an image in an engine, with nginx at a place; its tag."""
    needs("nginx", "lua")
    tree = folder / "tree"
    server = {SERVER: str(Path(__file__).with_name("fleet_server.py"))}
    furnish(tree, _PROGRAMS, {nginx: _NGINX, **dict(zip(_MODULES, _MODULES)), **server})
    shutil.copytree(_LUA, tree / str(_LUA).lstrip("/"))
    return make(host, tree, tag)


def make(host: DockerHost, tree: Path, tag: str, changes: Sequence[str] = ()) -> str:
    """Make an image of a tree, which goes; its tag.

    changes: of its configuration, as `docker import --change` takes them.
    """
    packed = tree.with_name("tree.tar")
    shutil.make_archive(str(tree), "tar", tree)
    words = [word for change in changes for word in ("--change", change)]
    host.docker("import", *words, str(packed), tag)
    shutil.rmtree(tree)
    packed.unlink()
    return tag


def furnish(tree: Path, programs: Sequence[str], more: Mapping[str, str]) -> str:
    """Lay a tree out with this machine's Python and programs, in /bin; returns Python's path there.

    more: other files by their path in the image, with the libraries that they load.
    """
    python = str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]
    stdlib = Path(sysconfig.get_path("stdlib"))
    inside = tree / str(stdlib).lstrip("/")
    shutil.copytree(stdlib, inside, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    found = {f"/bin/{name}": str(shutil.which(name)) for name in programs}
    files = static_files({**found, python: python, **more})
    for module in (inside / "lib-dynload").glob("*.so"):
        loaded = static_files({str(module): str(module)})
        files.update({name: path for name, path in loaded.items() if name != str(module)})
    for name, path in files.items():
        place = tree / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (tree / "bin/sh").symlink_to("bash")
    (tree / "bin/python3").symlink_to(python)
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text(_USERS)
    (tree / "etc/group").write_text(_GROUPS)
    return python
