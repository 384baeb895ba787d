"""The way to one host: commands and jobs there, over an SSH connection that is opened only once.

How this machine logs in to it (options and passwords) is the same for Ansible, host keys and the
code that runs there too. Commands and jobs are for questions, which Ansible is too slow for: it
costs some tenths of a second of this machine for each task and host. This machine as a host takes
the same way, without SSH: only here that makes a difference.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import re
import shlex
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.agent import jobs
from hostkit.base import command as base_command
from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from omnikit.config.config import read_secret
from omnikit.config.layers import PROJECT
from omnikit.config.schema import Host, Settings
from omnikit.fleet import bundle
from omnikit.plan.types import HostPlan

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
    """The file with the hosts' own keys; "" for SSH's own.

    SSH's own is in the home folder of /etc/passwd, whatever HOME says; we go by HOME.
    """
    path = settings.keys.known_hosts
    with suppress(KeyError):  # a user without a name: SSH refuses that itself
        if not path and str(Path.home()) != pwd.getpwuid(os.getuid()).pw_dir:
            path = "~/.ssh/known_hosts"
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


_RECEIVE = PROJECT / "scripts" / "hostkit" / "agent" / "receive.py"
_KEPT_S = 60  # like Ansible's connections
_LONGEST = 107 - 18  # bytes of a socket's path; ssh appends some meanwhile


@dataclass(frozen=True)
class Fault:
    """What ssh or Ansible said (signs, lower case), what it means and what to do: in an error, and
    in the table of checks, whose reader sees the host's name beside. why is None where ssh's own
    words are as good.
    """

    signs: tuple[str, ...]
    found: str
    mend: str
    why: Optional[str] = None
    todo: str = ""


# The first that fits counts.
FAULTS = (
    Fault(
        ("remote host identification has changed",),
        "the host's key is another than the recorded one: the host was installed anew, or this"
        " is not the host",
        "make sure which; if it was installed anew: {forget}, then invoke setup-keys"
        " --environment {environment}",
        "its host key is not the recorded one: it was set up anew, or another machine answers",
        "find out which; invoke setup-keys compares the keys",
    ),
    Fault(
        ("host key verification failed", "host key is known"),
        "the host's key is not recorded here",
        "invoke setup-keys --environment {environment}",
        "its host key is not recorded here",
        "compare and record it: invoke setup-keys",
    ),
    Fault(
        ("install the sshpass program",),
        "hosts.{name}.password is set, and this machine lacks sshpass, which types it",
        "apt-get install sshpass (or dnf), or use keys: invoke setup-keys"
        " --environment {environment}",
    ),
    Fault(
        ("permission denied", "incorrect username/password"),
        "permission denied: the host takes neither our key nor our password",
        "invoke setup-keys --environment {environment}; the user is hosts.{name}.user",
        "it does not let this user in with this key or password",
        "invoke setup-keys; or try it by hand: {login}",
    ),
    Fault(
        ("too many authentication failures",),
        "permission denied: the host takes neither our key nor our password",
        "invoke setup-keys --environment {environment}; the user is hosts.{name}.user",
        "too many keys were tried",
        "name the right one: hosts.{name}.private_key",
    ),
    Fault(
        ("connection refused",),
        "port {port} refuses connections: the machine is there, its SSH server is not",
        "on the host: systemctl start sshd; or set hosts.{name}.port",
        "no SSH server answers at this port",
        "try it by hand: {login}",
    ),
    Fault(
        ("connection timed out", "timed out", "timeout"),
        "no answer within the time allowed (fleet.connect_timeout_s)",
        "is the host on, hosts.{name}.address right, the firewall open? by hand: {login}",
    ),
    Fault(
        ("no route to host", "network is unreachable"),
        "no route to the host",
        "mend the route or hosts.{name}.address; by hand: {login}",
    ),
    Fault(
        ("could not resolve", "name or service not known"),
        "the host's name is not known here",
        "set hosts.{name}.address to its IP address",
        "its name is not known",
        "check hosts.{name}.address",
    ),
)


def fault_of(said: str) -> Optional[Fault]:
    """The known fault that these words show."""
    low = said.lower()
    return next((one for one in FAULTS if any(sign in low for sign in one.signs)), None)


class Unreachable(ActionError):
    """SSH itself failed: nothing was done on the host."""


@dataclass(frozen=True)
class Link:
    """How a host is reached. words: of ssh, none for this machine. env: of every command that is
    made with argv(); it may hold the host's password.
    """

    host: HostPlan
    words: tuple[str, ...]
    login: tuple[str, ...]
    env: Mapping[str, str]
    socket: Optional[Path] = None

    @property
    def python(self) -> str:
        """What runs our code there."""
        return self.host.settings.python if self.words else sys.executable

    def argv(self, *command: str) -> list[str]:
        """A command of this machine that runs one on the host."""
        if not self.words:
            return list(command)
        return [*self.words, "--", target(self.host.settings), shlex.join(command)]

    def open(self) -> None:
        """Connect, unless that is done: later commands use this connection. Raises Unreachable."""
        if not self.words or (self.socket is not None and self.socket.is_socket()):
            return
        what = f"connecting to {self.host.name}"
        # Its output goes to a file: old versions of ssh hold a pipe as long as the connection.
        ended = base_command.watch(self.argv("true"), what, env=self.env)
        if ended.code != 0:
            raise fault(self, ended.said)

    def ask(self, *command: str, stdin: str = "", timeout_s: Optional[float] = None) -> run.Result:
        """Run a command there, whatever its exit status. Raises Unreachable."""
        self.open()
        argv = self.argv(*command)
        done = run.run(argv, env=self.env, stdin=stdin, check=False, timeout=timeout_s)
        if self.words and done.code == NO_SSH:
            self.close()
            raise fault(self, done.err)
        return done

    def close(self) -> None:
        """Forget the connection, which may be dead without knowing: it ends by itself."""
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)

    def talk(self, name: str, parameters: Mapping[str, Any]) -> run.Talk:
        """Begin a job there that says lines while it works, and may be told some."""
        shipped = base64.b64encode(host_code()).decode()
        given = base64.b64encode(json.dumps(parameters).encode()).decode()
        kept = f"{self.host.work_dir}/jobs/host.pyz"
        words = ("-c", _RECEIVE.read_text(), kept, str(len(shipped)), name)
        talk = run.Talk(self.argv(self.python, *words), env=self.env)
        talk.tell(shipped + given + "\n")
        return talk

    def job(
        self, name: str, parameters: Mapping[str, Any], timeout_s: Optional[float] = None
    ) -> dict[str, Any]:
        """Do a job of hostkit.agent.jobs there, and return its result."""
        if not self.words:
            return jobs.find(name)(dict(parameters))
        shipped = base64.b64encode(host_code()).decode()
        given = base64.b64encode(json.dumps(parameters).encode()).decode()
        kept = f"{self.host.work_dir}/jobs/host.pyz"
        words = ("-c", _RECEIVE.read_text(), kept, str(len(shipped)), name)
        done = self.ask(self.python, *words, stdin=shipped + given, timeout_s=timeout_s)
        if done.code != 0:
            said = done.err[done.err.rfind("error: ") :] if "error: " in done.err else done.tail
            kind = InputError if done.code == InputError.exit_code else ActionError
            raise kind(said.strip().removeprefix("error: ")[-2000:])
        try:
            result: dict[str, Any] = json.loads(done.out.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise ActionError(f"the host's answer cannot be read: {done.out[-500:]}") from error
        return result


NO_SSH = 255  # ssh's own exit status when it failed itself


@contextmanager
def link(host: HostPlan, settings: Settings, sockets: Optional[Path] = None) -> Iterator[Link]:
    """The way to a host. sockets: folder for kept connections, None: the user's own.

    Raises InputError when a password is needed and cannot be read.
    """
    with answering(passwords({host.name: host.settings})) as env:
        yield _way(host, settings, env, sockets or Path("~/.ansible/cp").expanduser())


@contextmanager
def streams(hosts: Sequence[HostPlan], settings: Settings) -> Iterator[list[Link]]:
    """Ways to hosts whose output is followed at the same time, so that all have one env. Each
    command has a connection of its own, which ends with it.
    """
    settings_of = {host.name: host.settings for host in hosts}
    with answering(passwords(settings_of)) as env:
        yield [_way(host, settings, env, None) for host in hosts]


def _way(
    host: HostPlan, settings: Settings, env: Mapping[str, str], sockets: Optional[Path]
) -> Link:
    """sockets: None where no connection is kept."""
    if host.local:
        return Link(host, (), (), {})
    login = ("ssh", *words(host.settings, settings))
    options = ["-o", f"ConnectTimeout={round(settings.fleet.connect_timeout_s)}"]
    kept = [*login, target(host.settings)]
    socket = None if sockets is None else _socket(sockets, kept)
    if socket is not None:
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        options += ["-o", "ControlMaster=auto", "-o", f"ControlPersist={_KEPT_S}s"]
        options += ["-o", f'ControlPath="{socket}"']
    # In batch mode ssh asks for no password, of nobody.
    options += OPTIONS if host.settings.password else ["-o", "BatchMode=yes"]
    return Link(host, (*login, *options), login, env, socket)


def fault(link: Link, said: str) -> Unreachable:
    """What it means that a host could not be reached."""
    login = run.show([*link.login, target(link.host.settings)])
    known = fault_of(said)
    if known is not None and known.why is not None:
        todo = known.todo.format(login=login, name=link.host.name)
        return Unreachable(f"the host cannot be used: {known.why}.", todo=todo)
    lines = [line for line in said.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "ssh said nothing"
    todo = f"try it by hand: {login}"
    return Unreachable(f"the host cannot be reached: {last}.".replace("..", "."), todo=todo)


def _socket(folder: Path, login: list[str]) -> Optional[Path]:
    """Where a connection is kept: one for each way to log in; None where its path is too long."""
    name = hashlib.sha256("\0".join(login).encode()).hexdigest()[:16]
    path = folder / f"omnikit-{name}"
    return path if len(os.fsencode(path)) <= _LONGEST and "%" not in str(path) else None


@lru_cache(maxsize=1)
def host_code() -> bytes:
    """The archive of the code that runs on hosts, the same that Ansible ships."""
    return bundle.archive({}, bundle.host_code())
