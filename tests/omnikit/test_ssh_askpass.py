"""The program that ssh asks for a password."""

from __future__ import annotations

import subprocess
from pathlib import Path

from omnikit import ssh_askpass


def test_it_says_the_password_and_is_gone_afterwards() -> None:
    password = "a 'b' \"c\" $(d) \\e"
    with ssh_askpass.answering(password) as variables:
        program = Path(variables["SSH_ASKPASS"])
        done = subprocess.run([program, "prompt:"], capture_output=True, text=True, check=True)
        assert done.stdout == password + "\n"
        assert password not in "".join(variables.values())
        for path in (program.parent, *program.parent.iterdir()):
            assert path.stat().st_mode & 0o077 == 0 or path == program
        assert (program.parent / "password").stat().st_mode & 0o777 == 0o600
    assert not program.parent.exists()


def test_without_a_password_nobody_is_asked() -> None:
    with ssh_askpass.answering(None) as variables:
        assert variables == {"SSH_ASKPASS_REQUIRE": "never"}
