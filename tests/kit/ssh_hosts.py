"""Hosts behind real SSH servers, on addresses for documentation that the loopback interface gets.

Hosts of one environment may not have loopback addresses. All of them share this file system.
"""

from __future__ import annotations

import getpass
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping

from needs import needs
from port_rooms import free_port

from hostkit.base.health import wait_until


@dataclass(frozen=True)
class SshHost:
    """One host. folder holds its own key; user_key logs in; known_hosts has the host's key."""

    address: str
    port: int
    folder: Path
    user_key: Path
    known_hosts: Path

    def entry(self) -> str:
        """Its entry below "hosts" of an environment."""
        return (
            f"{{address: {self.address}, user: {getpass.getuser()}, port: {self.port},"
            f" private_key: {self.user_key}, python: {sys.executable}}}"
        )


def make_key(path: Path) -> Path:
    """An ed25519 key without a passphrase."""
    needs("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@contextmanager
def kept_connections() -> Iterator[dict[str, str]]:
    """Variables with which Ansible keeps its connections, as it does by default, until the end."""
    with tempfile.TemporaryDirectory(prefix="ssh-") as folder:
        try:
            yield {
                "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s"
                " -o StrictHostKeyChecking=yes",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": folder,
            }
        finally:
            for place in Path(folder).iterdir():
                argv = ["ssh", "-O", "exit", "-o", f"ControlPath={place}", "any"]
                subprocess.run(argv, check=False, capture_output=True)


@contextmanager
def address_on_loopback(address: str) -> Iterator[None]:
    """Give an address to this machine meanwhile."""
    needs("ip", "sshd", "ssh", root=True)
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=True)


@contextmanager
def ssh_host(
    folder: Path, address: str, user_key: Path, environment: Mapping[str, str]
) -> Iterator[SshHost]:
    """A real sshd on an address; log-ins have these variables."""
    folder.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it
    host = SshHost(address, free_port(), folder, user_key, user_key.with_name("known_hosts"))
    own = make_key(folder / "host_key")
    variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
    settings = folder / "sshd_config"
    settings.write_text(
        f"Port {host.port}\nListenAddress {address}\nHostKey {own}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {user_key}.pub\nStrictModes no\nPermitRootLogin yes\n"
        f"{f'SetEnv {variables}' if variables else ''}\nSubsystem sftp internal-sftp\n"
    )
    with address_on_loopback(address), (folder / "sshd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(settings)], stdout=log, stderr=log
        )
        try:

            def up() -> bool:
                assert daemon.poll() is None, (folder / "sshd.log").read_text()
                with socket.socket() as probe:
                    return probe.connect_ex((address, host.port)) == 0

            assert wait_until(up, 20, 0.02), "sshd does not answer"
            with host.known_hosts.open("a") as file:
                file.write(f"[{address}]:{host.port} {own.with_suffix('.pub').read_text()}")
            yield host
        finally:
            daemon.terminate()
            daemon.wait(timeout=20)
