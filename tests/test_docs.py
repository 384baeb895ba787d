"""The documents agree with the code, and those of both languages with each other."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Iterator, Optional

import outside
import pytest
import yaml
from invoke.collection import Collection
from invoke.context import MockContext
from invoke.exceptions import ParseError
from invoke.loader import FilesystemLoader
from invoke.parser import Parser

import docs
from hostkit.base import cli
from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.engine import install
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
READMES = [ENGLISH, CHINESE]
DOCS = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [*READMES, *DOCS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAIRS = [(p.with_suffix("").with_suffix(".md"), p) for p in [CHINESE, *DOCS] if ".zh-CN" in p.name]
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
each_pair = pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda p: p.name)
each_readme = pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)


def each_of(name: str) -> pytest.MarkDecorator:
    """A page of the manual, in both languages."""
    pages = [ROOT / "docs" / f"{name}{language}.md" for language in ("", ".zh-CN")]
    return pytest.mark.parametrize("path", pages, ids=lambda p: p.name)


COLLECTION = Collection.from_module(FilesystemLoader(start=str(ROOT)).load("tasks")[0])

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
    for task in COLLECTION.tasks.values():
        names = {argument.name.replace("_", "-") for argument in task.get_arguments()}
        found[COLLECTION.transform(task.name)] = names
    return found


def targets() -> set[str]:
    """Every target of the Makefile that a person calls."""
    phony = re.search(r"^\.PHONY: (.*)$", text(ROOT / "Makefile"), re.MULTILINE)
    assert phony
    return set(phony[1].split())


@each_of("tasks")
def test_the_table_of_tasks_is_that_of_the_code(path: Path) -> None:
    """If it is not: make docs."""
    assert text(path) == docs.renewed()[str(path.relative_to(ROOT))]


def test_tables_are_made_of_tasks_targets_and_scripts() -> None:
    rows = {row.name: row for row in docs.rows()}
    assert set(rows) == set(tasks()) | targets()
    assert rows["deploy"].command == "make deploy" and rows["doctor"].command == "invoke doctor"
    assert "--dry-run" in rows["deploy"].options and "--set" not in rows["deploy"].options
    for row in rows.values():
        assert not row.script or (ROOT / row.script).is_file(), row


@each_of("configuration")
def test_every_environment_stands_in_the_table(path: Path) -> None:
    first = [row[0] for row in table_rows(path)]
    for name in outside.shipped("environments"):
        assert any(cell.startswith(f"`{name}`") for cell in first), name


@each_document
def test_every_command_named_exists(path: Path) -> None:
    known = {"make": targets(), "invoke": set(tasks())}
    for program, word in _TASK_WORD.findall(commands(path)):
        assert word in known[program], f"{program} {word}"


def command_lines(path: Path) -> Iterator[list[str]]:
    """The commands of a document as words: lines of its blocks, and what is in backticks.

    A task's name alone in backticks is a name: whether it exists is asked above.
    """
    joined = [content.replace("\\\n", "") for _, content in blocks(path)]
    lines = [line for content in joined for line in content.splitlines()]
    for line in [*lines, *(word for word in ticked(path) if word.count(" ") > 1)]:
        if re.match(r"(make|invoke|omni_cli|(\./)?scripts/\w+\.(py|sh)) [^ =]", line):
            yield shlex.split(line)


def as_invoke(words: list[str]) -> Optional[list[str]]:
    """What a make or invoke command says to Invoke; nothing where no task is called."""
    program, *rest = words
    if program == "invoke":
        return None if rest[0].startswith("--") else rest
    (target, *more), given = rest, {}
    for word in more:
        name, is_variable, value = word.partition("=")
        assert is_variable and name in ("ENVIRONMENT", "OPTIONS", "RUNTIME", "PYTHON"), word
        given[name] = value
    assert target in targets(), words
    runtime = [f"--set=runtime={given['RUNTIME']}"] if "RUNTIME" in given else []
    return (
        None
        if target not in tasks()
        else [target, *runtime, *shlex.split(given.get("OPTIONS", ""))]
    )


def as_scripts(words: list[str]) -> list[list[str]]:
    """The scripts that a command starts, each with its arguments."""
    if words[0] == "omni_cli":
        return [[str(ROOT / "scripts" / "omni_cli.py"), *words[1:]]]
    if words[0] not in ("make", "invoke"):
        return [[str(ROOT / words[0]), *words[1:]]]
    said = as_invoke(words)
    if said is None:
        return []
    started = []
    for asked in Parser(contexts=COLLECTION.to_contexts()).parse_argv(said):
        context = MockContext(run=True, repeat=True)
        given = {name: argument.value for name, argument in asked.args.items()}
        task = COLLECTION[str(asked.name)]
        task.body(context, **{name.replace("-", "_"): value for name, value in given.items()})
        started += [shlex.split(call.args[0]) for call in context.run.call_args_list]
    return [words[1:] for words in started if Path(words[1]).parent == ROOT / "scripts"]


def only_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have scripts read their arguments, and do nothing then."""
    monkeypatch.setattr(cli, "run_main", lambda body, made, argv=None: not made.parse_args(argv))


