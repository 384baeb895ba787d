"""Who works with this toolkit: user, machine and folder, as locks and audit files name them."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import Iterator

from hostkit.base import lock
from hostkit.base.errors import ToolkitError
from hostkit.base.log import say
from hostkit.base.records import user_name
from omnikit.config.layers import PROJECT, control_folder


def am_i() -> str:
    """For example ann@bastion:/opt/omnikit."""
    return f"{user_name()}@{socket.gethostname()}:{PROJECT}"


@contextmanager
def audited(environment: str, what: str) -> Iterator[None]:
    """Write a line into the environment's audit file on this machine when what is inside ends."""
    result = "ok"
    try:
        yield
    except ToolkitError as error:
        result = "failed: " + (error.what.splitlines() or [""])[0]
        raise
    except BaseException as error:
        result = f"ended by {type(error).__name__}"
        raise
    finally:
        folder = control_folder(environment)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.audit(folder, am_i(), what, result)
        except OSError as trouble:  # a full disk must not hide how the command itself ended
            say(f"warning: the audit in {folder} could not be written: {trouble}")
