"""How this machine logs in to a host by SSH: options and passwords, for ssh and for Ansible."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

from hostkit.base.errors import InputError
from omnikit.config.config import read_secret
from omnikit.config.schema import Host, Settings

# Passwords for ssh, on no command line and in no variable: ssh asks a small program for them.
#
# The same for ssh itself and for Ansible's: no version of Ansible needs sshpass, or a PATH, for it.

# ssh calls it with its question instead of asking at a terminal (ssh(1), SSH_ASKPASS). It answers
# for the hosts it knows: a jump host, or a key's passphrase, is not told a host's password.
_PROGRAM = """#!/bin/sh
case $1 in
{cases}esac
exit 1
"""
_CASE = '*{at}"\'s password: "|"("*{at}") "*) exec cat -- "${{0%/*}}/{name}" ;;\n'
# Names that a host has for ssh because of options: its question names them.
_ALIAS = re.compile(r"(?:HostKeyAlias|HostName)=(.+)", re.IGNORECASE)
# What ssh needs to ask at all: Ansible switches passwords off where it knows of none.
OPTIONS = (
    *("-o", "PasswordAuthentication=yes", "-o", "KbdInteractiveAuthentication=yes"),
    *("-o", "PreferredAuthentications=publickey,password,keyboard-interactive"),
    *("-o", "NumberOfPasswordPrompts=1"),
)


def passwords(hosts: Mapping[str, Host]) -> dict[str, str]:
    """The passwords of hosts behind SSH, by what ssh may call them. Raises InputError."""
    return {
        called: read_secret(host.password, f"hosts.{name}.password")
        for name, host in hosts.items()
        if host.password is not None and not host.local
        for called in names(host)
    }


def names(host: Host) -> list[str]:
    """What ssh may call a host when it asks for its password."""
    aliases = [_ALIAS.fullmatch(option) for option in host.ssh_options or ()]
    return [host.address, *(found[1] for found in aliases if found)]


@contextmanager
def answering(passwords: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Variables with which ssh finds passwords by a host's name; without any it never asks.

    They are in files that only this user reads, in a folder that is gone afterwards.
    """
    if not passwords:
        yield {"SSH_ASKPASS_REQUIRE": "never"}
        return
    with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
        cases = ""
        for number, (name, password) in enumerate(passwords.items()):
            cases += _CASE.format(at=shlex.quote(f"@{name}"), name=number)
            _write(Path(private) / str(number), password + "\n", 0o600)
        program = Path(private) / "askpass"
        _write(program, _PROGRAM.format(cases=cases), 0o700)
        yield {
            "SSH_ASKPASS": str(program),
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": os.environ.get("DISPLAY", ":0"),  # before OpenSSH 8.4 it looks for that
        }


def _write(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


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
        key = Path(host.private_key).expanduser()
        if key.exists() and not key.is_file():  # ssh would wait for a pipe
            raise InputError("is no regular file.", where=str(key), todo="mend private_key")
        return str(key)
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
    for option in host.ssh_options or ():
        found += ["-o", option]
    return found


def ansible_password(host: str, settings: Settings) -> dict[str, str]:
    """Where somebody's own Ansible finds a host's password: in a variable of its environment."""
    variable = f"OMNIKIT_PASSWORD_{list(settings.hosts).index(host)}"
    return {"ansible_password": f"{{{{ lookup('ansible.builtin.env', '{variable}') }}}}"}


def ansible_variables(host: Host, settings: Settings) -> dict[str, Any]:
    """The same for Ansible, as variables of a host."""
    found: dict[str, Any] = {}
    if host.user:
        found["ansible_user"] = host.user
    if host.port:
        found["ansible_port"] = host.port
    if private_key(host, settings):
        found["ansible_ssh_private_key_file"] = private_key(host, settings)
    if _common(host, settings):
        found["ansible_ssh_common_args"] = shlex.join(_common(host, settings))
    return found
