"""One host over plain SSH: a connection that is opened once and kept, jobs over it, and its faults.

For what Ansible is too slow for: it costs some tenths of a second of this machine for each task and
host. Log-in, host keys and the code that runs on the host are the same as Ansible's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from omnikit import bundle, host_command, run, ssh_askpass, ssh_options
from omnikit.config import read_secret
from omnikit.errors import ActionError, InputError
from omnikit.layers import PROJECT
from omnikit.plan_types import HostPlan
from omnikit.schema import Settings

_BOOT = PROJECT / "scripts" / "omnikit" / "host_boot.py"
_KEPT_S = 60  # like Ansible's connections
_LONGEST = 107 - 18  # bytes of a socket's path; ssh appends some meanwhile
_ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
# In what ssh says: (sign, what it means, what to do).
_FAULTS = (
    (
        "remote host identification has changed",
        "its host key is not the recorded one: it was set up anew, or another machine answers",
        "find out which; invoke setup-keys compares the keys",
    ),
    (
        "host key verification failed",
        "its host key is not recorded here",
        "compare and record it: invoke setup-keys",
    ),
    (
        "permission denied",
        "it does not let this user in with this key or password",
        "invoke setup-keys; or try it by hand: {login}",
    ),
    (
        "too many authentication failures",
        "too many keys were tried",
        "name the right one: hosts.{name}.private_key",
    ),
    ("could not resolve", "its name is not known", "check hosts.{name}.address"),
    ("connection refused", "no SSH server answers at this port", "try it by hand: {login}"),
)


@dataclass(frozen=True)
class Link:
    """How a host is reached. env: of every ssh; it may hold the host's password."""

    host: HostPlan
    words: tuple[str, ...]
    login: tuple[str, ...]
    env: Mapping[str, str]
    socket: Optional[Path] = None

    def argv(self, *command: str) -> list[str]:
        """A command of this machine that runs one on the host."""
        target = ssh_options.target(self.host.settings)
        return [*self.words, "--", target, shlex.join(command)]

    def open(self) -> None:
        """Connect, unless that is done: later commands use this connection. Raises ActionError."""
        if self.socket is not None and self.socket.is_socket():
            return
        what = f"connecting to {self.host.name}"
        # Its output goes to a file: old versions of ssh hold a pipe as long as the connection.
        ended = host_command.watch(self.argv("true"), what, env=self.env)
        if ended.code != 0:
            raise fault(self, ended.said)

    def close(self) -> None:
        """Forget the connection, which may be dead without knowing: it ends by itself."""
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)

    def job(
        self,
        name: str,
        parameters: Mapping[str, Any],
        code: bytes,
        timeout_s: Optional[float] = None,
    ) -> dict[str, Any]:
        """Do a job of omnikit.host_jobs there, with the archive that has it."""
        shipped = base64.b64encode(code).decode()
        given = base64.b64encode(json.dumps(parameters).encode()).decode()
        kept = f"{self.host.work_dir}/jobs/host.pyz"
        python = self.host.settings.python
        argv = self.argv(python, "-c", _BOOT.read_text(), kept, str(len(shipped)), name)
        done = run.run(argv, env=self.env, stdin=shipped + given, check=False, timeout=timeout_s)
        if done.code == NO_SSH:
            raise fault(self, done.err)
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
    login = ("ssh", *ssh_options.words(host.settings, settings))
    options = [*_ALIVE, "-o", f"ConnectTimeout={round(settings.fleet.connect_timeout_s)}"]
    socket = _socket(sockets, [*login, ssh_options.target(host.settings)])
    if socket is not None:
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        options += ["-o", "ControlMaster=auto", "-o", f"ControlPersist={_KEPT_S}s"]
        options += ["-o", f'ControlPath="{socket}"']
    password = None
    if host.settings.password is not None:
        password = read_secret(host.settings.password, f"hosts.{host.name}.password")
    # In batch mode ssh asks for no password, of nobody.
    options += ["-o", "NumberOfPasswordPrompts=1" if password else "BatchMode=yes"]
    with ssh_askpass.answering(password) as env:
        yield Link(host, (*login, *options), login, env, socket)


def fault(link: Link, said: str) -> ActionError:
    """What it means that a host could not be reached."""
    host = link.host
    lowered = said.lower()
    login = run.show([*link.login, ssh_options.target(host.settings)])
    for sign, why, todo in _FAULTS:
        if sign in lowered:
            return ActionError(
                f"the host cannot be used: {why}.", todo=todo.format(login=login, name=host.name)
            )
    lines = [line for line in said.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "ssh said nothing"
    todo = f"try it by hand: {login}"
    return ActionError(f"the host cannot be reached: {last}.".replace("..", "."), todo=todo)


def _socket(folder: Optional[Path], login: list[str]) -> Optional[Path]:
    """Where a connection is kept: one for each way to log in; None where its path is too long."""
    name = hashlib.sha256("\0".join(login).encode()).hexdigest()[:16]
    path = (folder or Path("~/.ansible/cp").expanduser()) / f"omnikit-{name}"
    return path if len(os.fsencode(path)) <= _LONGEST and "%" not in str(path) else None


def host_code() -> bytes:
    """The archive of the code that runs on hosts, the same that Ansible ships."""
    return bundle.archive({}, bundle.host_code())
