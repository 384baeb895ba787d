"""The documents agree with the code, and the two READMEs with each other."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from omnikit import config, engine_steps
from omnikit.errors import InputError
from omnikit.topology import make_plan

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
READMES = [ENGLISH, CHINESE]
DOCUMENTS = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
each_readme = pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_TASK_WORD = re.compile(r"\b(make|invoke) ([a-z][a-z-]*)")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and content of every code block."""
    return _FENCE.findall(text(path))


def prose(path: Path) -> str:
    return _FENCE.sub("", text(path))


def ticked(path: Path) -> list[str]:
    """Everything in backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", prose(path))


def commands(path: Path) -> str:
    """Everything that a reader may paste."""
    return "\n".join([*ticked(path), *(content for _, content in blocks(path))])


def headings(path: Path) -> list[tuple[str, str]]:
    return _HEADING.findall(prose(path))


def anchors(path: Path) -> set[str]:
    """The names by which links reach the headings."""
    return {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for _, t in headings(path)}


def tables(path: Path) -> list[list[list[str]]]:
    """The cells of every table: heading, rule, rows."""
    found = re.findall(r"(?:^\|.*\n)+", prose(path), re.MULTILINE)
    return [[_cells(line) for line in table.splitlines()] for table in found]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table_rows(path: Path) -> list[list[str]]:
    """The rows of all tables."""
    return [row for table in tables(path) for row in table]


def tasks() -> dict[str, set[str]]:
    """Every Invoke task and its options."""
    found = {}
    for node in ast.parse(text(ROOT / "tasks.py")).body:
        if isinstance(node, ast.FunctionDef) and "task" in map(_decorator, node.decorator_list):
            options = {argument.arg.replace("_", "-") for argument in node.args.args[1:]}
            found[node.name.replace("_", "-")] = options
    return found


def _decorator(node: ast.expr) -> str:
    named = node.func if isinstance(node, ast.Call) else node
    return named.id if isinstance(named, ast.Name) else ""


def targets() -> set[str]:
    """Every target of the Makefile that a person calls."""
    phony = re.search(r"^\.PHONY: (.*)$", text(ROOT / "Makefile"), re.MULTILINE)
    assert phony
    return set(phony[1].split())


def task_rows(path: Path) -> dict[str, list[str]]:
    """The table of tasks: task or target -> its row."""
    found = {}
    for row in table_rows(path):
        words = [word for cell in row[:2] for word in _TASK_WORD.findall(cell)]
        if len(row) == 4 and words:
            found[words[-1][1]] = row
    return found


@each_readme
def test_every_task_stands_in_the_table_with_its_target_and_script(path: Path) -> None:
    rows = task_rows(path)
    assert set(tasks()) == set(rows) - {"clean"}
    for name, row in rows.items():
        assert row[0] == (f"`make {name}`" if name in targets() else "–")
        assert row[1] == (f"`invoke {name}`" if name in tasks() else "–")


@each_readme
def test_every_option_in_the_table_of_tasks_exists(path: Path) -> None:
    for name, row in task_rows(path).items():
        given = set(re.findall(r"`--([a-z-]+)`", row[3]))
        common = {"environment", "config", "set"}
        assert given == tasks().get(name, set()) - common or name == "restart", name


@each_readme
def test_every_environment_stands_in_the_table(path: Path) -> None:
    shipped = {p.stem for p in (ROOT / "configs" / "environments").glob("*.yaml")}
    first = [row[0] for row in table_rows(path)]
    missing = {n for n in shipped if not any(cell.startswith(f"`{n}`") for cell in first)}
    assert {n for n in missing if not n.endswith(".local")} == set()


@each_document
def test_every_command_named_exists(path: Path) -> None:
    known = {"make": targets(), "invoke": set(tasks())}
    for program, word in _TASK_WORD.findall(commands(path)):
        assert word in known[program], f"{program} {word}"


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_every_path_of_the_repository_exists(path: Path) -> None:
    folders = ("configs", "scripts", "templates", "tests", "benchmarks", ".ci")
    for word in ticked(path):
        if word.split("/")[0] in folders and not re.search(r"[<*\s]|\.local\.", word):
            assert (ROOT / word).exists(), word


@each_document
def test_every_setting_named_exists(path: Path) -> None:
    defaults = yaml.safe_load(text(ROOT / "configs" / "defaults.yaml"))
    words = re.findall(r"--set ([a-z_.-]+)=", commands(path))
    words += [w for w in ticked(path) if re.fullmatch(r"[a-z_]+(\.[a-z_-]+)+", w)]
    words = [word for word in words if not word.endswith((".yml", ".jsonl"))]  # files
    variables = re.findall(r"OMNIKIT_(\w+?__\w+)", commands(path))
    words += [name.lower().replace("__", ".") for name in variables]
    for word in words:
        assert is_known(word, defaults), word


def is_known(word: str, defaults: Any) -> bool:
    """Whether a dotted word is a setting, a module or a file."""
    if word.startswith("omnikit."):
        inside = ROOT / "scripts" / word.replace(".", "/")
        return inside.is_dir() or inside.with_suffix(".py").is_file()
    if word.rpartition(".")[2] in ("py", "md", "yaml", "log"):
        return True  # a file: its path is checked elsewhere
    here = defaults
    for step in word.split("."):
        if here == {} or (isinstance(here, list) and here == []):
            return True  # free names from here on
        if not isinstance(here, dict) or step not in here:
            return False
        here = here[step]
    return True


def test_a_wrong_setting_would_be_found() -> None:
    defaults = {"ports": {"proxy": 1}, "hosts": {}}
    assert is_known("ports.proxy", defaults)
    assert is_known("hosts.p0.address", defaults)
    assert not is_known("ports.proxi", defaults)
    assert not is_known("port.proxy", defaults)
    assert not is_known("ports.proxy.more", defaults)
    assert is_known("omnikit.run", defaults)
    assert not is_known("omnikit.walk", defaults)


def test_both_readmes_have_the_same_headings_and_code() -> None:
    english, chinese = headings(ENGLISH), headings(CHINESE)
    assert [level for level, _ in english] == [level for level, _ in chinese]
    assert blocks(ENGLISH) == blocks(CHINESE)


def test_both_readmes_name_the_same_things_in_the_same_order() -> None:
    """Row by row, what stands in backticks is equal: nothing is said in one language only."""
    english = [re.findall(r"`[^`]+`", " ".join(row)) for row in table_rows(ENGLISH)]
    chinese = [re.findall(r"`[^`]+`", " ".join(row)) for row in table_rows(CHINESE)]
    assert english == chinese
    assert set(ticked(ENGLISH)) == set(ticked(CHINESE))


def templates(path: Path) -> Iterator[str]:
    """Every text in a Python file, with … where a value is put in."""
    tree = ast.parse(text(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@lru_cache(maxsize=1)
def messages() -> list[str]:
    """What the toolkit can say."""
    scripts = ROOT / "scripts"
    made = [t for path in scripts.rglob("*.py") for t in templates(path)]
    made += [text(path) for path in scripts.glob("*.sh")]
    # Two that are put together from parts.
    made.append(str(engine_steps.failure(["Connection refused"], "fetching pip")))
    with pytest.raises(InputError) as raised:
        config.load("no-such-environment", environ={})
    return [*made, str(raised.value)]


@each_readme
def test_every_error_text_comes_from_the_code(path: Path) -> None:
    (errors,) = [table for table in tables(path) if "…" in table[0][0]]
    quoted = [row[0].strip("`") for row in errors[2:]]
    assert len(quoted) > 20
    for error in quoted:
        pattern = ".*?".join(re.escape(part) for part in error.split("…"))
        assert any(re.search(pattern, m, re.DOTALL) for m in messages()), error


@each_readme
def test_the_environment_of_the_example_can_be_planned(path: Path, tmp_path: Path) -> None:
    (example,) = [content for language, content in blocks(path) if language == "yaml"]
    file = tmp_path / "site.yaml"
    file.write_text(example, encoding="utf-8")
    plan = make_plan(config.load(str(file), environ={}))
    assert plan.environment == "site"
    addresses = {host.name: host.address for host in plan.hosts}
    assert addresses == {
        f"{n}": f"10.0.0.{i}" for n, i in zip(("p0", "p1", "d0", "d1"), range(11, 15))
    }
    ports = {node.name: node.servers[0].api_port for node in plan.nodes}
    assert ports["d1"] == 9200


def test_the_license_is_whole() -> None:
    license_text = text(ROOT / "LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in license_text
    assert license_text.rstrip().endswith("limitations under the License.")
