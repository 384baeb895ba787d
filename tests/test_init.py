"""invoke init on real SSH hosts: from bare ones to an environment that is planned as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Iterator

import pytest
from ssh_fleet import Fleet, ssh_fleet

from hostkit.base import cli
from omnikit.config import layers
from omnikit.front.options import load_config

ROOT = Path(__file__).resolve().parents[1]
# An engine of containers that is there and has an image; what it has is asked in no other way here.
DOCKER = """\
#!/bin/sh
case "$1 $2" in
  "image ls") echo registry.example/omni:1 ;;
  "image inspect") echo "No such image: $4" >&2; exit 1 ;;
  "version --format") echo 24.0.7 ;;
  "info --format") echo linux/x86_64 ;;
  "ps --quiet") ;;
  *) echo "the stand-in for docker does not know: $*" >&2; exit 1 ;;
esac
"""
SICK, SILENT = "n3", "n4"
PASSWORD = "s3cret!"
STATES = {SICK: "a3.chip-warning", SILENT: "dcmi-8005"}


@dataclass(frozen=True)
class Site:
    """Hosts, and a folder for what one user of the clone has."""

    fleet: Fleet
    folder: Path

    def init(self, *words: str, code: int = 0) -> str:
        return self.run("init.py", *words, "--python", "/usr/bin/python3", code=code)

    def run(self, script: str, *words: str, code: int = 0) -> str:
        done = run_here(self.folder, script, *words)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def addresses(self, *names: str) -> str:
        return ",".join(self.fleet.hosts[name].address for name in names)

    def file(self, name: str) -> Path:
        return self.folder / "environments" / f"{name}.local.yaml"


def run_here(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / script), *words]
    env = {**os.environ, "OMNIKIT_SITE": str(folder)}
    env.pop("OMNIKIT_ENVIRONMENT", None)
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=300, start_new_session=True
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Hosts that take a password, none of whose keys is known here."""
    names = [f"n{number}" for number in range(5)]
    variables = {name: {"FAKE_NPU_SMI": state} for name, state in STATES.items()}
    with ssh_fleet(
        tmp_path / "fleet",
        names,
        password=PASSWORD,
        authorized=False,
        npu=True,
        variables=variables,
    ) as fleet:
        for host in fleet.hosts.values():
            docker = host.path("/usr/local/bin/docker")
            docker.write_text(DOCKER)
            docker.chmod(0o755)
        folder = tmp_path / "site"
        folder.mkdir()
        keys = {"private_key": f"{tmp_path}/key", "known_hosts": f"{tmp_path}/known_hosts"}
        (folder / "keys.local.yaml").write_text(json.dumps({"keys": keys}))
        yield Site(fleet, folder)


@pytest.mark.slow
@pytest.mark.needs("sshd", "ssh", "ip", "unshare", "nsenter", root=True)
def test_from_bare_hosts_to_an_environment_that_is_planned_as_it_is(
    site: Site, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    every, healthy = site.addresses(*site.fleet.hosts), site.addresses("n0", "n1", "n2")
    wish = ("--model", "deepseek-r1-w8a8", "--environment", "first", "--hosts")
    closed = site.init(*wish, healthy, code=2)
    assert "its host key is not recorded here" in closed and "add --setup-keys" in closed

    # Two of them cannot serve: their keys are set up all the same.
    keyed = ("--setup-keys", "--password-file", str(password), "--yes")
    said = site.init(*wish, every, *keyed, code=2)
    assert "Warning, expected OK" in said and "npu-smi info -t health" in said
    assert "npu-smi lists no chip" in said and f"go on without: --hosts {healthy}" in said
    assert not site.file("first").exists()

    assert "check-env --environment first" in site.init(*wish, healthy)
    planned = site.run("plan.py", "--environment", "first", "--json").partition("\nnote")[0]
    nodes = [(node["name"], node["host"], node["dp_size"]) for node in json.loads(planned)["nodes"]]
    assert nodes == [("p0", "p0", 1), ("d0", "d0", 32), ("d1", "d1", 32)]
    file = site.file("first")
    text, before = file.read_text(), file.stat()
    assert "of 58.9 GiB a device weights take 40.1" in " ".join(text.split())
    assert "docker 24.0.7; not there yet: image, weights in" in " ".join(text.split())

    assert "unchanged" in site.init("--environment", "first")
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    host = site.fleet.hosts["n0"]
    left = [path.name for folder in ("/root", "/data") for path in host.path(folder).iterdir()]
    assert left == [".ssh"]

    wrong = text.replace("{hosts: [p0]}", "{hosts: [p0], out: true}")
    kept = "\n# Ours.\nsmoke_test: {max_tokens: 9}\n"
    file.write_text(wrong + kept)
    shown = site.init("--environment", "first")
    assert "-    - {hosts: [p0], out: true}\n+    - {hosts: [p0]}" in shown
    assert file.read_text() == wrong + kept and "with --yes" in shown
    site.init("--environment", "first", "--yes")
    assert file.read_text() == text + kept


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("--hosts 10.0.0.300 --model qwen3-8b", "'10.0.0.300' is no IP address"),
        ("--hosts 192.0.2.7 --model qwen3-8b", "192.0.2.7 is an address for documentation"),
        ("--hosts 10.0.0.1 --model qwen3-8", "is it 'qwen3-8b'?"),
        ("--hosts 10.0.0.1 --model qwen3-8b --engine cpu", "is for this machine"),
        ("--hosts 10.0.0.1,10.0.0.1 --model qwen3-8b", "10.0.0.1 is given twice"),
        ("--engine ascend --model qwen2.5-0.5b", "say --hosts 10.0.0.1"),
        ("--hosts 10.0.0.1", "say --model NAME"),
    ],
)
def test_wrong_words_are_named_with_what_would_be_right(
    words: str,
    wrong: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "_TERMINAL", tmp_path / "none")  # nobody can be asked
    monkeypatch.setenv(layers.SITE_FOLDER, str(tmp_path))
    assert import_module("init").main(words.split()) == 2
    said = capsys.readouterr().err
    assert wrong in said and "What to do" in said
    assert list(tmp_path.iterdir()) == []


