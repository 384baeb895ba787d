"""vLLM's clone gets upstream's patches once, by upstream's script, and nobody's work is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import source_cases
from docker_host import wait_for

from hostkit.base.errors import ActionError, InputError
from hostkit.source import build_state, patch_clone, patch_vllm
from hostkit.source.git import VLLM

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return source_cases.make_patchable(tmp_path / "omniinfer")


def given(code: Path, set_aside: bool = False) -> dict[str, Any]:
    return {"dir": str(code), "patches": source_cases.PATCH_SCRIPT, "set_aside": set_aside}


def patched(code: Path) -> bool:
    text = (code / VLLM / "vllm/core.py").read_text()
    there = (code / VLLM / "vllm/scale.py").exists()
    return there and "rank = local_rank + offset\n" in text


def tree(code: Path) -> dict[Path, bytes]:
    files = [path for path in (code / VLLM).rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if ".git" not in path.parts}


def test_patched_once_and_then_left_alone(code: Path) -> None:
    first = patch_vllm.ensure(given(code))
    assert (first["action"], first["patches"], first["edits"]) == ("patched", 3, [])
    assert first["line"] == "vllm patched: 3 patches" and patched(code)
    before = tree(code)
    again = patch_vllm.ensure(given(code))
    assert (again["action"], again["line"]) == ("unchanged", "vllm has its 3 patches")
    assert tree(code) == before


def test_looking_changes_nothing_and_says_what_would_be(code: Path) -> None:
    before = tree(code)
    assert patch_vllm.result(patch_clone.look(given(code)))["action"] == "patched"
    assert tree(code) == before


def test_who_ran_the_script_by_hand_has_it_done(code: Path) -> None:
    words = ["bash", "bash_install_code.sh"]
    subprocess.run(words, cwd=code / "infer_engines", check=True, capture_output=True)
    assert patch_vllm.ensure(given(code))["action"] == "unchanged"


def test_a_branch_ahead_of_the_release_is_left_for_the_releases_version(code: Path) -> None:
    folder = code / VLLM
    source_cases.git(folder, "checkout", "--quiet", "-b", "work")
    (folder / "vllm/core.py").write_text("another vLLM\n")
    own = source_cases.commit(folder, "own work")
    assert patch_vllm.ensure(given(code))["action"] == "patched" and patched(code)
    assert source_cases.git(folder, "rev-parse", "work") == own


def test_own_work_is_not_lost(code: Path) -> None:
    core, new = code / VLLM / "vllm/core.py", code / VLLM / "notes/mine.py"
    core.write_text(core.read_text().replace("line 3\n", "line three\n"))
    new.parent.mkdir()
    new.write_text("mine\n")
    before = tree(code)
    with pytest.raises(InputError, match="would be lost") as caught:
        patch_vllm.ensure(given(code))
    said = str(caught.value)
    assert "lacks 3 of 3 patches of omni-infer" in said
    assert "\n  vllm/core.py" in said and "\n  notes/mine.py" in said
    assert "source.set_edits_aside=true" in said and tree(code) == before
    assert patch_vllm.ensure(given(code, set_aside=True))["action"] == "patched"
    assert patched(code) and not new.exists()
    assert "line three\n" in source_cases.git(code / VLLM, "show", "stash@{0}:vllm/core.py")
    assert source_cases.git(code / VLLM, "show", "stash@{0}^3:notes/mine.py") == "mine"


def test_own_work_on_a_patched_clone_stays(code: Path) -> None:
    patch_vllm.ensure(given(code))
    (code / VLLM / "vllm/core.py").open("a").write("mine = True\n")
    before = tree(code)
    again = patch_vllm.ensure(given(code))
    assert (again["action"], again["edits"]) == ("unchanged", ["vllm/core.py"])
    assert again["line"].endswith("1 files with changes of your own") and tree(code) == before


def test_half_of_the_patches_are_completed(code: Path) -> None:
    patches = code / "omni/adaptors/vllm/patches"
    for name in source_cases.PATCHES[:2]:
        source_cases.git(code / VLLM, "apply", str(patches / name))
    assert not patched(code)
    assert patch_vllm.ensure(given(code))["action"] == "patched" and patched(code)
    assert source_cases.git(code / VLLM, "stash", "list") == ""


def test_a_new_release_of_patches_replaces_the_old_ones(code: Path) -> None:
    patch_vllm.ensure(given(code))
    script = code / source_cases.PATCH_SCRIPT
    script.write_text(script.read_text().replace("# git", "git"))
    assert patch_vllm.ensure(given(code))["action"] == "patched" and patched(code)
    assert "line thirty" in (code / VLLM / "vllm/core.py").read_text()


@pytest.mark.parametrize("torn", [False, True])
def test_what_a_killed_run_left_is_mended(code: Path, torn: bool) -> None:
    script, held = code / source_cases.PATCH_SCRIPT, code / "held"
    text = script.read_text()
    script.write_text(text.replace("# git", f"touch {held}; test ! -e {held} || sleep 600 #"))
    argv = [
        sys.executable,
        "-c",
        "import sys, json; from hostkit.source import patch_vllm as vllm;",
    ]
    argv[-1] += " vllm.ensure(json.loads(sys.argv[1]))"
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    child = subprocess.Popen([*argv, json.dumps(given(code))], env=env)
    wait_for(held.exists, "the script is at work")
    child.send_signal(signal.SIGKILL)
    child.wait()
    held.unlink()
    script.write_text(text)
    assert not patched(code)
    if torn:  # git was killed while it wrote
        (code / VLLM / ".git/index.lock").write_text("")
        (code / VLLM / "vllm/core.py").write_text("line 1\nli")
    done = patch_vllm.ensure(given(code))
    assert done["action"] == "mended" and patched(code)
    assert done["line"] == "vllm patched: 3 patches, after a run that was cut off"
    kept = source_cases.git(code / VLLM, "stash", "list")
    assert ("by a patching that was cut off" in kept) == torn
    assert patch_vllm.ensure(given(code))["action"] == "unchanged"


def test_without_git_an_unpatched_vllm_is_refused_by_name(code: Path, tmp_path: Path) -> None:
    (code / VLLM / ".git").rename(tmp_path / "away")
    with pytest.raises(InputError, match="this vLLM lacks 3 of 3 patches of omni-infer: scale_out"):
        patch_vllm.ensure(given(code))
    (tmp_path / "away").rename(code / VLLM / ".git")
    patch_vllm.ensure(given(code))
    (code / VLLM / ".git").rename(tmp_path / "away")
    assert patch_vllm.ensure(given(code))["action"] == "unchanged"


def test_a_script_that_fails_says_why(code: Path) -> None:
    source_cases.git(code / VLLM, "tag", "-d", "v0.9.0")
    with pytest.raises(ActionError, match="does not have the version") as caught:
        patch_vllm.ensure(given(code))
    assert str(caught.value.todo).endswith("fetch --depth=1 origin tag v0.9.0")
    source_cases.git(code / VLLM, "tag", "v0.9.0")
    assert patch_vllm.ensure(given(code))["action"] == "mended" and patched(code)


def test_a_patch_that_does_not_fit_says_so(code: Path) -> None:
    core = code / VLLM / "vllm/core.py"
    core.write_text(core.read_text().replace("line 20\n", "line twenty\n"))
    source_cases.git(code / VLLM, "commit", "-qam", "another")
    source_cases.git(code / VLLM, "tag", "-f", "v0.9.0")
    with pytest.raises(ActionError, match="a patch does not fit this version of vLLM"):
        patch_vllm.ensure(given(code))


def test_where_nothing_patches_nothing_is_done(code: Path) -> None:
    before = tree(code)
    assert patch_vllm.ensure({**given(code), "patches": None}) == patch_vllm.NONE
    assert tree(code) == before


def test_a_worktree_is_patched_too(code: Path, tmp_path: Path) -> None:
    (code / VLLM).rename(tmp_path / "main")
    source_cases.git(tmp_path / "main", "worktree", "add", "--quiet", "--detach", str(code / VLLM))
    assert patch_vllm.ensure(given(code))["action"] == "patched" and patched(code)
    assert patch_vllm.ensure(given(code))["action"] == "unchanged"


def test_fetch_and_build_know_the_patches_as_ours(code: Path) -> None:
    patch_vllm.ensure(given(code))
    act = build_state.settle(code, "vllm", source_cases.PATCH_SCRIPT)
    assert act(False) and patched(code)
    assert act(True) and not patched(code)
    patch_vllm.ensure(given(code))
    (code / VLLM / "mine.py").write_text("mine\n")
    assert not act(True) and patched(code)
