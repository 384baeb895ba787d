"""The program that ssh asks for a password."""

from __future__ import annotations

import subprocess
from pathlib import Path

from omnikit.fleet import direct_ssh


def test_it_says_the_password_and_is_gone_afterwards() -> None:
    password = "a 'b' \"c\" $(d) \\e"
    with direct_ssh.answering({"192.0.2.1": password, "fd00::1": "other"}) as variables:
        program = Path(variables["SSH_ASKPASS"])

        def said(question: str) -> str:
            return subprocess.run([program, question], capture_output=True, text=True).stdout

        assert said("root@192.0.2.1's password: ") == password + "\n"
        assert said("(root@192.0.2.1) Password: ") == password + "\n"
        assert said("root@fd00::1's password: ") == "other\n"
        # Of nobody else: a jump host, another host, a key's passphrase, a host key to accept.
        for question in (
            "root@192.0.2.11's password: ",
            "root@bastion's password: ",
            "Enter passphrase for key '/root/.ssh/id': ",
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
        ):
            assert said(question) == ""
        assert password not in "".join(variables.values())
        for path in (program.parent, *program.parent.iterdir()):
            assert path.stat().st_mode & 0o077 == 0 or path == program
        assert (program.parent / "0").stat().st_mode & 0o777 == 0o600
    assert not program.parent.exists()


def test_without_a_password_nobody_is_asked() -> None:
    with direct_ssh.answering({}) as variables:
        assert variables == {"SSH_ASKPASS_REQUIRE": "never"}
