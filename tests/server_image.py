"""A small image with all that a deployment of stand-in servers needs (Python, server, nginx)."""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path

from docker_host import DockerHost, static_files
from needs import needs

SERVER_IMAGE = "omnikit-test/server:1"
# Where the image has the stand-in server (fleet_server.py).
SERVER = "/opt/fleet_server.py"
_NGINX = "/usr/sbin/nginx"
_NJS = "/usr/lib/nginx/modules/ngx_http_js_module.so"
_PROGRAMS = ("bash", "sleep", "cat", "dirname", "realpath", "mkdir", "env")
# Of the standard library: what servers do not need, most of its size.
_LEFT_OUT = ("site-packages", "dist-packages", "test", "__pycache__", "idlelib", "tkinter")
_LEFT_OUT += ("config-*", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "_test*")
# nginx changes to "nobody" for its workers, and does not start where there is none.
_USERS = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/bash\n"
_GROUPS = "root:x:0:\nnogroup:x:65534:\n"


def save_server_image(host: DockerHost, archive: Path) -> Path:
    """Make the image in an engine, and write it into an archive with its check sum beside."""
    needs("nginx")
    tree, packed = archive.with_name("tree"), archive.with_name("tree.tar")
    _furnish(tree)
    shutil.make_archive(str(tree), "tar", tree)
    host.docker("import", str(packed), SERVER_IMAGE)
    shutil.rmtree(tree)
    packed.unlink()
    host.docker("save", "--output", str(archive), SERVER_IMAGE)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    return archive


def _furnish(tree: Path) -> None:
    """The image's files."""
    python = str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]
    stdlib = Path(sysconfig.get_path("stdlib"))
    inside = tree / str(stdlib).lstrip("/")
    shutil.copytree(stdlib, inside, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    programs = {f"/bin/{name}": str(shutil.which(name)) for name in _PROGRAMS}
    files = static_files({**programs, python: python, _NGINX: _NGINX, _NJS: _NJS})
    for module in (inside / "lib-dynload").glob("*.so"):
        found = static_files({str(module): str(module)})
        files.update({name: path for name, path in found.items() if name != str(module)})
    files[SERVER] = Path(__file__).with_name("fleet_server.py")
    for name, path in files.items():
        place = tree / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (tree / "bin/sh").symlink_to("bash")
    (tree / "bin/python3").symlink_to(python)
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text(_USERS)
    (tree / "etc/group").write_text(_GROUPS)
