"""The house of scripts/: how large its rooms are, and how much there is to read.

The figures only ever go down; import-linter (make lint) holds who may import whom.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
ROOMS = ("hostkit", "omnikit")
# What is still to come down to 230, 38,000 and 40.
MODULES, LINES, SINGLE = 310, 67_161, 45


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module; packages by their own name."""
    found = {}
    for path in sorted(SCRIPTS.rglob("*.py")):
        if path.is_symlink():
            continue  # a former name
        parts = path.relative_to(SCRIPTS).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def importers(known: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> who imports it."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for one in node.names:
                    inner = f"{node.module}.{one.name}"
                    found[inner if inner in known else node.module].add(name)
            elif isinstance(node, ast.Import):
                for one in node.names:
                    found[one.name].add(name)
    return found


def test_a_room_has_at_most_15_modules_and_says_what_lives_in_it() -> None:
    for folder in {path.parent for room in ROOMS for path in (SCRIPTS / room).rglob("*.py")}:
        inside = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(inside) <= 15, folder
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
        assert said and len(said.splitlines()) > 2, f"{folder}: who calls it, what it may call"


def test_nothing_lies_loose_between_the_rooms() -> None:
    for room in ROOMS:
        assert [path.name for path in (SCRIPTS / room).glob("*.py")] == ["__init__.py"]


def test_there_is_no_more_to_read_than_before() -> None:
    known = modules()
    whole = [path for path in known.values() if path.name != "__init__.py"]
    files = [*known.values(), ROOT / "tasks.py"]
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in files)
    by = importers(known)
    single = [name for name in known if "." in name and len(by[name]) == 1]
    print(f"{len(whole)} modules, {lines} lines, {len(single)} with a single importer")
    assert (len(whole) <= MODULES, lines <= LINES, len(single) <= SINGLE) == (True, True, True), (
        f"{len(whole)} modules, {lines} lines, {len(single)} with a single importer"
    )
