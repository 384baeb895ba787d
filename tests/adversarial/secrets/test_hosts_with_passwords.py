"""Hosts that let in by password are deployed like any other, whoever calls and from wherever.

Real SSH servers on two hosts that take no key. The virtual environment is not on PATH, and there
is no sshpass: as for a user who types make deploy, or .venv/bin/invoke deploy.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from ssh_fleet import STAND_INS, Fleet, ssh_fleet

from omnikit.config.layers import control_folder

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
NAMES = ["p0", "d0"]
PASSWORD = "open 'se\"same $(id)"

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]

_SITE = f"""
runtime: process
devices: '0-1'
model: {{path: /data/model, served_name: tiny, placement: false}}
roles: {{disaggregated: {{server: {{workdir: null}}}}}}
server: {{command: [python3, {STAND_INS}/fleet_server.py]}}
proxy: {{kind: nginx-lua, prefill_balance: least_conn, decode_balance: least_conn,
  worker_processes: 1, worker_connections: 1024}}
readiness: {{poll_interval_s: 0.1, deadline_s: 120}}
stop: {{grace_s: 3}}
fleet: {{connect_timeout_s: 60}}
"""
_OURS = """profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}
topology: {prefill: [{hosts: [p0]}], decode: [{hosts: [d0]}], proxy: p0}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("passwords")
    variables = {name: {"FAKE_HCCN_HOST": str(i)} for i, name in enumerate(NAMES)}
    with ssh_fleet(
        folder / "fleet",
        NAMES,
        npu=True,
        variables=variables,
        password=PASSWORD,
        authorized=False,
    ) as hosts:
        for host in hosts.hosts.values():
            host.path("/data/model").mkdir(parents=True)
            host.path("/data/model/config.json").write_text("{}")
        yield hosts


class Caller:
    """Somebody with a home of their own: no key, no connection kept from before."""

    def __init__(self, folder: Path, fleet: Fleet, home: str) -> None:
        self.fleet, self.folder = fleet, folder
        self.site = folder / "site.yaml"
        self.site.write_text(f"{_SITE}keys: {{known_hosts: {fleet.known_hosts}}}\n")
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "LANG": "C.UTF-8",
        }
        assert shutil.which("sshpass", path=self.env["PATH"]) is None
        assert shutil.which("ansible", path=self.env["PATH"]) is None
        self.said = ""

    def ours(self, password: str) -> Path:
        """An environment of ours; password: the reference."""
        rows = [
            f"  {h.name}: {{address: {h.address}, user: root, python: /usr/bin/python3,"
            f" password: {password}}}\n"
            for h in self.fleet.hosts.values()
        ]
        file = self.folder / "bypassword.yaml"
        file.write_text(f"{_OURS}hosts:\n{''.join(rows)}")
        return file

    def invoke(self, task: str, file: Path, *words: str, code: int = 0) -> str:
        argv = [str(BIN / "invoke"), task, "--environment", str(file)]
        argv += ["--config", str(self.site), *words]
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=400,
            start_new_session=True,  # no terminal to ask at
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert PASSWORD not in said and 'se\\"same' not in said
        return said

    def deploys(self, file: Path) -> None:
        """Deploy, ask, stop: by Ansible, and by connections that are kept."""
        try:
            assert "ready" in self.invoke("deploy", file)
            assert re.search(r"p0\b.*ready", self.invoke("status", file))
        finally:
            self.invoke("stop", file)
            shutil.rmtree(control_folder(file.stem), ignore_errors=True)


@pytest.fixture
def caller(tmp_path: Path, fleet: Fleet) -> Iterator[Caller]:
    with tempfile.TemporaryDirectory(prefix="home-") as home:  # short: ssh's sockets are below it
        yield Caller(tmp_path, fleet, home)


def test_the_password_of_a_file(caller: Caller) -> None:
    secret = caller.folder / "password"
    secret.write_text(PASSWORD + "\n")
    caller.deploys(caller.ours(f"{{file: {secret}}}"))


def test_the_password_of_a_variable_and_a_wrong_one_is_said(caller: Caller) -> None:
    file = caller.ours("{variable: FLEET_PASSWORD}")
    caller.env["FLEET_PASSWORD"] = "wrong"
    assert "Permission denied" in caller.invoke("deploy", file, code=1)
    caller.env["FLEET_PASSWORD"] = PASSWORD
    caller.invoke("deploy", file, "--tags", "ranktable")
    shutil.rmtree(control_folder(file.stem), ignore_errors=True)


def test_the_passwords_of_an_inventory_plain_and_from_a_vault(caller: Caller) -> None:
    vault = caller.folder / "vault-password"
    vault.write_text("open it\n")
    caller.env["ANSIBLE_VAULT_PASSWORD_FILE"] = str(vault)
    encrypted = subprocess.run(
        [str(BIN / "ansible-vault"), "encrypt_string", "--stdin-name", "ansible_password"],
        input=PASSWORD,
        env=caller.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\n", "\n          ")
    plain = PASSWORD.replace("'", "''")
    p0, d0 = (caller.fleet.hosts[name].address for name in ("p0", "d0"))
    file = caller.folder / "bypassword.yml"
    file.write_text(
        f"""all:
  vars: {{ansible_user: root, ansible_python_interpreter: /usr/bin/python3}}
  children:
    P:
      hosts:
        p0:
          ansible_host: {p0}
          node_rank: 0
          kv_rank: 0
          node_port: 8000
          api_port: 9000
          host_ip: {p0}
          ascend_rt_visible_devices: "0,1"
          {encrypted}
    D:
      hosts:
        d0:
          ansible_host: {d0}
          node_rank: 0
          node_port: 8100
          api_port: 9100
          host_ip: {d0}
          ascend_rt_visible_devices: "0,1"
          ansible_password: '{plain}'
          ansible_become_password: '{plain}'
    C:
      hosts:
        c0: {{ansible_host: {p0}, node_rank: 0, node_port: 7000, api_port: 7000, host_ip: {p0}}}
"""
    )
    text = file.read_text().replace("c0: {", f"c0: {{ansible_password: '{plain}', ")
    file.write_text(text)
    caller.deploys(file)
