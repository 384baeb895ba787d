"""Plain SSH connections: their options, and what their faults mean."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path
from typing import Any

import pytest
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.fleet import direct_ssh
from omnikit.topology.topology import make_plan


def link(folder: Path, entry: str, sockets: Path):
    """The way to host p0 with such an entry."""
    text = FLEET.replace("p0: {address: 192.0.2.1}", f"p0: {{address: 192.0.2.1{entry}}}")
    config = load(folder, text)
    host = next(one for one in make_plan(config).hosts if one.name == "p0")
    return direct_ssh.link(host, config.settings, sockets)


def test_connections_are_kept_and_ask_nobody(tmp_path: Path) -> None:
    with link(tmp_path, ", user: ann, port: 2222", Path("/tmp/x")) as made:
        argv = made.argv("echo", "it's")
        assert made.socket is not None and made.socket.parent == Path("/tmp/x")
    assert argv[0] == "ssh" and argv[-3:] == ["--", "ann@192.0.2.1", "echo 'it'\"'\"'s'"]
    for word in ("StrictHostKeyChecking=yes", "BatchMode=yes", "ControlMaster=auto"):
        assert word in argv
    assert argv[argv.index("-p") + 1] == "2222" and "ConnectTimeout=10" in argv
    assert made.env["SSH_ASKPASS_REQUIRE"] == "never"


def test_each_way_to_log_in_has_a_connection_of_its_own(tmp_path: Path) -> None:
    sockets = []
    for entry in ("", ", user: ann", ", private_key: /k", ", port: 22"):
        with link(tmp_path, entry, Path("/tmp/x")) as made:
            sockets.append(made.socket)
    assert len(set(sockets)) == 4


def test_a_socket_whose_path_is_too_long_is_done_without(tmp_path: Path) -> None:
    with link(tmp_path, "", tmp_path / ("long" * 30)) as made:
        assert made.socket is None and "ControlMaster=auto" not in made.words


def test_a_password_is_on_no_command_line(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    with link(tmp_path, f", password: {{file: {tmp_path}/password}}", tmp_path) as made:
        assert "sesame" not in " ".join(made.argv("true")) and "BatchMode=yes" not in made.words
        assert made.env["SSH_ASKPASS_REQUIRE"] == "force"
        assert not any("sesame" in value for value in made.env.values())
    (tmp_path / "password").unlink()
    gone = link(tmp_path, f", password: {{file: {tmp_path}/password}}", tmp_path)
    with pytest.raises(InputError, match="cannot read the secret"), gone:
        pass


def test_what_is_followed_has_connections_of_its_own_and_all_passwords(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    text = FLEET.replace(
        "p0: {address: 192.0.2.1}",
        f"p0: {{address: 192.0.2.1, password: {{file: {tmp_path}/password}}}}",
    )
    config = load(tmp_path, text)
    hosts = [one for one in make_plan(config).hosts if one.name in ("p0", "d0")]
    with direct_ssh.streams(hosts, config.settings) as links:
        assert [one.socket for one in links] == [None, None] and len(links) == 2
        assert ["BatchMode=yes" in one.words for one in links] == [
            one.host.name == "d0" for one in links
        ]
        assert links[0].env == links[1].env and links[0].env["SSH_ASKPASS_REQUIRE"] == "force"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nfailed", "setup-keys compares"),
        ("No key is known\nHost key verification failed.", "is not recorded here"),
        ("root@192.0.2.1: Permission denied (publickey).", "does not let this user in"),
        ("Received disconnect: Too many authentication failures", "hosts.p0.private_key"),
        ("ssh: Could not resolve hostname x: Name or service not known", "hosts.p0.address"),
        ("ssh: connect to host x port 22: Connection refused", "no SSH server answers"),
        ("ssh: connect to host x port 22: No route to host", "cannot be reached: ssh: connect"),
        ("", "ssh said nothing"),
    ],
)
def test_faults(tmp_path: Path, said: str, expected: str) -> None:
    with link(tmp_path, "", tmp_path) as made:
        found = str(direct_ssh.fault(made, said))
    assert expected in found and "What to do: " in found


def test_the_archive_is_the_one_that_ansible_ships() -> None:
    from omnikit.fleet import bundle

    assert direct_ssh.host_code() == bundle.archive({}, bundle.host_code())


def settings_with(host: str, *more: str) -> Any:
    return config.load("2p1d", assignments=[f"hosts.p0={host}", *more], environ={}).settings


def test_host_keys_are_always_checked() -> None:
    settings = settings_with("{address: 192.0.2.11}", "keys.private_key=/no/such")
    words = direct_ssh.words(settings.hosts["p0"], settings)
    assert words[:2] == ["-o", "StrictHostKeyChecking=yes"] and "-i" not in words


def test_host_keys_are_read_where_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH's own file is in the home of /etc/passwd; ours, which setup-keys writes, in HOME."""
    settings = settings_with("{address: 192.0.2.11}")
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    assert "UserKnownHostsFile" not in " ".join(direct_ssh.words(settings.hosts["p0"], settings))
    monkeypatch.setenv("HOME", str(tmp_path))
    words = direct_ssh.words(settings.hosts["p0"], settings)
    assert f'UserKnownHostsFile="{tmp_path}/.ssh/known_hosts"' in words

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)  # a container's user without a name
    assert direct_ssh.known_hosts(settings) == ""


def test_everything_a_host_says_is_used(tmp_path: Path) -> None:
    known = tmp_path / "known hosts"
    settings = settings_with(
        "{address: 192.0.2.11, user: ops, port: 2222, private_key: ~/k, jump: me@bastion}",
        f"keys.known_hosts={known}",
    )
    host = settings.hosts["p0"]
    words = direct_ssh.words(host, settings)
    assert words[words.index("-p") + 1] == "2222"
    assert words[words.index("-i") + 1] == str(Path("~/k").expanduser())
    assert "ProxyJump=me@bastion" in words
    assert f'UserKnownHostsFile="{known}"' in words
    assert direct_ssh.target(host) == "ops@192.0.2.11"
    variables = direct_ssh.ansible_variables(host, settings)
    assert shlex.split(variables["ansible_ssh_common_args"])[1] == f'UserKnownHostsFile="{known}"'


def test_the_general_key_is_used_where_it_is_there(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = settings_with("{address: 192.0.2.11}", f"keys.private_key={key}")
    assert direct_ssh.private_key(settings.hosts["p0"], settings) == ""
    key.write_text("")
    assert direct_ssh.private_key(settings.hosts["p0"], settings) == str(key)
