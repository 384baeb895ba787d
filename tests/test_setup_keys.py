"""Keys on real SSH hosts: from a password to a log-in by key, and what can stand against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest
from ssh_fleet import Fleet, new_key, ssh_fleet

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "s3cret 'with' $(odd) \"signs\""

pytestmark = pytest.mark.slow


class Site:
    """An environment over a fleet, with files of its own for keys and passwords."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.folder, self.fleet = folder, fleet
        self.key, self.known = folder / "keys" / "id", folder / "known_hosts"
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        rows = [f"  {h.name}: {{address: {h.address}, user: root}}" for h in fleet.hosts.values()]
        names = list(fleet.hosts)
        self.file = folder / "site.yaml"
        self.file.write_text(
            "profile: {engine: ascend, model: deepseek-r1-w8a8}\n"
            "hosts:\n" + "\n".join(rows) + "\n"
            f"topology: {{prefill: [{{hosts: [{names[0]}]}}], decode: [{{hosts: {names[1:]}}}],"
            f" proxy: {names[0]}}}\n"
            f"keys: {{private_key: {self.key}, known_hosts: {self.known}}}\n"
            "fleet: {connect_timeout_s: 5}\n"
        )

    def setup(
        self, *words: str, code: int, path: str = "", variables: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        """Run the script as from a cron job; the password must be nowhere in what it says."""
        env = {**os.environ, **variables}
        env.pop("SSH_AUTH_SOCK", None)
        if path:
            env["PATH"] = f"{path}:{env['PATH']}"
        done = subprocess.run(
            [sys.executable, "scripts/setup_keys.py", "-e", str(self.file), *words],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert "Traceback" not in said and PASSWORD not in said
        return done

    def with_password(self, *words: str, code: int = 0, **more: Any) -> str:
        given = ["--password-file", str(self.password_file), "--yes", *words]
        done = self.setup(*given, code=code, **more)
        return done.stdout + done.stderr

    def proofs(self, *words: str, code: int = 0) -> dict[str, tuple[str, str, str]]:
        given = ["--password-file", str(self.password_file), "--yes", "--json", *words]
        found = json.loads(self.setup(*given, code=code).stdout)
        return {a["name"]: (a["host_key"], a["authorized"], a["proof"]) for a in found}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ssh_fleet(
        tmp_path / "fleet", ["p0", "d0", "d1"], password=PASSWORD, authorized=False
    ) as fleet:
        yield Site(tmp_path, fleet)


def modes(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_from_nothing_to_a_log_in_by_key_and_then_unchanged(site: Site) -> None:
    assert site.proofs() == dict.fromkeys(("p0", "d0", "d1"), ("added", "added", "ok"))
    assert modes(site.key) == 0o600 and modes(site.key.with_name("id.pub")) == 0o644
    assert modes(site.key.parent) == 0o700
    for name, host in site.fleet.hosts.items():
        keys = host.path("/root/.ssh/authorized_keys")
        assert keys.read_text() == site.key.with_name("id.pub").read_text(), name
        assert modes(keys) == 0o600 and modes(keys.parent) == 0o700
    before = site.known.read_text()
    assert site.proofs() == dict.fromkeys(("p0", "d0", "d1"), ("unchanged", "unchanged", "ok"))
    assert site.known.read_text() == before
    # Once it works, nobody has to be asked for anything.
    assert "p0: ok" in site.setup(code=0).stderr


def test_other_lines_stay_also_without_a_newline_at_the_end(site: Site) -> None:
    ssh = site.fleet.hosts["p0"].path("/root/.ssh")
    ssh.mkdir(exist_ok=True)
    (ssh / "authorized_keys").write_text("ssh-ed25519 AAAAsomebody else")
    assert site.proofs("--host", "p0")["p0"] == ("added", "added", "ok")
    lines = (ssh / "authorized_keys").read_text().splitlines()
    assert lines == [
        "ssh-ed25519 AAAAsomebody else",
        site.key.with_name("id.pub").read_text().strip(),
    ]


def test_the_password_is_in_no_argv_and_no_variable(site: Site, tmp_path: Path) -> None:
    """ssh is wrapped to see how it is called: there is no other way to look at its start."""
    tools, log = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    wrapper = tools / "ssh"
    wrapper.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >>{log}\nexec /usr/bin/ssh "$@"\n')
    wrapper.chmod(0o755)
    site.with_password(path=str(tools))
    calls = log.read_text()
    assert "SSH_ASKPASS_REQUIRE=force" in calls
    assert PASSWORD not in calls and "s3cret" not in calls
    askpass = next(x for x in calls.splitlines() if x.startswith("SSH_ASKPASS=")).partition("=")[2]
    assert not Path(askpass).exists() and not Path(askpass).parent.exists()


def test_a_wrong_password_is_named_and_the_others_are_done(site: Site) -> None:
    shadow = site.fleet.hosts["d0"].path("/etc/shadow")
    shadow.write_text("root:*:19000:0:99999:7:::\n")
    said = site.with_password(code=1)
    assert "p0: ok" in said and "d1: ok" in said
    assert "host d0: wrong user or password" in said
    assert "hosts.d0.user" in said


def test_a_changed_host_key_is_refused_before_anything_is_done(site: Site) -> None:
    site.with_password()
    before = site.known.read_text()
    host = site.fleet.hosts["d1"]
    site.fleet.stop("d1")
    now = new_key(host.folder / "upper" / "etc" / "ssh" / "fleet_key")
    site.fleet.start("d1")
    said = site.with_password(code=2)
    assert "host d1: its host key changed: recorded SHA256:" in said
    assert f"ssh-keygen -R {host.address}" in said and "p0: ok" not in said
    assert site.known.read_text() == before and now.split()[1] not in before


def test_a_host_that_is_off_is_named_and_the_others_are_done(site: Site) -> None:
    site.fleet.stop("d1")
    said = site.with_password(code=1)
    assert "host d1: the SSH server of" in said and "p0: ok" in said
    site.fleet.start("d1")
    assert site.proofs()["d1"] == ("added", "added", "ok")


def test_expected_fingerprints_are_checked(site: Site, tmp_path: Path) -> None:
    shown = site.setup("--dry-run", code=0).stderr
    prints = {line.split()[1]: line.split()[-1] for line in shown.splitlines() if "SHA256:" in line}
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("".join(f"{name} {text}\n" for name, text in prints.items()))
    wrong.write_text(right.read_text().replace(prints["d0"], "SHA256:" + "A" * 43))
    given = ["--password-file", str(site.password_file), "--fingerprints"]
    done = site.setup(*given, str(wrong), code=2)
    assert "host d0 shows" in done.stderr and not site.known.exists()
    site.setup(*given, str(right), code=0)


def test_a_dry_run_changes_nothing(site: Site) -> None:
    done = site.setup("--dry-run", code=0)
    assert "would be made" in done.stderr and "host p0: host key new" in done.stdout
    assert not site.key.exists() and not site.known.exists()


def test_without_a_terminal_it_says_what_to_give(site: Site) -> None:
    done = site.setup(code=2)
    assert "--yes" in done.stderr and not site.known.exists()
    done = site.setup("--yes", code=2)
    assert "--password-file" in done.stderr


def test_a_password_file_that_others_may_read_is_refused(site: Site) -> None:
    site.password_file.chmod(0o644)
    said = site.with_password(code=2)
    assert "others may read it" in said and "chmod 600" in said


def test_a_key_with_wrong_modes_is_mended(site: Site) -> None:
    site.key.parent.mkdir()
    new_key(site.key)
    site.key.chmod(0o644)
    said = site.with_password()
    assert f"key {site.key}: mended" in said and modes(site.key) == 0o600


def test_an_unknown_host_is_misuse(site: Site) -> None:
    assert "no host 'p9'" in site.setup("--host", "p9", code=2).stderr