def test_this_machine_gets_an_environment_without_a_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(layers.SITE_FOLDER, str(tmp_path))
    assert import_module("init").main(["--engine", "cpu"]) == 0
    file = tmp_path / "environments" / "site.local.yaml"
    assert f"{file}: written" in capsys.readouterr().out
    assert import_module("init").main([]) == 0
    assert f"{file}: unchanged" in capsys.readouterr().out
    assert import_module("plan").main(["--environment", "site"]) == 0
    assert "(nginx-lua)" in capsys.readouterr().out


# Commands that go to hosts, with the words that make them do so.
GOING = (
    *("benchmark_serving", "build_from_source", "build_ranktables", "check_env"),
    *("clean_up --yes", "deploy --yes", "distribute_weights", "doctor", "fetch_logs", "history"),
    *("logs", "plan --live", "profile_serving", "pull_image", "reload_proxy", "roll"),
    *("roll_prefill", "rollback --yes", "setup_keys", "smoke_test", "start_container", "status"),
    *("stop", "stop_container", "sync_code", "unlock", "verify_serving", "warm", "watch"),
    "report --check",
    "check_ranktable --table pyproject.toml",
    *("add_host --host 10.0.0.9 --role prefill --yes", "remove_host --instance p0 --yes"),
)
# Those with an environment that work on this machine alone.
STAYING = {
    *("build_image", "bundle", "check_checkpoint", "config", "convert_weights"),
    *("download_weights", "export_ansible", "install_engine", "metrics", "releases"),
    *("run_msmodelslim", "timeline", "verify_weights", "write_sbom"),
}


@pytest.mark.parametrize("command", GOING)
def test_example_addresses_are_answered_with_the_way_to_real_ones(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script, *words = command.replace("pyproject.toml", str(ROOT / "pyproject.toml")).split()
    key = f"--set=keys.private_key={tmp_path}/key"
    assert import_module(script).main(["--environment", "2p1d", key, *words]) == 2
    said = capsys.readouterr().err
    file = layers.PROJECT / "configs" / "environments" / "2p1d.yaml"
    lines = [n for n, x in enumerate(file.read_text().splitlines(), 1) if "192.0.2." in x]
    assert f"configs/environments/2p1d.yaml:{lines[0]}: p0 (192.0.2.11)" in said
    assert "invoke init --hosts" in said and list(tmp_path.iterdir()) == []


def test_every_command_with_an_environment_is_known_to_go_or_to_stay() -> None:
    texts = {path.stem: path.read_text() for path in (ROOT / "scripts").glob("*.py")}
    loading = {name for name, text in texts.items() if "load_config(" in text}
    going = {name for name in loading if re.search("going=|refuse_examples", texts[name])}
    assert loading - going == STAYING
    assert going == {command.split()[0] for command in GOING} - {"add_host", "remove_host"}


def test_an_example_may_be_planned_and_left_over_hosts_of_one_do_not_count(tmp_path: Path) -> None:
    assert import_module("plan").main(["--environment", "2p1d"]) == 0
    given = Namespace(environment="2p1d", config=[], set=[], dry_run=True)
    load_config(given, going=True)
    real = "hosts: {x: {address: 198.51.100.7}}\ntopology: {prefill: [], decode: [], proxy: null,"
    own = tmp_path / "own.yaml"
    own.write_text(f"based_on: 2p1d\n{real} colocated: [{{hosts: [x]}}]}}\n")
    load_config(Namespace(environment=str(own), config=[], set=[]), going=True)
