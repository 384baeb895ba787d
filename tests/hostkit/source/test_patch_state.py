"""Which patches a vLLM has is read off its files; what is somebody's own work, by git."""

from __future__ import annotations

from pathlib import Path

import source_cases

from hostkit.source import patch_script, patch_state
from hostkit.source.git import VLLM


def made(tmp_path: Path) -> tuple[Path, list[Path]]:
    code = source_cases.make_patchable(tmp_path / "omniinfer")
    return code / VLLM, patch_script.patches(code, source_cases.PATCH_SCRIPT, code / VLLM)


def test_none_some_and_all_patches(tmp_path: Path) -> None:
    vllm, patches = made(tmp_path)
    seen = patch_state.look(vllm, patches)
    assert seen.missing == seen.names == source_cases.PATCHES
    assert seen.lacks() == (
        "3 of 3 patches of omni-infer: scale_out.patch, new_file.patch, on_top.patch"
    )
    left = list(source_cases.PATCHES)
    for patch in patches:
        source_cases.git(vllm, "apply", str(patch))
        left.remove(patch.name)
        seen = patch_state.look(vllm, patches)
        assert list(seen.missing) == left and patch_state.edits(vllm, seen) == []


def test_git_is_not_needed_for_that(tmp_path: Path) -> None:
    vllm, patches = made(tmp_path)
    for patch in patches:
        source_cases.git(vllm, "apply", str(patch))
    (vllm / ".git").rename(tmp_path / "away")
    assert patch_state.look(vllm, patches).missing == ()
    (vllm / "vllm/scale.py").unlink()
    assert patch_state.look(vllm, patches).missing == ("new_file.patch",)


def test_own_work_is_told_from_the_patches(tmp_path: Path) -> None:
    vllm, patches = made(tmp_path)
    for patch in patches:
        source_cases.git(vllm, "apply", str(patch))
    core = vllm / "vllm/core.py"
    core.write_text(core.read_text().replace("line 3\n", "line three\n"))
    (vllm / "mine.py").write_text("x\n")
    (vllm / "vllm.egg-info").mkdir()
    (vllm / "vllm.egg-info/PKG-INFO").write_text("ignored\n")
    (vllm / "backend.py").unlink()
    seen = patch_state.look(vllm, patches)
    assert seen.missing == ()
    assert sorted(patch_state.edits(vllm, seen)) == ["backend.py", "mine.py", "vllm/core.py"]


def test_names_of_a_repository_with_sha256(tmp_path: Path) -> None:
    vllm, patches = made(tmp_path)
    (vllm / ".git").rename(tmp_path / "away")
    source_cases.git(vllm, "init", "--quiet", "--object-format=sha256")
    source_cases.commit(vllm)
    for patch in patches:
        source_cases.git(vllm, "apply", str(patch))
    assert patch_state.edits(vllm, patch_state.look(vllm, patches)) == []