@each_document
def test_every_command_is_taken_as_it_is_written(path: Path, monkeypatch) -> None:
    """Invoke's parser takes it, and that of the script which the task then starts."""
    only_parse(monkeypatch)
    for words in command_lines(path):
        for script, *arguments in as_scripts(words):
            assert Path(script).is_file(), words
            if script.endswith(".py"):
                try:
                    importlib.import_module(Path(script).stem).main(arguments)
                except SystemExit as refused:
                    pytest.fail(f"{shlex.join(words)}: exit status {refused.code}")


@pytest.mark.parametrize(
    "words",
    [
        ["invoke", "plan", "--lines=3"],
        ["make", "plan", "OPTIONS=--no-such"],
        ["invoke", "benchmark-serving", "--requests=many"],
        ["omni_cli", "serve"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_would_be_found(words: list[str], monkeypatch) -> None:
    only_parse(monkeypatch)
    with pytest.raises((ParseError, SystemExit)):
        for script, *arguments in as_scripts(words):
            importlib.import_module(Path(script).stem).main(arguments)


def looking_commands() -> Iterator[list[str]]:
    """The commands of the English documents that only look at settings, as tasks."""
    found = set()
    for path in [ENGLISH, *DOCS]:
        for words in command_lines(path):
            if words[1] in ("plan", "config") and "--live" not in words:
                said = as_invoke(words) or []
                chosen = [w for w in words if w.startswith("ENVIRONMENT=")]
                found.add((*said, *(f"--environment={w.partition('=')[2]}" for w in chosen)))
    return map(list, sorted(found))


@pytest.mark.parametrize("words", looking_commands(), ids=" ".join)
def test_commands_that_only_look_do_as_they_are_written(words: list[str], tmp_path: Path) -> None:
    """The others are run by the tests of their scripts. Environments are the example's."""
    (example,) = [c for kind, c in blocks(ROOT / "docs" / "configuration.md") if kind == "yaml"]
    site = tmp_path / "site.yaml"
    site.write_text(example, encoding="utf-8")
    said = [re.sub(r"(?<=--environment=)(site\.local|/etc/.*)", str(site), word) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *said], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    assert links or path in DOCS
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_every_path_of_the_repository_exists(path: Path) -> None:
    folders = ("configs", "scripts", "templates", "tests", "benchmarks", "docker", "docs", ".ci")
    for word in (part for one in ticked(path) for part in one.split()):
        if word.split("/")[0] in folders and not re.search(r"[<*\s]|\.local\.", word):
            assert (ROOT / word).exists(), word


@each_document
def test_every_setting_named_exists(path: Path) -> None:
    defaults = yaml.safe_load(text(ROOT / "configs" / "defaults.yaml"))
    for role in defaults["roles"].values():
        role.setdefault("server", {})  # a part of server, which no role has by default
    words = re.findall(r"--set ([a-z_.-]+)=", commands(path))
    words += [w for w in ticked(path) if re.fullmatch(r"[a-z_]+(\.[a-z_-]+)+", w)]
    words = [word for word in words if not word.endswith((".yml", ".jsonl"))]  # files
    variables = re.findall(r"OMNIKIT_(\w+?__\w+)", commands(path))
    words += [name.lower().replace("__", ".") for name in variables]
    words += re.findall(
        r"\b(?:omnikit|hostkit)(?:\.[a-z_]+)+", "\n".join(b for _, b in blocks(path))
    )
    for word in words:
        assert is_known(word, defaults), word


_FILES = ("py", "sh", "md", "yaml", "json", "log", "txt", "conf", "toml", "pem", "tar")


def is_known(word: str, defaults: Any) -> bool:
    """Whether a dotted word is a setting, a module or a file."""
    if word.startswith(("omnikit.", "hostkit.")):
        inside = ROOT / "scripts" / word.replace(".", "/")
        return inside.is_dir() or inside.with_suffix(".py").is_file()
    if word.rpartition(".")[2] in _FILES:
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
    assert is_known("hostkit.base.run", defaults)
    assert not is_known("omnikit.walk", defaults)


def test_every_document_of_docs_is_in_both_languages() -> None:
    assert {p for pair in PAIRS for p in pair} == {*READMES, *DOCS}


@each_pair
def test_both_languages_have_the_same_headings_and_code(english: Path, chinese: Path) -> None:
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    assert blocks(english) == blocks(chinese)


@each_pair
def test_both_languages_name_the_same_things_in_the_same_order(
    english: Path, chinese: Path
) -> None:
    """Row by row, what stands in backticks is equal: nothing is said in one language only."""
    both = [
        [re.findall(r"`[^`]+`", " ".join(row)) for row in table_rows(path)]
        for path in (english, chinese)
    ]
    assert both[0] == both[1]
    assert set(ticked(english)) == set(ticked(chinese))


@pytest.mark.parametrize("name", ["security.md", "security.zh-CN.md"])
def test_every_promise_is_in_the_document_and_its_tests_are_there(name: str) -> None:
    """Who adds a module to tests/adversarial adds its row, in both languages."""
    listed = re.findall(
        r"`(tests/adversarial/\w+/test_\w+\.py)` \|$", text(ROOT / "docs" / name), re.M
    )
    modules = (ROOT / "tests" / "adversarial").glob("*/test_*.py")
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in modules)


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
    made.append(str(install.failure(["Connection refused"], "fetching pip")))
    with pytest.raises(InputError) as raised:
        config.load("no-such-environment", environ={})
    return [*made, str(raised.value)]


@pytest.mark.slow
@each_of("troubleshooting")
def test_every_error_text_comes_from_the_code(path: Path) -> None:
    (errors,) = [table for table in tables(path) if "…" in table[0][0]]
    quoted = [row[0].strip("`") for row in errors[2:]]
    assert len(quoted) > 20
    for error in quoted:
        pattern = ".*?".join(re.escape(part) for part in error.split("…"))
        assert any(re.search(pattern, m, re.DOTALL) for m in messages()), error


@each_of("configuration")
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


@each_of("architecture")
def test_the_drawing_has_the_rooms_of_the_code_in_their_order(path: Path) -> None:
    drawing = next(content for _, content in blocks(path) if content.startswith("scripts/omnikit"))
    layers = re.findall(r"^  (\w+(?: \| \w+)*)  ", drawing, re.MULTILINE)
    pyproject = text(ROOT / "pyproject.toml").partition("[tool.importlinter]")[2]
    contracts = re.findall(r'containers = \["(\w+)"\]\nlayers = \[\n(.*?)\]', pyproject, re.DOTALL)
    wanted = {building: re.findall(r'"(.+)"', rooms) for building, rooms in contracts}
    assert layers == wanted["omnikit"] + wanted["hostkit"]


@each_readme
def test_the_readme_is_short_and_leads_to_the_manual(path: Path) -> None:
    """At most 120 lines; what is more belongs to docs/, of which index.md lists every page."""
    assert len(text(path).splitlines()) <= 120
    language = ".zh-CN" if path == CHINESE else ""
    index = f"docs/index{language}.md"
    assert f"]({index})" in text(path)
    pages = {p.name for p in DOCS if (".zh-CN" in p.name) == bool(language)}
    listed = re.findall(r"\]\(([^)#]+)\)", text(ROOT / index))
    other = "index.md" if language else "index.zh-CN.md"
    assert sorted(listed) == sorted(pages - {Path(index).name} | {other})


class _Fetched(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "a":
            self.addresses += [v for k, v in attrs if k in ("href", "src", "srcset") and v]


def test_the_pages_are_built_strictly_and_need_no_network(tmp_path: Path) -> None:
    docs.build(tmp_path)
    pages = sorted(tmp_path.rglob("*.html"))
    assert {p.name for p in pages} >= {p.with_suffix(".html").name for p in DOCS}
    for page in pages:
        fetched = _Fetched()
        fetched.feed(text(page))
        assert fetched.addresses, page
        assert [a for a in fetched.addresses if re.match(r"([a-z]+:)?//", a)] == [], page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?([a-z]+:)?//", text(sheet)), sheet


def test_the_license_is_whole() -> None:
    license_text = text(ROOT / "LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in license_text
    assert license_text.rstrip().endswith("limitations under the License.")
