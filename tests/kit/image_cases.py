"""What the tests of images share: an engine of their own process, images, a line that breaks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Optional

import bcrypt
import pytest
from docker_host import BASE_IMAGE, DockerHost, registry
from needs import needs
from port_rooms import free_port

USER, PASSWORD = "reader", "s3cret-pass"


def parameters(image: str, **more: Any) -> dict[str, Any]:
    """What the job "pull" is told."""
    return {
        "image": image,
        "engine": "docker",
        "platform": None,
        "mirrors": [],
        "credentials": None,
        "attempts": 3,
        "delay_s": 0.2,
        "free_mib": 1,
        **more,
    }


def use(monkeypatch: pytest.MonkeyPatch, host: DockerHost) -> None:
    """This process's docker is that engine's."""
    for name, value in host.env.items():
        monkeypatch.setenv(name, value)


def push(host: DockerHost, name: str, layers: int = 0, base: str = BASE_IMAGE) -> str:
    """An image at a registry, with layers of 8 MB that cannot be compressed; not kept here.

    Returns its digest.
    """
    image = base
    block = host.folder / "block"
    for number in range(layers):
        block.write_bytes(os.urandom(8_000_000))
        made = host.docker("create", image, "/bin/bash").stdout.strip()
        host.docker("cp", str(block), f"{made}:/block{number}")
        image = host.docker("commit", made).stdout.strip()
        host.docker("rm", made)
        block.unlink()
    host.docker("tag", image, name)
    host.docker("push", name)
    found = host.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", name)
    digest = next(
        line.split("@")[1]
        for line in host.docker(
            "image", "inspect", "--format", "{{range .RepoDigests}}{{println .}}{{end}}", name
        ).stdout.split()
        if line.startswith(name.rpartition(":")[0] + "@")
    )
    assert found.returncode == 0
    forget(host, name)
    return digest


def forget(host: DockerHost, *names: str) -> None:
    """Take images of a test away again, with what has no name then."""
    host.docker("rmi", "--force", *names, check=False)
    host.docker("image", "prune", "--force", check=False)


def image_id(host: DockerHost, name: str) -> str:
    """The id of an image without sha256:, empty when it is not there."""
    done = host.docker("image", "inspect", "--format", "{{.Id}}", name, check=False)
    return done.stdout.strip().partition(":")[2]


@contextmanager
def locked_registry(folder: Path) -> Iterator[str]:
    """A registry that wants a log-in."""
    folder.mkdir(parents=True, exist_ok=True)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
    (folder / "users").write_text(f"{USER}:{hashed}\n")
    extra = f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n"
    with registry(folder / "registry", free_port(), extra) as address:
        yield address


def watched_docker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker before the real one that only writes down its words; the file with them.

    It is no double: the real docker does the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "words"
    record.touch()
    script = folder / "docker"
    script.write_text(f'#!/bin/bash\necho "$@" >> {record}\nexec {shutil.which("docker")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return record


class BreakingLine:
    """A TCP line to a port. cut_after: it breaks once after so many bytes of answers.

    heal_s: how long nobody gets through after that. hold(): what comes later waits to the end.
    """

    def __init__(self, to: int, cut_after: Optional[int] = None, heal_s: float = 0.0) -> None:
        self.to, self.left, self.heal_s = to, cut_after, heal_s
        self.passed = 0
        self.calls = 0
        self.cuts = 0
        self._hold_at: Optional[int] = None
        self._over = threading.Event()
        self._dead_until = 0.0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> BreakingLine:
        return self

    def hold(self, after: int) -> None:
        """Let so many more bytes of answers through."""
        self._hold_at = self.passed + after

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_all()

    def _close_all(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open = []

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            if time.monotonic() < self._dead_until:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.to))
            self._open += [client, server]
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while block := source.recv(65536):
                if answers:
                    self.passed += len(block)
                    if self._hold_at is not None and self.passed > self._hold_at:
                        self._over.wait()
                    if self.left is not None:
                        self.left -= len(block)
                        if self.left <= 0:
                            self.left = None
                            self.cuts += 1
                            self._dead_until = time.monotonic() + self.heal_s
                            self._close_all()
                            return
                target.sendall(block)
        except OSError:
            pass
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def mount_small_disk(folder: Path, mib: int) -> None:
    """A disk of so many MiB at a folder."""
    needs("mount", root=True)
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "omnikit-test", str(folder)]
    subprocess.run(words, check=True)
