"""The build context: exactly what is wanted, and a fingerprint that follows it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from omnikit import image_context
from omnikit.errors import InputError
from omnikit.image_recipes import Recipe
from small_wheel import small_wheel


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    here = tmp_path / "here"
    here.mkdir()
    (here / "Dockerfile").write_text("FROM scratch\n")
    (here / "run.sh").write_text("#!/bin/sh\n")
    (here / "run.sh").chmod(0o700)
    (here / "pins.txt").write_text("one==1.0\n")
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
    image_context.write(context, recipe, {"one": fetched})
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
        recipe.pins.write_text("one==1.1\n")
    elif what == "comment":
        assert recipe.pins is not None
        recipe.pins.write_text("# a comment\none==1.0\n")
    elif what == "tool":
        recipe.files["tool.py"].write_text("# the same, better\n")
    elif what == "wheel":
        small_wheel(recipe.wheels[0].parent, "own", "1.0", content="# another build\n")
    return dataclasses.replace(recipe, **changes.get(what, {}))


@pytest.mark.parametrize("what", ["file", "pin", "wheel", "argument", "label"])
def test_whatever_changes_the_image_changes_its_fingerprint(recipe: Recipe, what: str) -> None:
    before = image_context.digest(recipe, "id")
    assert before == image_context.digest(recipe, "id")
    assert image_context.digest(_changed(recipe, what), "id") != before


@pytest.mark.parametrize("what", ["comment", "tag", "tool"])
def test_what_does_not_change_the_image_does_not(recipe: Recipe, what: str) -> None:
    before = image_context.digest(recipe, "id")
    assert image_context.digest(_changed(recipe, what), "id") == before


def test_another_base_changes_the_fingerprint(recipe: Recipe) -> None:
    assert image_context.digest(recipe, "id") != image_context.digest(recipe, "id2")


def test_two_builds_of_one_image_are_kept_apart(tmp_path: Path) -> None:
    with image_context.locked(tmp_path, "app"):
        with image_context.locked(tmp_path, "other"):
            pass
        second = image_context.locked(tmp_path, "app")
        with pytest.raises(InputError, match=r"process \d+ is building the image app"):
            second.__enter__()
    with image_context.locked(tmp_path, "app"):
        pass
