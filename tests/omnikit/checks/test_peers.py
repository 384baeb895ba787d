"""What SSH's own words and the peers' answers mean, and what to do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.checks import environment
from omnikit.config import config

# As Ansible hands on what ssh (OpenSSH 9.2) prints.
CHANGED = """\
the host cannot be reached: Failed to connect to the host via ssh: \
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key for 192.0.2.11 has changed and you have requested strict checking.
Host key verification failed."""
REFUSED = (
    "the host cannot be reached: Failed to connect to the host via ssh: "
    "ssh: connect to host 192.0.2.11 port 22: Connection refused"
)
SSH = "the host cannot be reached: Failed to connect to the host via ssh: "


def fault(said: str, *assignments: str, name: str = "p0") -> Optional[dict[str, Any]]:
    settings = config.load("2p1d", assignments=assignments).settings
    return environment.ssh_fault(name, settings.hosts[name], settings, "2p1d", said)


@pytest.mark.parametrize(
    ("said", "found", "todo"),
    [
        (CHANGED, "the host's key is another than the recorded one", "ssh-keygen -R 192.0.2.11"),
        (
            SSH + "No ED25519 host key is known for 192.0.2.11 and you have requested strict "
            "checking.\nHost key verification failed.",
            "the host's key is not recorded here",
            "invoke setup-keys --environment 2p1d",
        ),
        (
            SSH + "root@192.0.2.11: Permission denied (publickey,password).",
            "permission denied",
            "invoke setup-keys --environment 2p1d; the user is hosts.p0.user",
        ),
        (
            "the host cannot be reached: Invalid/incorrect username/password. Skipping remaining "
            "5 retries to prevent account lockout",
            "permission denied",
            "invoke setup-keys",
        ),
        (REFUSED, "port 22 refuses connections", "systemctl start sshd"),
        (SSH + "ssh: connect to host 192.0.2.11 port 22: Connection timed out", "no answer", "ssh"),
        (SSH + "ssh: connect to host 192.0.2.11 port 22: No route to host", "no route", "ssh -o"),
        (
            SSH + "ssh: Could not resolve hostname p0x: Name or service not known",
            "the host's name is not known here",
            "set hosts.p0.address",
        ),
        (
            "the host cannot be reached: to use the 'ssh' connection type with passwords or "
            "pkcs11_provider, you must install the sshpass program",
            "hosts.p0.password is set, and this machine lacks sshpass",
            "apt-get install sshpass",
        ),
        (SSH + "kex_exchange_identification: read: Connection reset", "kex_exchange", "by hand"),
    ],
)
def test_each_way_to_be_locked_out_has_its_remedy(said: str, found: str, todo: str) -> None:
    made = fault(said)
    assert made is not None
    assert (made["id"], made["state"], made["required"]) == ("ssh", "failed", True)
    assert found in made["found"] and todo in made["todo"]


def test_the_command_that_forgets_a_key_fits_port_and_file(tmp_path: Path) -> None:
    made = fault(CHANGED, "hosts.p0.port=2222", f"keys.known_hosts={tmp_path}/known")
    assert made is not None
    assert f"ssh-keygen -R '[192.0.2.11]:2222' -f {tmp_path}/known, then" in made["todo"]


def test_words_of_a_job_are_not_taken_for_ssh() -> None:
    assert fault("connect to 10.0.0.1: Connection refused") is None


def test_a_host_that_was_reached_but_did_not_answer_says_why() -> None:
    settings = config.load("2p1d").settings
    said = "looking at the tools\nlooking at the disks\nerror: no space left.\n  more"
    made = environment.failed(
        "p0", settings.hosts["p0"], settings, "2p1d", ActionError(said, todo="make room")
    )
    assert [(one["id"], one["state"]) for one in made] == [("ssh", "ok"), ("checks", "failed")]
    assert (made[1]["found"], made[1]["todo"]) == ("no space left.\n  more", "make room")


def test_a_local_host_has_no_ssh_entry() -> None:
    settings = config.load("local").settings
    made = environment.failed(
        "local", settings.hosts["local"], settings, "local", InputError("it is broken.")
    )
    assert [one["id"] for one in made] == ["checks"]
    assert made[0]["found"] == "it is broken."
    assert made[0]["todo"] == "invoke check-env --environment local --host local"


def peer(state: str, name: str = "p1", found: str = "SSH-2.0-OpenSSH_9.2") -> dict[str, Any]:
    return {
        **{"name": name, "address": "10.0.0.12", "port": 22, "ms": 1.5},
        **{"ok": state == "ok", "state": state, "found": found},
    }


def test_peers_that_answer_are_one_entry() -> None:
    made = environment.reached({"reached": [peer("ok"), peer("ok", "d0")], "pings": []})
    assert [(one["id"], one["state"]) for one in made] == [("peers.ssh", "ok")]
    assert made[0]["found"] == "2 of 2 answer, the slowest in 1.5 ms"
    assert made[0]["required"] is True


@pytest.mark.parametrize(
    ("state", "verdict", "todo"),
    [("refused", "warning", "systemctl start sshd"), ("silent", "failed", "ip route get")],
)
def test_a_machine_that_refuses_is_there_a_silent_one_is_not(
    state: str, verdict: str, todo: str
) -> None:
    tried = [peer("ok"), peer(state, "d0", "why")]
    made = environment.reached({"reached": tried, "pings": []})[0]
    assert made["state"] == verdict
    assert made["found"] == "d0 (10.0.0.12:22): why"
    assert todo in made["todo"]


def test_lost_pings_are_listed_and_many_are_counted() -> None:
    good = {"device": 0, "peer_ip": "10.1.1.1", "ok": True, "found": "3 of 3 packets came back"}
    made = environment.reached({"reached": [], "pings": [good] * 3})
    assert [(one["id"], one["state"]) for one in made] == [("peers.devices", "ok")]
    assert made[0]["found"] == "3 of 3 pings came back"
    bad = [{**good, "device": n, "ok": False, "found": "lost"} for n in range(6)]
    made = environment.reached({"reached": [], "pings": [good, *bad]})
    assert made[0]["state"] == "failed"
    assert made[0]["found"].startswith("device 0 to 10.1.1.1: lost; device 1 to")
    assert made[0]["found"].endswith("; and 2 more of 7")


def test_a_job_that_failed_as_a_whole_is_an_entry_too() -> None:
    made = environment.not_tried(ActionError("trying\nerror: it broke."))
    assert (made["id"], made["state"], made["found"]) == ("peers.ssh", "failed", "it broke.")
