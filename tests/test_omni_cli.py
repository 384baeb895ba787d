"""omni_cli: omni-infer's own commands and file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from port_rooms import free_port

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ROOT / "tests" / "foreign" / "omni_infer_deployment.yml"


def omni_cli(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "omni_cli.py"), *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )


def test_the_file_is_looked_for_where_one_stands(tmp_path: Path) -> None:
    done = omni_cli("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "omni_infer_deployment.yml" in done.stderr and "Traceback" not in done.stderr


def test_the_newer_file_in_json_is_found_too(tmp_path: Path) -> None:
    text = json.dumps(yaml.safe_load(FOREIGN.read_text(encoding="utf-8")))
    (tmp_path / "omni_infer_deployment.json").write_text(text)
    done = omni_cli("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "no host was asked" in done.stdout


def test_status_of_what_was_never_served_fails(tmp_path: Path) -> None:
    (tmp_path / FOREIGN.name).write_bytes(FOREIGN.read_bytes())
    done = omni_cli("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "no host was asked" in done.stdout


def test_serve_without_a_file_is_misuse() -> None:
    done = omni_cli("serve")
    assert done.returncode == 2 and "FILE" in done.stderr


def test_an_unknown_verb_is_misuse() -> None:
    assert omni_cli("restart").returncode == 2


@pytest.mark.slow
def test_serve_status_and_stop_tell_the_truth(tmp_path: Path) -> None:
    """Stand-ins for the servers: what they answer is not this test's matter, the codes are."""
    file = tmp_path / "site.yaml"
    file.write_text(
        "profile: {engine: cpu, model: tiny-qwen2}\n"
        f"paths: {{work_dir: {tmp_path}/work}}\n"
        "engine: {venv: null, requirements: null}\n"
        f"server: {{command: [{sys.executable}, {ROOT}/tests/kit/stand_in_server.py]}}\n"
        "hosts: {local: {address: 127.0.0.1, connection: local}}\n"
        f"topology: {{colocated: [{{hosts: [local], api_port: {free_port()}}}]}}\n"
        "ports: {ephemeral_low: 65536}\n"  # the test's free port is anywhere
    )
    done = omni_cli("serve", file)
    try:
        # It starts, but a stand-in answers no completion: served is not what it is.
        assert done.returncode == 1, done.stderr
        assert "do not serve as they should" in done.stderr
        assert omni_cli("status", "--config", file).returncode == 1
    finally:
        stopped = omni_cli("stop", "--config", file)
    assert stopped.returncode == 0
