"""Whose changes a clone has: the build's may be put away, a person's are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from source_cases import git, make_sources, parameters

from hostkit.source import build_state, source_jobs
from hostkit.source.build_state import State, left_by_build
from hostkit.source.clone_look import CLEAN

pytestmark = pytest.mark.slow

NOW = State("c1", "d1", ("M a",))


def record(**vllm: Any) -> dict[str, Any]:
    return {"done": True, "sources": {"vllm": {"commit": "c1", "before": CLEAN, **vllm}}}


@pytest.mark.parametrize(
    ("last", "whose"),
    [
        ({}, None),
        (record(after="d1"), "built"),
        (record(after="d2"), None),
        (record(after="d1", before="mine"), None),
        (record(after="d1", commit="c2"), None),
        (record(), "cut off"),
        (record(before="mine"), None),
    ],
)
def test_whose_changes_they_are(last: dict[str, Any], whose: str) -> None:
    assert left_by_build(last, "vllm", NOW) == whose


@pytest.mark.parametrize(
    "told",
    [
        {"sources": []},
        {"sources": {"vllm": 1}},
        {"sources": {"vllm": {"after": "d1"}}},
        {"wheels": "x"},
        {"process": {"pid": "1"}},
        {"process": [1]},
    ],
)
def test_a_record_of_a_wrong_shape_is_none(told: dict[str, Any], tmp_path: Path) -> None:
    build_state.write(tmp_path, {"done": True, **told})
    assert build_state.read(tmp_path) == {}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    sources = make_sources(tmp_path / "repos")
    source_jobs.fetch(parameters(sources, tmp_path / "code"))
    return tmp_path / "code"


def patch(code: Path) -> Path:
    """What a build does to vLLM's files."""
    folder = code / "infer_engines/vllm"
    (folder / "vllm/__init__.py").write_text("patched = True\n")
    (folder / "new file").write_text("x")
    return folder


def built(code: Path, **more: Any) -> None:
    now = build_state.state(code, "vllm")
    source = {"commit": now.commit, "before": CLEAN, **more}
    build_state.write(code, {"done": bool(more), "sources": {"vllm": source}})


def test_what_a_build_left_is_put_away(code: Path) -> None:
    folder = patch(code)
    built(code, after=build_state.state(code, "vllm").digest)
    settle = build_state.settle(code, "vllm", None)
    assert settle(False) and (folder / "new file").exists()
    assert settle(True) and build_state.state(code, "vllm").digest == CLEAN
    assert not git(folder, "stash", "list")


def test_what_a_build_that_was_cut_off_left_is_kept_aside(code: Path) -> None:
    folder = patch(code)
    (folder / ".git/index.lock").touch()
    built(code)
    assert build_state.settle(code, "vllm", None)(True)
    assert build_state.state(code, "vllm").digest == CLEAN
    git(folder, "stash", "pop")
    assert (folder / "new file").read_text() == "x"


def test_other_changes_are_not_touched(code: Path) -> None:
    folder = patch(code)
    built(code, after=build_state.state(code, "vllm").digest)
    (folder / "mine").write_text("x")
    assert not build_state.settle(code, "vllm", None)(True)
    assert (folder / "mine").exists()


def test_the_builds_own_files_are_no_changes_of_omniinfer(code: Path) -> None:
    (code / "build/dist").mkdir()
    (code / "build/dist/a.whl").write_text("x")
    (code / build_state.LOG).write_text("x")
    build_state.write(code, {"done": True})
    assert build_state.state(code, "omniinfer").digest == CLEAN
    (code / "omni/mine.py").write_text("x")
    assert build_state.state(code, "omniinfer").changed == ("?? omni/mine.py",)


def test_a_folder_that_is_no_clone_has_no_commit(tmp_path: Path) -> None:
    assert build_state.state(tmp_path, "vllm").commit is None
    assert build_state.read(tmp_path) == {}
