"""Images that tests build on: Debian, made on this machine, and the CPU engine's image.

A registry is not needed: debootstrap makes Debian from its packages. That takes half a minute, so
the result is kept below build/ for the next run.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from docker_host import DockerHost
from needs import needs

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
DEBIAN_IMAGE = f"omnikit-test/debian:{SUITE}"
CPU_ENGINE_IMAGE = "omnikit/cpu-engine:0.32.0"


def debian_archive() -> Path:
    """A root file system of Debian as a tar file. It needs root, and the network the first time."""
    archive = ROOT / "build" / "test-base" / f"debian-{SUITE}-{platform.machine()}.tar"
    if archive.is_file():
        return archive
    folder = archive.with_name(f".{archive.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        root = folder / "root"
        needs("debootstrap", root=True)
        words = ["debootstrap", "--variant=minbase", SUITE, str(root), MIRROR]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        for rest in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
            shutil.rmtree(root / rest)
            (root / rest).mkdir()
        (root / "var/lib/apt/lists/partial").mkdir()
        (root / "var/cache/apt/archives/partial").mkdir()
        part = folder / "root.tar"
        with tarfile.open(part, "w") as made:
            made.add(root, ".")
        part.replace(archive)
    finally:
        shutil.rmtree(folder)
    return archive


def debian_image(host: DockerHost) -> str:
    """Debian (minbase) as an image of that engine; its tag."""
    if host.docker("image", "inspect", DEBIAN_IMAGE, check=False).returncode != 0:
        host.docker("import", str(debian_archive()), DEBIAN_IMAGE)
    return DEBIAN_IMAGE


def build_image(
    host: DockerHost, *words: str, check: bool = True, timeout: float = 1500
) -> subprocess.CompletedProcess[str]:
    """Run scripts/build_image.py against that engine."""
    script = ROOT / "scripts" / "build_image.py"
    done = subprocess.run(
        [sys.executable, str(script), *words],
        env={**os.environ, **host.env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def cpu_engine_image(host: DockerHost) -> str:
    """The CPU engine's image in that engine; its tag. The first time in a run takes minutes."""
    build_image(host, "cpu-engine", "--tag", CPU_ENGINE_IMAGE, "--base", debian_image(host))
    return CPU_ENGINE_IMAGE
