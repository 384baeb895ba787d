"""Hosts' own keys: recorded, new or changed, in plain and hashed known_hosts files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.fleet import keys
from omnikit.fleet.keys import Seen

A, B = "AAAAC3NzaC1lZDI1NTE5AAAAIA", "AAAAC3NzaC1lZDI1NTE5AAAAIB"


def seen(shown: dict[str, str], recorded: dict[str, str]) -> Seen:
    return Seen("p0", "192.0.2.1", shown, recorded)


@pytest.mark.parametrize(
    ("shown", "recorded", "state"),
    [
        ({"ssh-ed25519": A}, {}, "new"),
        ({"ssh-ed25519": A, "ssh-rsa": B}, {"ssh-ed25519": A}, "recorded"),
        ({"ssh-ed25519": B}, {"ssh-ed25519": A}, "changed"),
        ({"ssh-ed25519": A, "ssh-rsa": A}, {"ssh-ed25519": A, "ssh-rsa": B}, "changed"),
        ({"ssh-rsa": A}, {"ssh-ed25519": A}, "changed"),
    ],
)
def test_states(shown: dict[str, str], recorded: dict[str, str], state: str) -> None:
    assert seen(shown, recorded).state == state


def test_another_port_stands_in_brackets() -> None:
    hosts = config.load(
        "2p1d", assignments=["hosts.p0={address: 192.0.2.1, port: 2222}"], environ={}
    ).settings.hosts
    assert keys.spec(hosts["p0"]) == "[192.0.2.1]:2222"
    assert keys.spec(hosts["p1"]) == "192.0.2.12"


def test_a_jump_host_asks_in_our_place() -> None:
    given = "hosts.p0={address: 192.0.2.1, jump: 'a@one,b@two:2200'}"
    host = config.load("2p1d", assignments=[given], environ={}).settings.hosts["p0"]
    words = keys.scan_words(host, 5)
    assert words[0] == "ssh" and words[words.index("-J") + 1] == "a@one"
    assert words[words.index("-p") + 1] == "2200" and words[-2] == "b@two"
    assert words[-1].startswith("ssh-keyscan -T 5 -p 22 ") and words[-1].endswith("192.0.2.1")


@pytest.mark.needs("ssh")
def test_what_is_recorded_is_found_again_hashed_too(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    kind, text = (tmp_path / "key.pub").read_text().split()[:2]
    file = tmp_path / "known_hosts"
    file.write_text("other ssh-ed25519 AAAA")  # no line end
    keys.record([seen({kind: text}, {})], file)
    assert file.read_text().splitlines()[0] == "other ssh-ed25519 AAAA"
    assert keys._recorded("192.0.2.1", file) == {kind: text}
    file.write_text(f"192.0.2.1 {kind} {text}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "192.0.2.1" not in file.read_text()
    assert keys._recorded("192.0.2.1", file) == {kind: text}


def test_a_bad_file_of_fingerprints_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "prints"
    file.write_text("# comment\np0 SHA256:abc\np1 MD5:abc\n")
    with pytest.raises(InputError) as caught:
        keys.expected(file)
    assert caught.value.where == f"{file}:3"
