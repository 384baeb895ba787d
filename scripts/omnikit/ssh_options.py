"""How this machine logs in to a host by SSH: one place for ssh itself and for Ansible. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from omnikit.schema import Host, Settings


def words(host: Host, settings: Settings) -> list[str]:
    """Options of ssh for a host: port, key, jump host, and where host keys are recorded."""
    alive = ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
    found = ["-o", "StrictHostKeyChecking=yes", *alive, *_common(host, settings)]
    if host.port:
        found += ["-p", str(host.port)]
    key = private_key(host, settings)
    if key:
        found += ["-i", key]
    return found


def target(host: Host) -> str:
    """USER@ADDRESS as ssh takes it."""
    return f"{host.user}@{host.address}" if host.user else host.address


def private_key(host: Host, settings: Settings) -> str:
    """The host's key file, else the general one where it is there, else "": SSH's own choice."""
    if host.private_key:
        return str(Path(host.private_key).expanduser())
    general = Path(settings.keys.private_key).expanduser()
    return str(general) if general.is_file() else ""


def known_hosts(settings: Settings) -> str:
    """The file with the hosts' own keys; "" for SSH's own."""
    path = settings.keys.known_hosts
    return str(Path(path).expanduser()) if path else ""


def _common(host: Host, settings: Settings) -> list[str]:
    found = []
    if known_hosts(settings):
        # Quoted for ssh, which takes several files apart at spaces.
        found += ["-o", f'UserKnownHostsFile="{known_hosts(settings)}"']
    if host.jump:
        found += ["-o", f"ProxyJump={host.jump}"]
    return found


def password_variable(settings: Settings, host: str) -> str:
    """The variable in which Ansible finds a host's password."""
    return f"OMNIKIT_PASSWORD_{list(settings.hosts).index(host)}"


def ansible_variables(name: str, host: Host, settings: Settings) -> dict[str, Any]:
    """The same for Ansible, as variables of a host. A password is read from a variable."""
    found: dict[str, Any] = {}
    if host.user:
        found["ansible_user"] = host.user
    if host.port:
        found["ansible_port"] = host.port
    if private_key(host, settings):
        found["ansible_ssh_private_key_file"] = private_key(host, settings)
    if _common(host, settings):
        found["ansible_ssh_common_args"] = shlex.join(_common(host, settings))
    if host.password:
        variable = password_variable(settings, name)
        found["ansible_password"] = f"{{{{ lookup('ansible.builtin.env', '{variable}') }}}}"
    return found
