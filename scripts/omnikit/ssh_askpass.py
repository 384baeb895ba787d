"""A password for ssh, on no command line and in no variable: ssh asks a small program for it."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

# It prints the file beside it; ssh calls it instead of asking at a terminal (ssh(1), SSH_ASKPASS).
_PROGRAM = '#!/bin/sh\nexec cat -- "${0%/*}/password"\n'


@contextmanager
def answering(password: Optional[str]) -> Iterator[dict[str, str]]:
    """Variables with which ssh finds the password; with None it finds none and never asks.

    The password is in a file that only this user reads, in a folder that is gone afterwards.
    """
    if password is None:
        yield {"SSH_ASKPASS_REQUIRE": "never"}
        return
    with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
        secret = Path(private) / "password"
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(password + "\n")
        program = Path(private) / "askpass"
        program.write_text(_PROGRAM)
        program.chmod(0o700)
        yield {
            "SSH_ASKPASS": str(program),
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": os.environ.get("DISPLAY", ":0"),  # before OpenSSH 8.4 it looks for that
        }
