"""What people who live in Ansible get, run by plain ansible-playbook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hostkit.base import records

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def export(environment: str, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "scripts/export_ansible.py", "-e", environment, "--out", str(out)]
    return subprocess.run([*argv, *words], cwd=ROOT, capture_output=True, text=True)


def test_the_inventory_has_the_documented_groups_and_variables(tmp_path: Path) -> None:
    done = export("2p1d", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout).values()) == {"created"}
    groups = yaml.safe_load((tmp_path / "omni_infer_inventory.yml").read_text())["all"]["children"]
    assert list(groups["P"]["hosts"]) == ["p0", "p1"]
    assert list(groups["D"]["hosts"]) == ["d0", "d1"]
    assert groups["C"]["hosts"]["c0"]["node_port"] == 7000
    d1 = groups["D"]["hosts"]["d1"]
    assert d1["ansible_host"] == "192.0.2.14" and d1["ansible_user"] == "root"
    assert d1["host_ip"] == "192.0.2.13" and d1["node_rank"] == 1 and d1["api_port"] == 9101
    assert d1["ascend_rt_visible_devices"].startswith("0,1,2")
    assert groups["P"]["hosts"]["p1"]["kv_rank"] == 1
    assert groups["P"]["hosts"]["p1"]["node_port"] == 8001


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    export("2p1d", tmp_path)
    again = json.loads(export("2p1d", tmp_path, "--json").stdout)
    assert set(again.values()) == {"unchanged"}


def test_our_own_reader_understands_the_written_inventory(tmp_path: Path) -> None:
    export("2p1d", tmp_path)
    tags = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "playbook", "-i", "omni_infer_inventory.yml"),
            *("omni_infer_server.yml", "--list-tags"),
        ],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    assert tags.returncode == 0, tags.stderr
    found = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"TASK TAGS: \[(.*)\]", tags.stdout))))
    assert {"run_docker", "ranktable", "run_server", "run_proxy"} <= found
    assert {"sync_code", "pip_install", "stop_server", "fetch_log", "clean_up"} <= found


def playbook(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "playbook", "-i", "omni_infer_inventory.yml"),
            *("omni_infer_server.yml", *words),
        ],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.needs("nginx", "lua")
def test_the_playbook_deploys_changes_nothing_twice_and_stops(tmp_path: Path) -> None:
    """With stand-in servers, for speed; plain ansible-playbook and its own recap."""
    stand_in = f"server.command=[{sys.executable}, {ROOT}/tests/kit/stand_in_server.py]"
    work = tmp_path / "work"
    settings = ["--set", stand_in, "--set", f"paths.work_dir={work}"]
    settings += ["--set", "proxy.kind=nginx-lua"]
    model = tmp_path / "model"
    made = subprocess.run(
        [sys.executable, "scripts/make_tiny_model.py", "--out", str(model)],
        cwd=ROOT,
        capture_output=True,
    )
    assert made.returncode == 0
    settings += ["--set", f"model.path={model}"]
    done = export("tests/environments/stand_in.yaml", tmp_path / "out", *settings)
    assert done.returncode == 0, done.stderr
    try:
        code, said = playbook(tmp_path / "out")
        assert code == 0, said
        assert re.search(r"p0\s+: ok=\d+\s+changed=[1-9]", said), said
        code, said = playbook(tmp_path / "out")
        assert code == 0 and "changed=0" in said, said
    finally:
        code, said = playbook(tmp_path / "out", "--tags", "stop_server")
    assert code == 0, said
    assert records.recorded_nodes(work / "state") == []
