"""The documents say what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


def tasks() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "--list-format", "flat"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"^  ([a-z][a-z-]*)", done.stdout, re.M)


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_every_task_is_in_the_table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(tasks()) > 15
    assert [name for name in tasks() if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("path", [*READMES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_every_make_target_and_script_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z][a-z-]+)\b", text)):
        assert re.search(rf"^[a-z -]*\b{target}\b[a-z -]*:", makefile, re.M), target
    for script in set(re.findall(r"`([a-z_]+\.(?:py|sh))`", text)):
        assert (ROOT / "scripts" / script).is_file(), script


def code_blocks(path: Path) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def test_both_languages_show_the_same_commands_in_the_same_order() -> None:
    assert code_blocks(READMES[0]) == code_blocks(READMES[1])
    headings = [re.findall(r"^(#+) ", p.read_text(encoding="utf-8"), re.M) for p in READMES]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_every_setting_named_is_a_setting(path: Path) -> None:
    from omnikit import layers

    defaults = layers.defaults()
    sections = "|".join(defaults.value)
    text = path.read_text(encoding="utf-8")
    for name in set(re.findall(rf"`((?:{sections})\.[a-z_.]+)`", text)):
        if not name.endswith((".yaml", ".py", ".txt")):
            assert defaults.find(tuple(name.split("."))) is not None, name
