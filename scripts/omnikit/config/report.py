"""The merged settings for people and programs: as YAML or JSON, with or without origins; and the
schema by which editors complete, explain and check settings files.

A value whose name or form says that it is a secret is [redacted]: what is printed ends in tickets.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterator

import yaml

from hostkit.base.redact import Hidden
from omnikit.config import layers
from omnikit.config.config import Config
from omnikit.config.schema import Settings
from omnikit.yaml import redact
from omnikit.yaml.node import Node
from omnikit.yaml.strict_yaml import read_text, reads_as_text

Leaf = tuple[tuple[str, ...], Node]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that our own reader, or any other, would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if reads_as_text(text) and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _nothing(dumper: yaml.SafeDumper, _: None) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:null", "null")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Hidden, _text)
_Dumper.add_representer(type(None), _nothing)


def as_yaml(value: Any) -> str:
    """Data as YAML that reads back as just this data, in the order that it has."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def leaves(config: Config, *, changed: bool) -> list[Leaf]:
    """Every single value with its path, in the order of configs/defaults.yaml."""
    return list(config.changed() if changed else config.tree.leaves())


def shown(leaf: Leaf) -> Any:
    """A single value as plain data without secrets."""
    path, node = leaf
    return redact.setting(path, node.plain())


def nested(found: list[Leaf]) -> dict[str, Any]:
    """Single values as the maps that they stand in."""
    made: dict[str, Any] = {}
    for path, node in found:
        here = made
        for step in path[:-1]:
            here = here.setdefault(step, {})
        here[path[-1]] = shown((path, node))
    return made


def without_secrets(config: Config) -> str:
    """The merged settings as a file to be loaded again; what a user hid is left out."""
    return as_yaml(plain(config.tree))


def plain(tree: Node) -> Any:
    """Settings as data, without what a user hid."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if not isinstance(v, Hidden)}
        return [kept(item) for item in value] if isinstance(value, list) else value

    return kept(tree.plain())


def with_origins(found: list[Leaf]) -> str:
    """One line for each value: its name, the value, and where it came from, aligned."""
    rows = [(f"{dotted(path)} = {one_line(shown((path, node)))}", node) for path, node in found]
    width = min(max((len(text) for text, _ in rows), default=0), 72)
    return "".join(f"{text.ljust(width)}   # {node.origin}\n" for text, node in rows)


def dotted(path: tuple[str, ...]) -> str:
    """A setting's name as --set takes it."""
    return ".".join(f'"{step}"' if "." in step else step for step in path)


def as_json(found: list[Leaf], *, origins: bool) -> str:
    """The settings as JSON: nested, or with origins by dotted name."""
    if not origins:
        return json.dumps(nested(found), indent=1, ensure_ascii=False) + "\n"
    return json.dumps(dict(_located(found)), indent=1, ensure_ascii=False) + "\n"


def _located(found: list[Leaf]) -> Iterator[tuple[str, Any]]:
    for path, node in found:
        yield dotted(path), {"value": shown((path, node)), "origin": str(node.origin)}


def one_line(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
    )
    return str(text).removesuffix("...\n").strip()


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
