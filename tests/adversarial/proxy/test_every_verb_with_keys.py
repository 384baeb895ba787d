"""A closed deployment is deployed, watched, measured, rolled and mended like an open one.

Keys, TLS of a private authority and a key of the servers, all at once. Stand-ins for the engines,
real nginx; real engines: test_same_as_colocated. The tests share one deployment, in order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from certificates import Authority

from hostkit.access.service import Service
from omnikit.config.layers import control_folder

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]

ROOT = Path(__file__).resolve().parents[3]
PORT = 14700
PORTS = (
    f"{{api_base: 14000, master_base: 14300, proxy: {PORT}, kv_side_channel: 14500, zmq: 14600}}"
)
KEYS = {"toolkit": "client-" + "a" * 30, "alice": "client-" + "b" * 30}
INTERNAL = "internal-" + "c" * 30
VERBS = [
    ["status.py"],
    ["smoke_test.py"],
    ["doctor.py"],
    ["plan.py", "--files"],
    ["config.py", "--origin"],
    ["releases.py"],
    ["fetch_logs.py"],
    ["export_ansible.py"],
]


class Site:
    """The deployment's folder; said: all that was printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.tls = self.authority.make()
        self.said = ""
        self.keys(KEYS, INTERNAL)
        text = (ROOT / "tests" / "environments" / "breadth.yaml").read_text()
        text = text.replace("build/test-breadth", f"{folder}/work")
        text = text.replace("tests/kit/fleet_server.py", f"{ROOT}/tests/kit/fleet_server.py")
        text = re.sub("^ports: .*", f"ports: {PORTS}", text, flags=re.MULTILINE)
        tls = ", ".join(f"{name}: {path}" for name, path in self.tls.items())
        text = re.sub(
            "^proxy: .*",
            "proxy:\n  listen_host: 127.0.0.1\n"
            f"  api_keys: {{file: {folder}/api_keys}}\n"
            f"  internal_key: {{file: {folder}/internal_key}}\n  tls: {{{tls}}}",
            text,
            flags=re.MULTILINE,
        )
        (folder / "closed.yaml").write_text(text)

    def keys(self, keys: dict[str, str], internal: str) -> None:
        files = {
            "api_keys": "".join(f"{n}: {k}\n" for n, k in keys.items()),
            "internal_key": internal,
        }
        for name, text in files.items():
            (self.folder / name).touch(mode=0o600)
            (self.folder / name).write_text(text)

    def run(self, script: str, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, f"scripts/{script}", "-e", str(self.folder / "closed.yaml"), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
        )
        said = done.stdout + done.stderr
        self.said += said
        assert done.returncode == code and "Traceback" not in said, said
        return said

    def pids(self) -> dict[str, int]:
        records = (self.folder / "work" / "state").glob("*.json")
        servers = [one for path in records for one in json.loads(path.read_text())["servers"]]
        return {server["name"]: server["process"]["pid"] for server in servers}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("closed"))
    try:
        yield made
    finally:
        made.run("clean_up.py", "--yes", "--logs")


def test_it_is_deployed_and_the_second_time_nothing_changes(site: Site) -> None:
    assert "44 of 44 prompt tokens transferred" in site.run("deploy.py")
    assert f"https://127.0.0.1:{PORT}" in site.said
    before = site.pids()
    assert "nothing to change" in site.run("deploy.py")
    assert site.pids() == before


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_every_verb_works(words: list[str], site: Site) -> None:
    own = {"fetch_logs.py": ["--out"], "export_ansible.py": ["--out"]}.get(words[0], [])
    site.run(*words, *own, *[str(site.folder / words[0])][: len(own)])


def test_prometheus_is_told_how_to_get_in(site: Site) -> None:
    import yaml

    site.run("metrics.py", "--out", str(site.folder / "metrics"))
    made = yaml.safe_load((site.folder / "metrics" / "prometheus.yml").read_text())
    servers, proxy = made["scrape_configs"]
    file = f"{site.folder}/internal_key"
    assert servers["authorization"] == {"type": "Bearer", "credentials_file": file}
    assert proxy["scheme"] == "https" and proxy["tls_config"] == {"ca_file": site.tls["ca"]}
    url = f"https://{proxy['static_configs'][0]['targets'][0]}"
    answer = Service(url, ca=proxy["tls_config"]["ca_file"]).request("/metrics", timeout_s=30)
    assert "nginx_up 1" in answer.text
    for target in (one["targets"][0] for one in servers["static_configs"]):
        service = Service(f"http://{target}", key_file=servers["authorization"]["credentials_file"])
        assert "vllm:num_requests_running" in service.request("/metrics", timeout_s=30).text


def test_a_report_is_written(site: Site) -> None:
    site.run("report.py", "--out", str(site.folder / "report.html"))
    assert f"127.0.0.1:{PORT}" in (site.folder / "report.html").read_text()


