"""msprechecker's findings. It is not installable here: a script prints what its guide shows."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from check_cases import FACTS, ids, limits, look, npu_parameters, one, parameters, put

from hostkit.checks import others as checks_others

RECORDED = FACTS / "msprechecker-precheck.txt"


@pytest.fixture
def checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a script under that name."""

    def install(text: str) -> None:
        program = put(tmp_path, "/bin/msprechecker", f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install


def others(folder, **more):
    return look(checks_others.look, npu_parameters(folder, **more))


def test_where_it_is_not_installed_it_is_not_missed(tmp_path):
    assert ids(others(tmp_path)) == []


def test_its_findings_are_shown_and_never_decide(tmp_path, checker):
    checker(f'[ "$*" = precheck ] && cat {shlex.quote(str(RECORDED))} && touch msprechecker_env.sh')
    entry = one(others(tmp_path), "other.msprechecker")
    assert (entry["state"], entry["required"]) == ("warning", False)
    assert entry["found"].splitlines() == [
        "system [NOK] 驱动版本",
        "system [RECOMMEND] transparent_hugepage",
    ]


def test_the_file_that_it_writes_is_not_left(tmp_path, checker, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checker(f"pwd > {tmp_path}/where; touch msprechecker_env.sh; echo '- env [OK] X'")
    entry = one(others(tmp_path), "other.msprechecker")
    assert (entry["state"], entry["found"]) == ("ok", "nothing to say")
    assert not Path((tmp_path / "where").read_text().strip()).exists()
    assert not (tmp_path / "msprechecker_env.sh").exists()


def test_many_findings_are_shortened(tmp_path, checker):
    checker('for i in 1 2 3 4 5 6 7 8 9 10; do echo "- env [NOK] V$i"; done')
    lines = one(others(tmp_path), "other.msprechecker")["found"].splitlines()
    assert (len(lines), lines[-1]) == (9, "and 2 more")


def test_one_that_breaks_or_hangs_is_not_known(tmp_path, checker):
    checker("echo 'unrecognized arguments' >&2; exit 2")
    entry = one(others(tmp_path), "other.msprechecker")
    assert (entry["state"], entry["found"]) == ("unknown", "unrecognized arguments")
    checker("exec sleep 3600")
    entry = one(others(tmp_path, checks=limits(timeout_s=0.3)), "other.msprechecker")
    assert entry["state"] == "unknown"
    assert "no answer within 0.3 s" in entry["found"]


def test_an_engine_without_npus_does_not_ask_it(tmp_path, checker):
    checker("echo '- env [NOK] X'")
    assert look(checks_others.look, parameters(tmp_path)).checks == []
