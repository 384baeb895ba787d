"""What a user of this machine set or left behind must not decide what a test sees."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Words that programs of the tests read from the environment; a test that is about one sets it.
_PREFIXES = ("OMNIKIT_", "ANSIBLE_", "GIT_", "DOCKER_", "MAKE")
_NAMES = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CONTAINER_HOST")
_NAMES += ("MFLAGS", "ENVIRONMENT", "RUNTIME", "OPTIONS")  # of make
# The engine is large: with this several clones share one. What Git trusts is the machine's.
_KEPT = ("OMNIKIT_ENGINE__", "GIT_SSL_")
_LOOPBACK = "127.0.0.1,localhost,::1"


def shipped(folder: str) -> list[str]:
    """Names of the files in configs/<folder>, without a user's own."""
    names = (path.name for path in (CONFIGS / folder).glob("*.yaml"))
    return sorted(name[: -len(".yaml")] for name in names if not name.endswith(".local.yaml"))


def plain_python(folder: Path, *options: str) -> str:
    """This Python by a path that is a plain word, even where the clone's is not."""
    path = folder / "this-python"
    path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *options])} "$@"\n')
    path.chmod(0o755)
    return str(path)


def keep_out(site: str) -> None:
    """Clear this process and its children of it. site: an empty folder for settings and records."""
    os.umask(0o022)
    for name in list(os.environ):
        if name in _NAMES or (name.startswith(_PREFIXES) and not name.startswith(_KEPT)):
            del os.environ[name]
    os.environ["OMNIKIT_SITE"] = site
    os.environ.update(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C.UTF-8")
    for name in ("no_proxy", "NO_PROXY"):  # servers of tests are on this machine
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), _LOOPBACK)))
