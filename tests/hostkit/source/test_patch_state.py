"""Which patches a vLLM has is read off its files; what is somebody's own work, by git."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
import source_cases

from hostkit.source import patch_clone, patch_state
from hostkit.source.git import VLLM


def made(tmp_path: Path) -> tuple[Path, list[Path]]:
    code = source_cases.make_patchable(tmp_path / "omniinfer")
    return code / VLLM, patch_clone.patches(code, source_cases.PATCH_SCRIPT, code / VLLM)


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


def lines(text: str) -> list[bytes]:
    return patch_state.split(text.encode())


def test_one_hunk_is_taken_back_where_its_lines_are() -> None:
    [change] = patch_state.parse(b"--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,4 @@\n a\n+b\n c\n d\n")
    assert (change.before, change.after) == ("x.py", "x.py")
    assert patch_state.undo(change, lines("a\nb\nc\nd\n")) == lines("a\nc\nd\n")
    assert patch_state.undo(change, lines("a\nc\nd\n")) is None


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"diff --git a/x y b/x y\nnew file mode 100644\nindex 0..e69de29\n", (None, "x y")),
        (b"diff --git a/x b/x\ndeleted file mode 100644\nindex e69de29..0\n", ("x", None)),
        (b"diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n", ("x", "y")),
        (
            b'diff --git "a/\\346\\234\\272" "b/\\346\\234\\272"\nnew file mode 100644\n',
            (None, "机"),
        ),
        (b"--- a/x\t2025-01-01\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", ("x", None)),
    ],
)
def test_names_of_files(header: bytes, names: tuple[str, str]) -> None:
    [change] = patch_state.parse(b"From: somebody\n\ntext\n---\n" + header + b"-- \n2.39.5\n")
    assert (change.before, change.after) == names


def test_a_file_without_a_last_line_feed() -> None:
    [change] = patch_state.parse(
        b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n"
    )
    assert patch_state.undo(change, [b"b\n"]) == [b"a"]


def test_a_text_without_changes_has_none() -> None:
    assert patch_state.parse(b"diff --git a/x b/x\nold mode 100644\nnew mode 100755\n") == []


def _mutated(rnd: random.Random, text: list[str]) -> str:
    made = list(text)
    for _ in range(rnd.randint(1, 4)):
        place, kind = rnd.randint(0, len(made)), rnd.random()
        if kind < 0.4:
            made[place:place] = [f"new {rnd.randint(0, 99)}\n" for _ in range(rnd.randint(1, 3))]
        elif kind < 0.7:
            del made[place : place + rnd.randint(1, 3)]
        elif made:
            made[min(place, len(made) - 1)] = f"other {rnd.randint(0, 9)}\n"
    if made and rnd.random() < 0.3:
        made[-1] = made[-1].rstrip("\n")
    return "".join(made)


def _change(rnd: random.Random, path: Path) -> None:
    kind = rnd.random()
    if path.exists() and kind < 0.15:
        path.unlink()
        return
    before = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text(_mutated(rnd, before))
    if kind > 0.9:
        path.rename(f"{path} moved")


@pytest.mark.parametrize("seed", range(8))
def test_a_stack_of_patches_is_judged_as_git_judges_it(tmp_path: Path, seed: int) -> None:
    rnd = random.Random(seed)
    folder, patches = tmp_path / "tree", []
    folder.mkdir()
    source_cases.git(folder, "init", "--quiet")
    for name in "abc":
        text = "".join(f"line {rnd.randint(0, 12)}\n" for _ in range(rnd.randint(0, 30)))
        (folder / name).write_text(text)
    source_cases.commit(folder)
    for number in range(4):
        for name in rnd.sample(["a", "b", "c", "d e"], 2):
            _change(rnd, folder / name)
        source_cases.git(folder, "add", "--all")
        found = subprocess.run(
            ["git", "diff", "--cached", "-M", "HEAD"], cwd=folder, check=True, capture_output=True
        ).stdout
        if found:
            patches.append(tmp_path / f"{number}.patch")
            patches[-1].write_bytes(found)
            source_cases.commit(folder)
    assert patch_state.look(folder, patches).missing == ()
    if seed % 4:
        some = [path for path in folder.iterdir() if path.is_file()]
        _change(rnd, rnd.choice(some) if some else folder / "z")
    seen = patch_state.look(folder, patches)
    refused = []
    for patch in reversed(patches):
        words = ["git", "apply", "--reverse", str(patch)]
        if subprocess.run(words, cwd=folder, capture_output=True).returncode:
            refused.append(patch.name)
    assert seen.missing == tuple(reversed(refused))
    assert seen.without == {name: patch_state.content(folder / name) for name in seen.without}
