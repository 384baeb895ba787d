"""An image with this machine's own Python, pip, git and bash, for jobs that run in containers."""

from __future__ import annotations

import io
import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Optional

import pip
from docker_host import DockerHost, static_files

PYTHON_IMAGE = "omnikit-test/python:1"
_PROGRAMS = ("bash", "sleep", "cat", "git", "dirname", "realpath", "mkdir", "env")
_LEFT_OUT = ("site-packages", "dist-packages", "test", "__pycache__", "idlelib", "tkinter")
_LEFT_OUT += ("EXTERNALLY-MANAGED", "lib2to3", "turtledemo")


def make_python_image(host: DockerHost, tag: str = PYTHON_IMAGE) -> str:
    """The image; made once per engine."""
    if host.docker("image", "inspect", tag, check=False).returncode == 0:
        return tag
    archive = host.folder / "python.tar"
    with tarfile.open(archive, "w") as made:
        _add_all(made)
    host.docker("import", str(archive), tag)
    archive.unlink()
    return tag


def _add_all(made: tarfile.TarFile) -> None:
    python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    stdlib = Path(sysconfig.get_path("stdlib"))
    files = static_files({f"/bin/{name}": str(shutil.which(name)) for name in _PROGRAMS})
    files.update(static_files({str(python): str(python)}))
    for module in (stdlib / "lib-dynload").glob("*.so"):
        libraries = static_files({str(module): str(module)})
        files.update({name: path for name, path in libraries.items() if Path(name) != module})
    for name, path in files.items():
        made.add(path.resolve(), name.lstrip("/"))
    made.add(stdlib, str(stdlib).lstrip("/"), filter=_wanted)
    # Beside the standard library every layout of a Python finds it.
    made.add(Path(pip.__file__).parent, f"{stdlib}/pip".lstrip("/"), filter=_wanted)
    for link, target in (
        ("bin/sh", "bash"),
        ("bin/python3", str(python)),
        ("bin/python", str(python)),
        ("bin/git-upload-pack", "git"),
    ):
        entry = tarfile.TarInfo(link)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        made.addfile(entry)
    for folder in ("tmp", "root"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o700
        made.addfile(entry)
    users = b"root:x:0:0:root:/root:/bin/bash\n"
    entry = tarfile.TarInfo("etc/passwd")
    entry.size = len(users)
    made.addfile(entry, io.BytesIO(users))


def _wanted(entry: tarfile.TarInfo) -> Optional[tarfile.TarInfo]:
    return None if Path(entry.name).name in _LEFT_OUT else entry