def test_prefill_servers_are_rolled(site: Site) -> None:
    before = site.pids()
    assert "all serve" in site.run("roll_prefill.py")
    after = site.pids()
    assert after["p0"] != before["p0"] and after["c0"] == before["c0"]


def test_servers_are_profiled(site: Site) -> None:
    words = ["--instance", "d0", "--yes", "--out", str(site.folder / "profiles")]
    site.run("profile_serving.py", *words)


def test_a_renewed_certificate_is_taken_over_once(site: Site) -> None:
    before = site.pids()
    site.authority.make()
    assert "c0: reloaded" in site.run("reload_proxy.py")
    assert "c0: unchanged" in site.run("reload_proxy.py")
    site.authority.make()
    assert "c0: its configuration differs; no connection is lost" in site.run("deploy.py")
    assert site.pids() == before and site.run("smoke_test.py")


WRONG_FILES = {
    "others may read or write it": lambda tls, site: Path(tls["key"]).chmod(0o644),
    "cannot be read": lambda tls, site: Path(tls["certificate"]).unlink(),
    "is not the key of": lambda tls, site: another_key(tls, site),
    "it expired": lambda tls, site: site.authority.make(begins=-3, days=2),
    "it is not valid before": lambda tls, site: site.authority.make(begins=2),
    "cannot be used": lambda tls, site: Path(tls["certificate"]).write_text("nonsense"),
}


def another_key(tls: dict[str, str], site: Site) -> None:
    kept = Path(tls["certificate"]).read_bytes()
    site.authority.make()
    Path(tls["certificate"]).write_bytes(kept)


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_wrong_files_are_named_before_anything_changes(wrong: str, site: Site) -> None:
    before = site.pids()
    try:
        WRONG_FILES[wrong](site.tls, site)
        said = site.run("deploy.py", code=2)
        assert wrong in said and "proxy.tls" in said and "nothing was changed" in said
    finally:
        Path(site.tls["key"]).chmod(0o600)
        site.authority.make()
    assert site.pids() == before


def test_a_key_that_the_proxy_does_not_know_is_named_at_once(site: Site) -> None:
    """By everything that asks with it; a deploy brings the new one to the proxy."""
    site.keys({"toolkit": "client-" + "z" * 30}, INTERNAL)
    for script in ("status.py", "smoke_test.py"):
        said = site.run(script, code=1)
        assert "status 401" in said and "proxy.api_keys" in said
    before = site.pids()
    site.run("deploy.py")
    assert site.pids() == before, "another key needs no restart"
    site.keys(KEYS, INTERNAL)
    site.run("deploy.py")


def test_servers_with_another_key_end_the_deploy_at_once(site: Site) -> None:
    """Not at the deadline, which is an hour here; what ran before serves again."""
    words = ["--set", "proxy.internal_key=null", "--set", "proxy.api_keys=null"]
    words += ["--set", "server.args.middleware=x", "--set", "readiness.deadline_s=3600"]
    other = site.folder / "other"
    other.touch(mode=0o600)
    other.write_text("other-" + "o" * 30)
    words += ["--set", f"server.env.VLLM_API_KEY={{file: {other}}}", "--yes"]
    said = site.run("deploy.py", *words, code=1)
    assert "refuses us: status 401" in said and "proxy.internal_key" in said
    site.run("status.py")


def test_a_new_key_of_the_servers_reaches_all_of_them(site: Site) -> None:
    before = site.pids()
    site.keys(KEYS, INTERNAL[:-1] + "d")
    said = site.run("deploy.py", "--yes")
    assert "p0: a secret of it differs (proxy.internal_key, server.env)" in said
    after = site.pids()
    assert after["c0"] == before["c0"] and after["d0"] != before["d0"]
    site.run("smoke_test.py")


def test_a_release_comes_back_with_the_keys_of_today(site: Site) -> None:
    """Keys are no part of a release: what was made public must not come back with it."""
    site.run("deploy.py", "--set", "server.args.max-num-seqs=3", "--yes")
    site.keys(KEYS, INTERNAL[:-1] + "e")
    site.run("rollback.py", "--yes")
    site.run("smoke_test.py")


def test_no_key_was_printed_or_left_where_others_can_read_it(site: Site) -> None:
    """Names of keys may be: they are in the proxy's log."""
    secrets = [*KEYS.values(), "client-" + "z" * 30]
    secrets += [INTERNAL, INTERNAL[:-1] + "d", INTERNAL[:-1] + "e"]
    for secret in secrets:
        assert secret not in site.said
    here = control_folder("closed")
    for path in (*site.folder.rglob("*"), *here.rglob("*"), *Path("/tmp").glob("omnikit-*/**/*")):
        if path.is_file() and path.stat().st_mode & 0o077:
            data = path.read_bytes()
            found = [secret for secret in secrets if secret.encode() in data]
            assert not found, path
    assert '"key":"toolkit"' in (site.folder / "work/logs/c0/access.log").read_text()
