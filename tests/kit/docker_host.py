"""A real Docker engine and registry for the tests, started by them and ended after them.

The engine has its own socket and folders: it meets nothing of an engine that the machine may have.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable, Iterator, Mapping, Optional

from needs import needs

BASE_IMAGE = "omnikit-test/base:1"


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition; fails the test when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


@dataclass
class DockerHost:
    """folder: all that the engine writes. socket: what DOCKER_HOST names."""

    folder: Path

    @property
    def socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def env(self) -> dict[str, str]:
        """Variables with which a docker command talks to this engine."""
        return {"DOCKER_HOST": self.socket, "DOCKER_CONFIG": str(self.folder / "config")}

    def docker(
        self, *words: str, check: bool = True, stdin: Optional[IO[bytes]] = None
    ) -> subprocess.CompletedProcess[str]:
        """Run docker against this engine."""
        return subprocess.run(
            ["docker", *words],
            env={**os.environ, **self.env},
            check=check,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=600,
        )


@contextmanager
def docker_engine(folder: Path, *options: str) -> Iterator[DockerHost]:
    """A dockerd of its own below folder. It needs root. folder is removed afterwards."""
    needs("dockerd", "docker", root=True)
    folder.mkdir(parents=True, exist_ok=True)
    host = DockerHost(folder)
    argv = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    argv += ["-H", host.socket, "--pidfile", f"{folder}/pid", "--bridge=none", "--iptables=false"]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen([*argv, *options], stdout=log, stderr=log, start_new_session=True)
    try:

        def up() -> bool:
            assert daemon.poll() is None, (folder / "dockerd.log").read_text()[-2000:]
            return host.docker("version", check=False).returncode == 0

        wait_for(up, "dockerd answers")
        yield host
    finally:
        if daemon.poll() is None:
            names = host.docker("ps", "-aq", check=False).stdout.split()
            if names:
                host.docker("rm", "--force", *names, check=False)
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
        # dockerd leaves the network namespace that it made for its containers mounted.
        for mount in (folder / "exec" / "netns").glob("*"):
            subprocess.run(["umount", str(mount)], check=True)
        # Where / is a part of a file system (a root made by hand, btrfs), its own folder too.
        subprocess.run(["umount", f"{folder}/data"], check=False, capture_output=True)
        shutil.rmtree(folder)


def static_files(programs: Mapping[str, str]) -> dict[str, Path]:
    """The programs (name in the image: path here) with every library that they load."""
    found = {}
    for name, path in programs.items():
        found[name] = Path(path)
        for line in subprocess.run(
            ["ldd", path], capture_output=True, text=True
        ).stdout.splitlines():
            for word in line.split():
                if word.startswith("/"):
                    found[word] = Path(word)
    return found


def make_small_image(host: DockerHost, tag: str = BASE_IMAGE) -> str:
    """An image of a few MB with bash, sleep, cat and sh, made of this machine's own files."""
    archive = small_root(host.folder / "small.tar")
    host.docker("import", str(archive), tag)
    archive.unlink()
    return tag


def small_root(archive: Path) -> Path:
    """The files of the small image, as an archive."""
    programs = {f"/bin/{name}": str(shutil.which(name)) for name in ("bash", "sleep", "cat")}
    with tarfile.open(archive, "w", dereference=True) as made:
        for name, path in static_files(programs).items():
            made.add(path.resolve(), name.lstrip("/"))
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "bash"
        made.addfile(link)
        users = b"root:x:0:0:root:/:/bin/bash\n"
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size = len(users)
        made.addfile(passwd, io.BytesIO(users))
    return archive


@contextmanager
def registry(folder: Path, port: int, extra: str = "") -> Iterator[str]:
    """Debian's docker-registry on a port of the loopback; yields its HOST:PORT.

    extra: more of its configuration (YAML), for example authentication.
    """
    needs("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n{extra}"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=log
        )
    try:

        def up() -> bool:
            assert process.poll() is None, (folder / "registry.log").read_text()[-2000:]
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_for(up, "the registry answers")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)
