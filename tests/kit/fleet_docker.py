"""A real Docker engine in a host of the fleet (ssh_fleet.py): in its namespaces, on its files.

The host finds it where Docker always is; this machine talks to it by the same socket, seen through
/proc. Its images lie in memory: an overlay over the host's own overlay does not mount.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from docker_host import DockerHost, wait_for
from needs import needs
from ssh_fleet import FleetHost

_DATA = "/var/lib/docker"
_CGROUPS = Path("/sys/fs/cgroup")
# Docker enters a container by its mount namespace, whose root must be the container's: in a host
# that only has another root directory (chroot), it would find this machine's files.
_START = """
set -euo pipefail
cd "$1"
pivot_root . .
umount --lazy .
cd /
shift
exec "$@"
"""


@contextmanager
def docker_on(host: FleetHost) -> Iterator[DockerHost]:
    """dockerd on a running host; with all its containers ended after use."""
    needs("dockerd", "docker", "nsenter", root=True)
    root = host.folder / "root"
    _outside(host, "mkdir", "-p", f"{root}{_DATA}")
    _outside(host, "mount", "-t", "tmpfs", "tmpfs", f"{root}{_DATA}")
    _outside(host, "mount", "--rbind", str(_CGROUPS), f"{root}{_CGROUPS}")
    parent = f"omnikit-{host.address}"
    engine = DockerHost(host.path("/run"))
    argv = ["nsenter", "--target", str(host.pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
    argv += ["unshare", "--mount", "--propagation", "private", "bash", "-c", _START, "start"]
    argv += [str(root), "dockerd", "--data-root", _DATA, "--bridge=none"]
    argv += ["--iptables=false", f"--cgroup-parent=/{parent}"]
    log = host.folder / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(argv, stdout=output, stderr=output, start_new_session=True)
    try:

        def up() -> bool:
            assert daemon.poll() is None, log.read_text()[-2000:]
            return engine.docker("version", check=False).returncode == 0

        wait_for(up, f"dockerd on {host.name} answers")
        yield engine
    finally:
        if daemon.poll() is None and host.unshare is not None:
            names = engine.docker("ps", "-aq", check=False).stdout.split()
            if names:
                engine.docker("rm", "--force", *names, check=False)
            _inside_signal(host, signal.SIGTERM)
        daemon.wait(timeout=30)
        for folder in _CGROUPS.glob(f"*/{parent}"):
            folder.rmdir()


def _inside_signal(host: FleetHost, number: int) -> None:
    """Signal dockerd: the process started here is nsenter, which waits for it."""
    pid = host.path("/run/docker.pid").read_text().strip()
    words = ["nsenter", "--target", str(host.pid), "--mount", "--pid"]
    words += ["chroot", str(host.folder / "root"), "kill", f"-{int(number)}", pid]
    subprocess.run(words, check=True)


def _outside(host: FleetHost, *words: str) -> None:
    """Run words with the host's mounts, seen from outside of its root."""
    argv = ["nsenter", "--target", str(host.pid), "--mount", *words]
    subprocess.run(argv, check=True, capture_output=True, text=True)
