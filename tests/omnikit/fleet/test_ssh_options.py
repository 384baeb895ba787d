"""How ssh and Ansible log in to a host."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from omnikit.config import config
from omnikit.fleet import ssh_options


def settings_with(host: str, *more: str) -> Any:
    return config.load("2p1d", assignments=[f"hosts.p0={host}", *more], environ={}).settings


def test_host_keys_are_always_checked() -> None:
    settings = settings_with("{address: 192.0.2.11}", "keys.private_key=/no/such")
    words = ssh_options.words(settings.hosts["p0"], settings)
    assert words[:2] == ["-o", "StrictHostKeyChecking=yes"] and "-i" not in words


def test_everything_a_host_says_is_used(tmp_path: Path) -> None:
    known = tmp_path / "known hosts"
    settings = settings_with(
        "{address: 192.0.2.11, user: ops, port: 2222, private_key: ~/k, jump: me@bastion}",
        f"keys.known_hosts={known}",
    )
    host = settings.hosts["p0"]
    words = ssh_options.words(host, settings)
    assert words[words.index("-p") + 1] == "2222"
    assert words[words.index("-i") + 1] == str(Path("~/k").expanduser())
    assert "ProxyJump=me@bastion" in words
    assert f'UserKnownHostsFile="{known}"' in words
    assert ssh_options.target(host) == "ops@192.0.2.11"
    variables = ssh_options.ansible_variables(host, settings)
    assert shlex.split(variables["ansible_ssh_common_args"])[1] == f'UserKnownHostsFile="{known}"'


def test_the_general_key_is_used_where_it_is_there(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = settings_with("{address: 192.0.2.11}", f"keys.private_key={key}")
    assert ssh_options.private_key(settings.hosts["p0"], settings) == ""
    key.write_text("")
    assert ssh_options.private_key(settings.hosts["p0"], settings) == str(key)
