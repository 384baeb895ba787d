"""What fetch-logs brings is bounded unless everything is asked for; what it left out, it says.
No line of a log holds the readers up: what a client sends can stand in one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fetch_logs
import pytest

pytestmark = pytest.mark.slow

ENVIRONMENT = """
profile: {engine: cpu, model: tiny-qwen2}
paths: {work_dir: WORK}
engine: {venv: null, requirements: null}
server: {command: [python3, x]}
hosts: {local: {address: 127.0.0.1, connection: local}}
topology: {colocated: [{hosts: [local]}]}
logs: {fetch_file_mib: 1, fetch_mib: 3}
"""
MIB = 1 << 20


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Logs of 2 MiB each, one after the other; raw bytes among them."""
    folder = tmp_path / "work" / "logs" / "s0"
    folder.mkdir(parents=True)
    for age, name in enumerate([f"server_0.log{end}" for end in ("", ".1", ".2", ".3", ".4")]):
        (folder / name).write_text(f"{name} begins\n" + "x\n" * MIB + f"{name} \x1b[2J ends\n")
        os.utime(folder / name, (10**9, 1_700_000_000 - age * 1000))
    made = tmp_path / "logs.yaml"
    made.write_text(ENVIRONMENT.replace("WORK", str(tmp_path / "work")))
    return made


def fetched(environment: Path, *words: str) -> dict[str, str]:
    out = environment.parent / "out"
    assert fetch_logs.main(["-e", str(environment), "--out", str(out), *words]) == 0
    [folder] = out.iterdir()
    logs = (folder / "local" / "s0").iterdir()
    return {path.name: path.read_text() for path in logs}


def test_the_ends_of_the_newest_by_default(environment: Path, capsys) -> None:
    logs = fetched(environment)
    assert sorted(logs) == ["server_0.log", "server_0.log.1", "server_0.log.2"]
    assert all(len(text) < MIB + 1000 for text in logs.values())
    for name, text in logs.items():
        assert text.endswith(f"{name} \x1b[2J ends\n")  # the files themselves stay as they are
    said = capsys.readouterr().out
    assert "server_0.log.3" in said and "server_0.log.4" in said
    assert "its first" in said and "--all" in said and "\x1b" not in said


def test_everything_when_it_is_asked_for(environment: Path, capsys) -> None:
    logs = fetched(environment, "--all")
    assert len(logs) == 5
    assert all(text.startswith(f"{name} begins\n") for name, text in logs.items())
    assert "--all" not in capsys.readouterr().out


def test_what_is_put_aside_is_read_as_the_log_that_it_was() -> None:
    from omnikit.fleet import causes

    assert causes.source_of("c0/proxy.log.3") == causes.source_of("c0/proxy.log")
    assert causes.source_of("c0/access.log.1") == "proxy"
    assert causes.source_of("p0/launcher.log.1") == "launcher"


# The first took 47 minutes, the second 6.
LINES = ("eyJ-", "HCCL ", "a", "token ", "a=", "(pid=1) ", "x.yError: ", "-", "://a:", "password")
READ = """
import sys
from hostkit.base.redact import Redactor
from omnikit.fleet import causes
for part in sys.argv[1:]:
    line = part * ((1 << 20) // len(part)) + " token @"
    Redactor().line(line)
    causes.matches([line])
    causes.of_line(line)
"""


def test_a_long_line_costs_seconds_at_most() -> None:
    scripts = Path(fetch_logs.__file__).parent
    words = [sys.executable, "-c", READ, *LINES]
    subprocess.run(words, cwd=scripts, check=True, timeout=240)
