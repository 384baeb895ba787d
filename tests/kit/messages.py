"""The words that the toolkit says to people, as templates; renews the catalogue of them.

    PYTHONPATH=scripts:tests/kit python3 tests/kit/messages.py

adds what is new to locale/zh/omnikit.po, without a translation, and drops what is said no more.
A template is one line: {0}, {1} stand for what is known when it is said only.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator, Optional

import yaml
from babel.messages import pofile
from babel.messages.catalog import Catalog

from omnikit.front.chinese import CATALOGUE
from omnikit.monitor.web import phrases

ROOT = Path(__file__).resolve().parents[2]
_HEADER = """\
# What the toolkit says, in Chinese. {0}, {1} stand for what is known when it is said only.
# A translation that equals the English text: it stays as it is, being no words.
# Renewed by tests/kit/messages.py.
#"""
# They have words of their own, or say them to those who develop the toolkit, to Prometheus, to git.
OTHERS = ("omnikit/report/", "omnikit/monitor/files.py", "docs.py", "write_sbom.py")
OTHERS = (*OTHERS, "lock_dependencies.py", "make_tiny_model.py", "fleet/")
_HELP = {"help", "description", "metavar", "example", "epilog"}
_HOLE = re.compile(r"\{(\w*)(![rs])?(:[^{}\s]*)?\}")


def _text(node: ast.AST) -> Optional[str]:
    """A string as a template, holes as {}; None: it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            one.value if isinstance(one, ast.Constant) else "{}"  # type: ignore[misc]
            for one in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        if left is not None or right is not None:
            return ("{}" if left is None else left) + ("{}" if right is None else right)
    return None


def templates(text: str) -> Iterator[str]:
    """The lines of a string that are words, with their holes numbered."""
    for line in text.split("\n"):
        # What was formatted before, and what another call formats, are holes alike.
        parts = _HOLE.sub("{}", line).strip().split("{}")
        line = "".join(f"{{{n - 1}}}{part}" if n else part for n, part in enumerate(parts))
        plain = re.sub(r"\{\d+\}", " ", line)
        words = re.findall(r"[A-Za-z]{2,}", plain)
        if len(words) > 1 and " " in plain.strip() and re.search(r"\b[a-z]{2,}\b", plain):
            yield line


def _of_module(tree: ast.Module) -> Iterator[str]:
    left_out = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                left_out.add(id(node.body[0].value))  # type: ignore[attr-defined]
        elif isinstance(node, ast.keyword) and node.arg in _HELP:
            left_out.update(id(one) for one in ast.walk(node.value))
    for node in ast.walk(tree):  # outer ones first
        text = None if id(node) in left_out else _text(node)
        if text is None:
            continue
        for one in ast.walk(node):
            if _text(one) is not None and not isinstance(one, ast.FormattedValue):
                # Not what stands within a hole: it is said of its own.
                left_out.add(id(one))
        for hole in (one for one in ast.walk(node) if isinstance(one, ast.FormattedValue)):
            left_out.difference_update(id(one) for one in ast.walk(hole.value))
        yield from templates(text)


def said(root: Path = ROOT) -> dict[str, str]:
    """Each template, and the first file that has it."""
    found: dict[str, str] = {}
    scripts = root / "scripts"
    for path in sorted(scripts.rglob("*.py")):
        name = path.relative_to(scripts).as_posix()
        if not name.startswith(OTHERS):
            for one in _of_module(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(one, f"scripts/{name}")
    page = (root / "templates/watch.html").read_text(encoding="utf-8")
    found.update(dict.fromkeys(phrases(page), "templates/watch.html"))
    failures = yaml.safe_load((root / "configs/failures.yaml").read_text(encoding="utf-8"))
    for entry in failures:
        for key in ("cause", "remedy"):
            for one in templates(entry.get(key) or ""):
                found.setdefault(one, "configs/failures.yaml")
    return found


NAME = "name"  # an entry's comment: a word of its own, of a table or of another program


def report_texts(root: Path = ROOT) -> str:
    """The code of reports, whose texts stand in it as they are in the catalogue."""
    files = [*root.glob("scripts/omnikit/report/*.py"), root / "scripts/omnikit/profile/summary.py"]
    files.append(root / "templates/environment_report.html.j2")
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n?\s*"', "", text)  # a text over two lines


def renewed(before: Catalog, root: Path = ROOT) -> Catalog:
    """The catalogue for what is said now."""
    made = Catalog(locale="zh", fuzzy=False, header_comment=_HEADER)
    made.creation_date = made.revision_date = datetime(2026, 12, 1, tzinfo=timezone.utc)
    now, report = said(root), report_texts(root)
    for english, path in now.items():
        old = before.get(english)
        comments = old.auto_comments if old else ()
        made.add(english, old.string if old else "", [(path, 0)], auto_comments=comments)
    for old in before:
        used = NAME in old.auto_comments or any(f"{q}{old.id}{q}" in report for q in "\"'")
        if old.id and old.id not in now and used:
            made.add(old.id, old.string, auto_comments=old.auto_comments)
    return made


def text_of(catalogue: Catalog) -> bytes:
    """The file's content."""
    made = io.BytesIO()
    pofile.write_po(made, catalogue, width=0, sort_by_file=True, include_lineno=False)
    return made.getvalue()


def main() -> int:
    """Renew the file; 1 where something has no translation yet."""
    before = pofile.read_po(io.BytesIO(CATALOGUE.read_bytes()))
    made = renewed(before)
    CATALOGUE.write_bytes(text_of(made))
    missing = [one.id for one in made if one.id and not one.string]
    print("\n".join([*map(str, missing), f"{len(made)} templates, {len(missing)} not translated"]))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
