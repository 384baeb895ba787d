"""The build context: exactly what is wanted, and a fingerprint that follows it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_wheel import small_wheel

from hostkit.base.errors import InputError
from omnikit.images import build as images_context
from omnikit.images.recipes import Recipe

SUM = f"--hash=sha256:{'0' * 64}"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    here = tmp_path / "here"
    here.mkdir()
    (here / "Dockerfile").write_text("FROM scratch\n")
    (here / "run.sh").write_text("#!/bin/sh\n")
    (here / "run.sh").chmod(0o700)
    (here / "pins.txt").write_text(f"one==1.0 {SUM}\n")
    (here / "tool.py").write_text("pass\n")
    return Recipe(
        "app",
        "app:1",
        {
            "Dockerfile": here / "Dockerfile",
            "bin/run.sh": here / "run.sh",
            "tool.py": here / "tool.py",
        },
        "base:1",
        pins=here / "pins.txt",
        wheels=(small_wheel(here, "own", "1.0"),),
        tools={"tool.py"},
        args={"A": "1"},
    )


def test_the_context_has_the_files_and_nothing_else(tmp_path: Path, recipe: Recipe) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "left-over").write_text("of the last time")
    fetched = small_wheel(tmp_path / "wheels", "one", "1.0")
    images_context.write(context, recipe, {"one": fetched})
    found = {str(p.relative_to(context)) for p in context.rglob("*") if p.is_file()}
    assert found == {
        "Dockerfile",
        "bin/run.sh",
        "tool.py",
        f"wheels/{fetched.name}",
        "wheels/own-1.0-py3-none-any.whl",
    }
    assert (context / "wheels" / fetched.name).samefile(fetched)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (context, *context.rglob("[!o]*"))}
    # Whoever builds, and with whichever umask: the same files, the same image.
    assert (modes["bin"], modes["run.sh"], modes["Dockerfile"]) == (0o755, 0o755, 0o644)


def _changed(recipe: Recipe, what: str) -> Recipe:
    changes: dict[str, Any] = {
        "label": {"labels": {"a": "b"}},
        "argument": {"args": {"A": "2"}},
        "tag": {"tag": "app:2"},
    }
    if what == "file":
        recipe.files["Dockerfile"].write_text("FROM other\n")
    elif what == "pin":
        assert recipe.pins is not None
        recipe.pins.write_text(f"one==1.1 {SUM}\n")
    elif what == "comment":
        assert recipe.pins is not None
        recipe.pins.write_text(f"# a comment\none==1.0 {SUM}\n")
    elif what == "tool":
        recipe.files["tool.py"].write_text("# the same, better\n")
    elif what == "wheel":
        small_wheel(recipe.wheels[0].parent, "own", "1.0", content="# another build\n")
    return dataclasses.replace(recipe, **changes.get(what, {}))


@pytest.mark.parametrize("what", ["file", "pin", "wheel", "argument", "label"])
def test_whatever_changes_the_image_changes_its_fingerprint(recipe: Recipe, what: str) -> None:
    before = images_context.fingerprint(recipe, "id", "x86_64")
    assert before == images_context.fingerprint(recipe, "id", "x86_64")
    assert images_context.fingerprint(_changed(recipe, what), "id", "x86_64") != before


@pytest.mark.parametrize("what", ["comment", "tag", "tool"])
def test_what_does_not_change_the_image_does_not(recipe: Recipe, what: str) -> None:
    before = images_context.fingerprint(recipe, "id", "x86_64")
    assert images_context.fingerprint(_changed(recipe, what), "id", "x86_64") == before


def test_another_base_and_another_machine_change_the_fingerprint(recipe: Recipe) -> None:
    before = images_context.fingerprint(recipe, "id", "x86_64")
    assert images_context.fingerprint(recipe, "id2", "x86_64") != before
    assert images_context.fingerprint(recipe, "id", "aarch64") != before


def test_two_builds_of_one_image_are_kept_apart(tmp_path: Path) -> None:
    with images_context.locked(tmp_path, "app"):
        with images_context.locked(tmp_path, "other"):
            pass
        second = images_context.locked(tmp_path, "app")
        with pytest.raises(InputError, match=r"a build of the image app is under way: pid \d+"):
            second.__enter__()
    with images_context.locked(tmp_path, "app"):
        pass
