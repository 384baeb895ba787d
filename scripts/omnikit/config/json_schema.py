"""The settings as a JSON Schema, by which editors complete, explain and check settings files."""

from __future__ import annotations

import re
from typing import Any

from omnikit.config import layers
from omnikit.config.schema import Settings
from omnikit.yaml.located import Node
from omnikit.yaml.strict_yaml import read_text

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Lists replace each other, so an entry of one is always whole; all else may be given in part.
_WHOLE = ("Instance",)
# A comment behind a value; "#" belongs to the value where no space stands before it.
_COMMENT = re.compile(r"\s#\s+(?P<text>.*)$")


def input_schema() -> dict[str, Any]:
    """The schema of one settings file: a layer, so that nothing is required."""
    made = Settings.model_json_schema()
    for name, definition in made["$defs"].items():
        if name not in _WHOLE:
            definition.pop("required", None)
        _tidy(definition)
    made.pop("required", None)
    _tidy(made)
    comments = descriptions()
    _describe(made, made["$defs"], comments, ())
    made["properties"]["based_on"] = {
        "type": "string",
        "description": "name of a file beside this one, which this one changes",
    }
    _describe(made["$defs"]["ServerPart"], made["$defs"], comments, ("server",))
    return {
        "$schema": DRAFT,
        "title": "Settings of the deployment toolkit",
        **{key: value for key, value in made.items() if key != "title"},
    }


def _tidy(node: Any) -> None:
    """Drop what says nothing: titles made of the names, and defaults (they are layered)."""
    if isinstance(node, list):
        for child in node:
            _tidy(child)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    node.pop("default", None)
    for key, child in node.items():
        if key in ("properties", "$defs") and isinstance(child, dict):
            for schema in child.values():
                _tidy(schema)
        else:
            _tidy(child)


def descriptions() -> dict[tuple[str, ...], str]:
    """The comments of configs/defaults.yaml by the path of the setting that they explain."""
    path = layers.PROJECT / "configs" / "defaults.yaml"
    lines = read_text(path).split("\n")
    found: dict[tuple[str, ...], str] = {}
    _collect(layers.defaults(), (), lines, found)
    return found


def _collect(
    node: Node, path: tuple[str, ...], lines: list[str], found: dict[tuple[str, ...], str]
) -> None:
    if not isinstance(node.value, dict):
        return
    for key, child in node.value.items():
        line = node.key_origins[key].line - 1
        text = _behind(lines[line]) or _above(lines, line)
        if text:
            found[(*path, key)] = text
        _collect(child, (*path, key), lines, found)


def _behind(line: str) -> str:
    match = _COMMENT.search(line)
    return match["text"].strip() if match else ""


def _above(lines: list[str], line: int) -> str:
    """The comment lines directly above."""
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    texts: list[str] = []
    while line > 0 and lines[line - 1].startswith(f"{indent}#"):
        line -= 1
        texts.insert(0, lines[line].strip().lstrip("#").strip())
    return " ".join(texts)


def _describe(
    schema: dict[str, Any],
    definitions: dict[str, Any],
    comments: dict[tuple[str, ...], str],
    path: tuple[str, ...],
) -> None:
    """Put the comments into the properties; a section that several share keeps its own text."""
    for key, child in schema.get("properties", {}).items():
        here = (*path, key)
        if here in comments:
            child["description"] = comments[here]
        name = str(child.get("$ref", "")).rpartition("/")[2]
        if name and any(known[: len(here)] == here != known for known in comments):
            _describe(definitions[name], definitions, comments, here)
