"""What a host tells of what it serves with: hashes of real files, and real processes' words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from hostkit.base import records
from hostkit.checks import serving

LARGE = serving._WHOLE + (1 << 20)


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, which has the words of an engine."""
    words = ["--block_size", "128", "--dtype=float32", "--enforce-eager", "--seed", "0"]
    wait = "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", wait, *words], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def host(tmp_path: Path, running: subprocess.Popen[bytes]) -> Path:
    """A work directory with one node, and a model."""
    bundle, state, model = (tmp_path / name for name in ("bundle", "state", "model"))
    for folder in (bundle, model):
        folder.mkdir()
    node = {
        "name": "p0",
        "role": "prefill",
        "digest": "new",
        "servers": [{"name": "p0", "model": "m"}],
    }
    told = {"format": 1, "work_dir": str(tmp_path), "nodes": [node]}
    (bundle / "host.json").write_text(json.dumps(told))
    who = records.identity(running.pid)
    server = {"state": "ready", "process": who, "started_at": 1.0, "exit": None}
    record = {"node": "p0", "role": "prefill", "phase": "ready", "digest": "new"}
    records.write_record(state, {**record, "supervisor": who, "servers": [server]})
    (model / "config.json").write_text('{"model_type": "qwen2"}')
    (model / "tokenizer.json").write_text("{}")
    (model / "tokenizer_config.json").write_text('{"a": 1, "chat_template": "{{ one }}"}')
    (model / "a.safetensors").write_bytes(b"small")
    with (model / "b.safetensors").open("wb") as file:
        file.truncate(LARGE)
    return tmp_path


def look(host: Path, **more: Any) -> dict[str, Any]:
    flags = ["block-size", "dtype", "enforce-eager", "seed", "quantization"]
    return serving.look(
        {"work_dir": str(host), "model": str(host / "model"), "flags": flags, **more}
    )


def test_what_a_running_server_was_told(host: Path) -> None:
    found = look(host)
    told = {"block-size": "128", "dtype": "float32", "enforce-eager": "true", "seed": "0"}
    assert found["servers"] == {"p0": told} and found["other"] == []


def test_a_process_that_is_gone_tells_nothing(host: Path, running: Any) -> None:
    running.kill()
    running.wait()
    assert look(host)["servers"] == {"p0": {}}


def test_what_was_started_before_the_last_deploy_is_named(host: Path) -> None:
    path = host / "bundle" / "host.json"
    path.write_text(path.read_text().replace('"new"', '"newer"'))
    assert look(host)["other"] == ["p0"]


def written(path: Path, text: str) -> None:
    path.write_text(text)


def patched(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"x")


@pytest.mark.parametrize(
    ("name", "change", "subjects"),
    [
        ("a.safetensors", lambda path: patched(path, 2), {"weights"}),
        ("b.safetensors", lambda path: patched(path, 100), {"weights"}),
        ("b.safetensors", lambda path: patched(path, LARGE - 1), {"weights"}),
        ("b.safetensors", lambda path: os.truncate(path, LARGE + 1), {"weights"}),
        ("config.json", lambda path: written(path, "{}"), {"model"}),
        ("tokenizer.json", lambda path: written(path, "[]"), {"tokenizer"}),
        (
            "tokenizer_config.json",
            lambda path: written(path, '{"chat_template": "{{ two }}", "a": 1}'),
            {"template"},
        ),
        (
            "tokenizer_config.json",
            lambda path: written(path, '{"chat_template": "{{ one }}", "a": 2}'),
            {"tokenizer"},
        ),
        ("chat_template.jinja", lambda path: written(path, "{{ two }}"), {"template"}),
        ("README.md", lambda path: written(path, "two"), set()),
    ],
)
def test_a_change_shows_where_it_belongs(
    host: Path, name: str, change: Any, subjects: set[str]
) -> None:
    before = look(host)["files"]
    change(host / "model" / name)
    after = look(host)["files"]
    assert {subject for subject in before if before[subject] != after[subject]} == subjects


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda model: [one.unlink() for one in model.iterdir()], "no weights are there"),
        (lambda model: written(model / "tokenizer_config.json", "{"), "tokenizer_config.json"),
        (lambda model: written(model / "tokenizer_config.json", "[]"), "no JSON object"),
        (lambda model: os.mkfifo(model / "c.safetensors"), "it is a pipe"),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(host: Path, spoil: Any, why: str) -> None:
    spoil(host / "model")
    found = look(host)
    assert found["files"] == {} and why in found["why"]
    assert found["servers"]["p0"], "the servers are told of all the same"


def test_a_large_file_is_not_read_whole(host: Path) -> None:
    with (host / "model" / "c.safetensors").open("wb") as file:
        file.truncate(1 << 40)  # all of it would take an hour
    assert "c.safetensors" in look(host)["files"]["weights"]
