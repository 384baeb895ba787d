"""The container engine of this host: which one it is, and its command line's answers.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any, Optional

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.containers import platforms

_NOT_RUNNING = ("Cannot connect to the Docker daemon", "Is the docker daemon running")
_NO_RIGHT = "permission denied while trying to connect"


@dataclass(frozen=True)
class Engine:
    """kind: docker or podman. timeout_s: for one quick answer."""

    kind: str
    program: str
    timeout_s: float = 60.0

    def argv(self, *words: str) -> list[str]:
        """A command of this engine."""
        return [self.program, *words]

    def ask(self, *words: str, check: bool = True, stdin: str = "") -> run.Result:
        """Run a quick command. Raises InputError when the engine cannot be reached at all."""
        done = run.run(self.argv(*words), check=False, timeout=self.timeout_s, stdin=stdin)
        if done.code != 0:
            self.raise_unreachable(done.err + done.out)
            if check:
                raise ActionError(f"{run.show(self.argv(*words))} failed:\n{done.tail}")
        return done

    def raise_unreachable(self, said: str) -> None:
        """Raise InputError when what the engine said means that it cannot be reached."""
        if any(sign in said for sign in _NOT_RUNNING):
            raise InputError(
                "the Docker daemon is not running on this host.",
                todo="start it: systemctl start docker",
            )
        if _NO_RIGHT in said:
            raise InputError(
                "this user may not use Docker.",
                todo="run as root, or: usermod -aG docker $USER, then log in again",
            )

    def inspect(self, kind: str, name: str) -> Optional[dict[str, Any]]:
        """What the engine knows of an image or container; None when there is none."""
        done = self.ask(kind, "inspect", "--", name, check=False)
        if done.code == 0:
            found: dict[str, Any] = json.loads(done.out)[0]
            return found
        if "o such" in done.err or "not known" in done.err or "no such" in done.err:
            return None
        raise ActionError(f"the {kind} {name} cannot be inspected:\n{done.tail}")

    def version(self) -> str:
        """The engine's version; asks the daemon, so it also shows that there is one."""
        template = "{{.Server.Version}}" if self.kind == "docker" else "{{.Client.Version}}"
        return self.ask("version", "--format", template).out.strip()

    def platform(self) -> str:
        """OS/ARCH of what this engine runs; asks the daemon."""
        docker = self.kind == "docker"
        template = "{{.Server.Os}}/{{.Server.Arch}}" if docker else "{{.Client.OsArch}}"
        return platforms.normal(self.ask("version", "--format", template).out)


def find(kind: str, timeout_s: float = 60.0) -> Engine:
    """The engine of a kind: docker, podman, or auto (the first installed).

    Raises InputError when it is not installed.
    """
    kinds = ("docker", "podman") if kind == "auto" else (kind,)
    for name in kinds:
        program = shutil.which(name)
        if program:
            return Engine(name, program, timeout_s)
    raise InputError(
        f"{' or '.join(kinds)} is not installed on this host.",
        todo="install it (openEuler: dnf install docker; Debian, Ubuntu: apt-get install"
        " docker.io), or set container.engine",
    )
