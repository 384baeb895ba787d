"""invoke build-ranktables and check-ranktable, through Ansible, with stand-ins for NPU tools."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from omnikit.prepare import ranktables

# Real processes, seconds together.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
NPU = "tests/environments/npu.yaml"


def script(name: str, *words: str, **fakes: str) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT / 'tests' / 'fake_npu'}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, f"scripts/{name}", "-e", NPU, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **fakes, "PATH": path},
    )


@pytest.fixture(scope="module", autouse=True)
def no_tables_before_or_after() -> Iterator[None]:
    folders = [ranktables.folder("npu").parent, ROOT / "build" / "test-npu"]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    yield
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def test_without_tables_there_is_nothing_to_check() -> None:
    done = script("check_ranktable.py")
    assert done.returncode == 2
    assert "invoke build-ranktables" in done.stderr


def test_all_tables_are_built_in_one_pass_and_a_second_run_changes_nothing() -> None:
    first = script("build_ranktables.py", "--json")
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert made == {
        "a3/local_ranktable_10.0.0.11_891011.json": "created",
        "a3/local_ranktable_10.0.0.11_12131415.json": "created",
        "a3/local_ranktable_10.0.0.11_01234567.json": "created",
        "a3/global/global_ranktable_merge.json": "created",
    }
    again = json.loads(script("build_ranktables.py", "--json").stdout)
    assert set(again.values()) == {"unchanged"}
    table = json.loads(ranktables.cluster_text(ranktables.remembered("npu")))
    assert [group["group_id"] for group in table["server_group_list"]] == ["0", "1", "2"]


def test_plan_shows_the_tables_that_a_deploy_would_ship() -> None:
    data = json.loads(script("plan.py", "--json").stdout)
    assert "ranktable/global/global_ranktable_merge.json" in data["files"]["a3"]
    named = data["nodes"][0]["servers"][0]["env"]["RANK_TABLE_FILE_PATH"]
    assert named.endswith("/bundle/ranktable/local_ranktable_10.0.0.11_891011.json")


def test_agreement_is_said() -> None:
    done = script("check_ranktable.py")
    assert done.returncode == 0, done.stderr
    assert "agree" in done.stdout


@pytest.mark.parametrize(
    ("fakes", "said"),
    [
        ({"FAKE_HCCN_CHANGED": "5=10.1.9.9"}, "device 5 has the address 10.1.9.9 now"),
        ({"FAKE_NPU_SMI": "a3.card-missing"}, "a3"),
        ({"FAKE_NPU_SMI": "a3.chip-warning"}, "Warning"),
    ],
)
def test_what_changed_is_named(fakes: dict[str, str], said: str) -> None:
    done = script("check_ranktable.py", "--json", **fakes)
    assert done.returncode == 1
    problems = json.loads(done.stdout)["problems"]
    assert any(said in problem for problem in problems), problems


def test_a_deploy_checks_them_first_and_changes_nothing() -> None:
    done = script(
        "deploy.py",
        *("--set", "model.generate_seed=0", "--set", f"model.path={ROOT}/build/models/tiny-qwen2"),
        FAKE_HCCN="none",
        FAKE_HCCN_DEVICES="6",
    )
    assert done.returncode in (1, 2)
    assert not (ROOT / "build" / "test-npu" / "bundle").exists()


def test_an_environment_without_accelerators_needs_none() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/build_ranktables.py", "-e", "local"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "no rank tables" in done.stderr
