"""scripts/fetch_logs.py where the host is this machine; over SSH in test_logs_over_ssh."""

from __future__ import annotations

import json
import tarfile
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
topology:
  prefill: [{hosts: [local]}]
  decode: [{hosts: [local]}]
  proxy: local
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment that was never deployed, with logs in their places."""
    work = tmp_path / "work"
    for name, text in {
        "p0/server_0.log": "INFO fine\nOSError: [Errno 28] No space left on device\n",
        "d0/server_0.log": "args: --api-key topsecret\nValueError: odd 12\nValueError: odd 13\n",
        "c0/access.log": "{}\n",
    }.items():
        path = work / "logs" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    made = tmp_path / "logs.yaml"
    made.write_text(ENVIRONMENT.replace("WORK", str(work)))
    return made


def fetched(environment: Path, *words: str) -> Path:
    out = environment.parent / "out"
    code = fetch_logs.main(["-e", str(environment), "--out", str(out), *words])
    assert code == 0
    [folder] = out.iterdir()
    return folder


def test_all_logs_with_an_index_and_a_summary(environment: Path, capsys) -> None:
    folder = fetched(environment)
    said = capsys.readouterr()
    assert "no-space" in said.out and str(folder) in said.out
    index = json.loads((folder / "index.json").read_text())
    kinds = {one["kind"]: one["count"] for one in index["errors"]}
    assert kinds == {"no-space": 1, "ValueError: odd N": 2}
    paths = {file["path"] for file in index["hosts"]["local"]["files"]}
    assert paths == {"p0/server_0.log", "d0/server_0.log", "c0/access.log"}
    assert (folder / "summary.txt").read_text().startswith("logs of logs")
    text = (folder / "local" / "d0" / "server_0.log").read_text()
    assert "topsecret" not in text and "[redacted]" in text
    assert folder.stat().st_mode & 0o077 == 0
    left = [p for p in environment.parent.rglob("*.tar.gz") if tarfile.is_tarfile(p)]
    assert left == []


def test_one_instance_and_the_end_of_it(environment: Path) -> None:
    large = environment.parent / "work" / "logs" / "p0" / "server_0.log"
    large.write_text("x" * 99 + "\n" * 30000 + "end\n" + "y\n" * (1 << 20))
    folder = fetched(environment, "--instance", "p0", "--max-mib", "1")
    assert [path.name for path in (folder / "local").iterdir() if path.name != "host"] == ["p0"]
    assert (folder / "local" / "p0" / "server_0.log").stat().st_size <= (1 << 20) + 100


def test_mistakes_are_named(environment: Path, capsys) -> None:
    assert fetch_logs.main(["-e", str(environment), "--instance", "p7"]) == 2
    assert "there is no instance 'p7'" in capsys.readouterr().err
    assert fetch_logs.main(["-e", str(environment), "--host", "nowhere"]) == 2
    assert "one of local" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fetch_logs.main(["-e", str(environment), "--since", "yesterday"])
    assert "write for example 30m, 2h or 1d" in capsys.readouterr().err
    assert not (environment.parent / "out").exists()
