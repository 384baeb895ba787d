#!/usr/bin/env python3
"""Renew the tables of tasks in the manual (docs/), and make web pages of it.

Runs on this machine, with the dependencies of the tests (make docs). Neither it nor the pages need
a network. Changes docs/tasks.md and docs/tasks.zh-CN.md where tasks have changed, and the folder of
the pages. English texts are the tasks' docstrings, Chinese ones stand in docs/tasks.zh-CN.yaml.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import NamedTuple

from hostkit.base import run
from hostkit.base.errors import InputError
from omnikit.front.script import Script

ROOT = Path(__file__).resolve().parents[1]
# Page -> heading of its table.
PAGES = {
    "docs/tasks.md": "| Command | Script | What it does | Options |",
    "docs/tasks.zh-CN.md": "| 命令 | 脚本 | 作用 | 选项 |",
}
CHINESE = "docs/tasks.zh-CN.yaml"
# Options of nearly all tasks: the page says them once.
EVERYWHERE = ("environment", "config", "set", "verbose")
_TABLE = re.compile(r"(?m)^\| --- \| --- \| --- \| --- \|\n(\|.*\n)*")


class Row(NamedTuple):
    """A task, or a target that only make has."""

    name: str
    command: str
    script: str
    does: str
    options: tuple[str, ...]


def rows() -> list[Row]:
    """All tasks in the order of their modules, then what only make has."""
    from invoke.collection import Collection
    from invoke.loader import FilesystemLoader

    module, _ = FilesystemLoader(start=str(ROOT)).load("tasks")
    collection = Collection.from_module(module)
    targets = _targets()
    found = []
    for task in collection.tasks.values():
        name = collection.transform(task.name)
        names = [argument.name.replace("_", "-") for argument in task.get_arguments()]
        options = tuple(f"--{option}" for option in names if option not in EVERYWHERE)
        program = "invoke" if targets.pop(name, None) is None else "make"
        does = (inspect.getdoc(task.body) or "").splitlines()[0]
        script = getattr(task, "script", None)
        place = f"scripts/{script.name}" if script else ""
        found.append(Row(name, f"{program} {name}", place, does, options))
    return found + [Row(n, f"make {n}", "", does, ()) for n, does in targets.items()]


def _targets() -> dict[str, str]:
    """The Makefile's targets, each with what is said beside it, as a sentence."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"(?m)^\.PHONY: (.*)$", text)
    said = dict(re.findall(r"(?m)^([a-z-]+):[^#\n]*## (.*)$", text))
    said = {name: f"{does[0].upper()}{does[1:]}." for name, does in said.items()}
    return {name: said.get(name, "") for name in (phony[1] if phony else "").split()}


def tables() -> dict[str, str]:
    """Page -> its table as text."""
    import yaml

    chinese = yaml.safe_load((ROOT / CHINESE).read_text(encoding="utf-8"))
    found = rows()
    names = {row.name for row in found}
    missing, surplus = sorted(names - set(chinese)), sorted(set(chinese) - names)
    if missing or surplus:
        raise InputError(
            f"{CHINESE} does not have exactly the tasks that there are: "
            f"missing: {', '.join(missing) or '-'}; too many: {', '.join(surplus) or '-'}.",
            todo="add or remove their lines there, then: make docs",
        )
    english = {row.name: row.does for row in found}
    return {
        page: "\n".join([head, "| --- | --- | --- | --- |", *(_line(r, texts) for r in found), ""])
        for (page, head), texts in zip(PAGES.items(), (english, chinese))
    }


def _line(row: Row, texts: dict[str, str]) -> str:
    script, options = (
        ", ".join(f"`{word}`" for word in words if word) or "–"
        for words in ([row.script], row.options)
    )
    return f"| `{row.command}` | {script} | {texts[row.name]} | {options} |"


def renewed() -> dict[str, str]:
    """Page -> its whole text with the table of today."""
    made = {}
    for page, table in tables().items():
        text = (ROOT / page).read_text(encoding="utf-8")
        start, *_ = table.partition("| --- ")
        if text.count(start) != 1:
            raise InputError(f"{page} has no table with the heading {start.strip()}")
        before, _, after = text.partition(start)
        rest = _TABLE.sub("", after, count=1)
        made[page] = before + start + table[len(start) :] + rest
    return made


def body(given: argparse.Namespace) -> int:
    """Write what differs, then have MkDocs build it."""
    for page, text in renewed().items():
        path = ROOT / page
        same = path.read_text(encoding="utf-8") == text
        if not same:
            path.write_text(text, encoding="utf-8")
        print(f"{page}: {'unchanged' if same else 'renewed'}")
    if not given.tables:
        build(given.out)
        print(f"pages: {given.out}/index.html")
    return 0


def build(out: Path) -> None:
    """Have MkDocs make the pages; a link or anchor that leads nowhere is an error."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    run.run([*words, "--site-dir", out.absolute()], cwd=ROOT)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "docs",
        help="folder of the pages (default: build/docs)",
    )
    made.add_argument("--tables", action="store_true", help="only the tables, no pages")


main = Script(__doc__, body, arguments, example="scripts/docs.py --out /tmp/manual")


if __name__ == "__main__":
    sys.exit(main())
