"""What Ansible tells ssh, as settings of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from omnikit.fleet import direct_ssh
from omnikit.foreign.inventory import login
from omnikit.yaml.node import Node, Origin

HERE = Origin("f.yml", 3)


def found(text: str) -> tuple[dict[str, Any], list[str]]:
    settings: dict[str, Node] = {}
    notes: list[str] = []
    login.read(Node(text, HERE), "ansible_ssh_common_args", settings, notes)
    return {key: node.plain() for key, node in settings.items()}, notes


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("-o ProxyJump=me@bastion:22", {"jump": "me@bastion:22"}),
        ("-J bastion", {"jump": "bastion"}),
        ("-Jbastion,other", {"jump": "bastion,other"}),
        ("-o 'ProxyJump bastion'", {"jump": "bastion"}),
        ("-oProxyJump=none", {}),
        ("""-o ProxyCommand='ssh -W %h:%p -q me@bastion'""", {"jump": "me@bastion"}),
        ("""-o ProxyCommand="ssh -p 2222 -W %h:%p bastion" """, {"jump": "bastion:2222"}),
        (
            "-o ProxyCommand='nc -x proxy:1080 %h %p'",
            {"ssh_options": ["ProxyCommand=nc -x proxy:1080 %h %p"]},
        ),
        (
            "-o ProxyCommand='ssh -i /k -W %h:%p b'",
            {"ssh_options": ["ProxyCommand=ssh -i /k -W %h:%p b"]},
        ),
        ("-p 2222 -l omni -i ~/k", {"port": 2222, "user": "omni", "private_key": "~/k"}),
        ("-C -o IdentitiesOnly=yes", {"ssh_options": ["Compression=yes", "IdentitiesOnly=yes"]}),
        ("-o StrictHostKeyChecking=yes", {}),
        ("-o UserKnownHostsFile=/etc/known", {"known_hosts": "/etc/known"}),
        ("-p ²", {"port": "²"}),  # a digit, but no number: the schema refuses it
        ("", {}),
    ],
)
def test_words_become_settings(text: str, ours: dict[str, Any]) -> None:
    assert found(text) == (ours, [])


@pytest.mark.parametrize(
    ("text", "word", "why"),
    [
        ("-o StrictHostKeyChecking=no", "StrictHostKeyChecking=no", "host keys are checked"),
        ("-o UserKnownHostsFile=/dev/null", "UserKnownHostsFile=/dev/null", "setup-keys"),
        ("-o ControlMaster=auto", "ControlMaster=auto", "connections itself"),
        ("-o ConnectTimeout=5", "ConnectTimeout=5", "fleet.connect_timeout_s"),
        ("-F /my/config", "-F", "ssh is not told"),
        ("-o", "", "ssh is not told"),
        ("-p 1 -p 2", "-p 2", "f.yml:3 says 1"),
    ],
)
def test_the_rest_is_named_with_the_reason(text: str, word: str, why: str) -> None:
    note = found(text)[1][0]
    assert note.startswith(f"f.yml:3: ansible_ssh_common_args: {word} is not used: ")
    assert why in note


def test_text_that_is_no_words_is_refused() -> None:
    with pytest.raises(InputError, match=r"f.yml:3: ansible_ssh_common_args: cannot take"):
        found("-o 'x")


@pytest.mark.needs("ssh")
def test_ssh_itself_takes_the_options_and_the_first_says_more(tmp_path: Path) -> None:
    """ssh -G prints what it would do: the options arrive, and checking of host keys stays."""
    more = "{address: 192.0.2.1, ssh_options: [Compression=yes, StrictHostKeyChecking=no]}"
    config = load(tmp_path, FLEET.replace("{address: 192.0.2.1}", more))
    words = direct_ssh.words(config.settings.hosts["p0"], config.settings)
    argv = ["ssh", "-F", "none", "-G", *words, "192.0.2.1"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "compression yes" in said and "stricthostkeychecking true" in said
