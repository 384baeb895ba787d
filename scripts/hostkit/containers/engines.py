"""The container engine of this host: which one it is, what it runs (OS/ARCH, in the words of
engines and of uname), and its command line's answers.
"""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from typing import Any, Optional

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError

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
        return normal(self.ask("version", "--format", template).out)


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


# Engines' words by uname's.
_WORDS = {"x86_64": "amd64", "aarch64": "arm64"}
# Variants that say nothing: every processor of the architecture is that one.
_PLAIN = {("amd64", "v1"), ("arm64", "v8")}


def normal(text: str) -> str:
    """A platform as it is compared; empty when it names no architecture.

    >>> normal("linux/aarch64"), normal("linux/arm64/v8"), normal("linux/"), normal("linux/arm/v7")
    ('linux/arm64', 'linux/arm64', '', 'linux/arm/v7')
    """
    system, word, variant = (*text.strip().lower().split("/"), "", "")[:3]
    word = _WORDS.get(word, word)
    if not word or "unknown" in (system, word):
        return ""
    rest = "" if not variant or (word, variant) in _PLAIN else f"/{variant}"
    return f"{system or 'linux'}/{word}{rest}"


def differ(found: str, wanted: str) -> bool:
    """Whether both are known, and not the same."""
    return bool(normal(found) and normal(wanted)) and normal(found) != normal(wanted)


def machine(text: str) -> str:
    """What uname -m, and wheels, call a platform's architecture.

    >>> machine("linux/arm64"), machine("linux/amd64"), machine("linux/riscv64")
    ('aarch64', 'x86_64', 'riscv64')
    """
    word = normal(text).partition("/")[2].partition("/")[0]
    return next((uname for uname, engines in _WORDS.items() if engines == word), word)


def own() -> str:
    """The platform of this machine's kernel."""
    return normal(f"linux/{platform.machine()}")
