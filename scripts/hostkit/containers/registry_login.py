"""Log-in at a registry for one pull: in a private folder that is removed afterwards.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.containers.engines import Engine
from hostkit.containers.image_fault import Fault, read
from hostkit.containers.image_name import HUB, parse


def argv(engine: Engine, registry: str, user: str) -> list[str]:
    """The command; the password goes to its standard input."""
    words = engine.argv("login", "--username", user, "--password-stdin")
    return words if registry == HUB and engine.kind == "docker" else [*words, registry]


def split(credentials: str) -> tuple[str, str]:
    """User and password. Raises InputError, without showing them, when they are not both there."""
    user, colon, password = credentials.strip().partition(":")
    if not (user and colon and password):
        raise InputError(
            "the registry's credentials are not USER:PASSWORD.",
            where="image.credentials",
            todo="write one line USER:PASSWORD into the file that image.credentials names",
        )
    return user, password


@contextmanager
def private(engine: Engine, registry: str) -> Iterator[dict[str, str]]:
    """Variables that let the engine keep a log-in in a folder of its own, while this holds."""
    with tempfile.TemporaryDirectory(prefix="omnikit-login-") as folder:  # mode 0700
        path = Path(folder) / "config.json"
        # With an entry in it, Docker does not look for a key ring to put the password into.
        text = json.dumps({"auths": {registry: {}}} if engine.kind == "docker" else {"auths": {}})
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text)
        yield (
            {"DOCKER_CONFIG": folder}
            if engine.kind == "docker"
            else {"REGISTRY_AUTH_FILE": str(path)}
        )


def log_in(engine: Engine, image: str, credentials: str, env: dict[str, str]) -> Optional[Fault]:
    """Log in at an image's registry; what stands against it, or None."""
    user, password = split(credentials)
    registry = parse(image).registry
    words = argv(engine, registry, user)
    done = run.run(words, env=env, stdin=password, timeout=engine.timeout_s, check=False)
    if done.code == 0:
        return None
    said = done.err + done.out
    engine.raise_unreachable(said)
    said = "\n".join(line for line in said.strip().splitlines() if password not in line)
    return read(said or "the log-in failed", image, engine=engine.kind, registry=registry)
