"""YAML text to a located tree, more strictly than YAML: what could surprise is refused."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import yaml

from omnikit.errors import InputError
from omnikit.located import Node, Origin
from omnikit.scalars import Surprise, read_plain

# The C parser is ten times faster; PyYAML built without it still works.
_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

# Values below these keys are secrets: no message shows what was found there.
SECRETS = ("password",)
# A settings file is a few kilobytes; this keeps a device or a model file from being read whole.
_LARGEST = 16 * 1024 * 1024
_DEEPEST = 60


def read_text(path: Path, name: Optional[str] = None) -> str:
    """A UTF-8 text file. Raises InputError when missing, unreadable, huge or not UTF-8."""
    shown = name or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read the file: {why}.",
            where=shown,
            todo="check that it is a file and that you may read it: ls -ld " + shlex.quote(shown),
        ) from error
    if len(data) > _LARGEST:
        raise InputError(
            "the file is larger than 16 MiB, which no settings file is.",
            where=shown,
            todo="check the path",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        quoted = shlex.quote(shown)
        raise InputError(
            f"the file is not UTF-8 text: found byte 0x{data[error.start]:02x}.",
            where=f"{shown}:{line}",
            todo=f"save it as UTF-8, for example: iconv -f {_encoding(data)} -t UTF-8"
            f" -o converted.yaml {quoted}",
        ) from error


def _encoding(data: bytes) -> str:
    """A guess at what a file that is not UTF-8 was saved as."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return "LATIN1"
    return "GB18030"


def parse(text: str, source: str, layer: int = 0) -> Node:
    """YAML text to a tree of nodes whose root is a map.

    Stricter than YAML: one document, no duplicate keys, no tabs, no tags, aliases or merge keys,
    and no plain words that YAML 1.1 and 1.2 read differently. Raises InputError: source:line.
    """
    tree = compose(text, source)
    if tree is None:
        raise InputError(
            "the file is empty, a map of settings (key: value) belongs here.",
            where=source,
            todo="write at least one setting, or remove the file",
        )
    if not isinstance(tree, yaml.MappingNode):
        kind = "list" if isinstance(tree, yaml.SequenceNode) else "single value"
        raise InputError(
            f"found a {kind} where a map (key: value) belongs.",
            where=f"{source}:{tree.start_mark.line + 1}",
            todo="is a space missing after a colon?" if kind == "single value" else None,
        )
    return _Reader(source, layer).node(tree, secret=False)


def parse_value(text: str, origin: Origin, *, secret: bool = False) -> Node:
    """The value of a setting given as an option or in a variable.

    What begins with a bracket, a brace or a quote is YAML; everything else is one plain word, so
    that no character in it has a meaning.
    """
    if text[:1] not in ("[", "{", '"', "'"):
        return Node(_plain(text, origin, secret), origin)
    try:
        tree = compose(text, str(origin), secret=secret)
    except InputError as error:
        error.todo = "quote the whole for the shell, for example: --set 'a.b=[x, y]'"
        error.where = str(origin)
        raise
    return _Reader(origin.source, origin.layer, lines=False).node(tree, secret=secret)


def compose(text: str, source: str, *, secret: bool = False) -> Any:
    """PyYAML's node tree of a text, scalars unread. secret: no message quotes the text."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, source, secret) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, text.find(chr(error.character))) + 1
        raise InputError(
            f"a control character (U+{error.character:04X}) has no place in YAML.",
            where=f"{source}:{line}",
            todo="remove it, or write it escaped in double quotes",
        ) from error
    except (RecursionError, UnicodeEncodeError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else "not valid Unicode"
        raise InputError(f"the text is {what}.", where=source) from error


def _syntax(error: yaml.MarkedYAMLError, text: str, source: str, secret: bool) -> InputError:
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    if mark and error.context_mark and not "".join(lines[mark.line :]).strip():
        mark = error.context_mark  # the end of the text says nothing, what was left open does
    line = mark.line + 1 if mark else 0
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    where = f"{source}:{line}"
    problem = f"{error.problem or error.context}"
    if "\t" in shown[: len(shown) - len(shown.lstrip())] or "'\\t'" in problem:
        return InputError(
            "a tab stands where YAML allows only spaces.", where=where, todo="indent with spaces"
        )
    if "another document" in problem:
        return InputError(
            "a second YAML document begins here, a file holds one.",
            where=where,
            todo="remove the line ---, or make two files of it",
        )
    hidden = secret or any(word in shown.lower() for word in SECRETS)
    found = f": {shown.strip()[:80]!r}" if shown.strip() and not hidden else ""
    return InputError(
        f"not valid YAML ({problem}){found}.",
        where=where,
        todo="check quotes, brackets, indentation and the space after each colon",
    )


def _plain(text: str, origin: Origin, secret: bool) -> Any:
    try:
        return read_plain(text)
    except Surprise as surprise:
        if secret:
            return text
        raise InputError(
            f"the unquoted value {text[:80]} {surprise}.",
            where=str(origin),
            todo=surprise.advice[:160],
        ) from surprise


@dataclass
class _Reader:
    """Turns PyYAML's nodes into ours. lines: whether their line numbers mean anything."""

    source: str
    layer: int
    lines: bool = True
    seen: set[int] = field(default_factory=set)

    def _origin(self, tree: Any) -> Origin:
        line = tree.start_mark.line + 1 if self.lines else 0
        return Origin(self.source, line, self.layer)

    def node(self, tree: Any, *, secret: bool, depth: int = 0, flags: bool = False) -> Node:
        """One value. secret: no message shows it; flags: "a_b" and "a-b" are one key in it."""
        origin = self._origin(tree)
        if id(tree) in self.seen:
            raise InputError(
                "an alias (*name) is not supported here.",
                where=str(origin),
                todo="write the value out in each place instead of &name",
            )
        self.seen.add(id(tree))
        if not tree.tag.startswith("tag:yaml.org,2002:"):
            raise InputError(
                f"the YAML tag {tree.tag[:40]} is not supported here.",
                where=str(origin),
                todo="write a plain value",
            )
        if depth > _DEEPEST:
            raise InputError("the text is nested too deeply.", where=str(origin))
        if isinstance(tree, yaml.MappingNode):
            return self._map(tree, origin, secret, depth, flags)
        if isinstance(tree, yaml.SequenceNode):
            children = [self.node(c, secret=secret, depth=depth + 1) for c in tree.value]
            return Node(children, origin)
        if tree.style:  # quoted or a block: text, whatever it looks like
            return Node(tree.value, origin)
        return Node(_plain(tree.value, origin, secret), origin)

    def _map(self, tree: Any, origin: Origin, secret: bool, depth: int, flags: bool) -> Node:
        made = Node({}, origin)
        spelled: dict[str, str] = {}
        for key_tree, child in tree.value:
            where = self._origin(key_tree)
            if not isinstance(key_tree, yaml.ScalarNode):
                raise InputError("a key must be a plain word.", where=str(where))
            key = key_tree.value
            if key == "<<":
                raise InputError(
                    "merge keys (<<) are not supported here.",
                    where=str(where),
                    todo="write the settings out; layers merge maps by themselves",
                )
            other = spelled.setdefault(key.replace("_", "-") if flags else key, key)
            if other in made.value:
                line = made.key_origins[other].line
                also = f", as {other!r}" if other != key else ""
                raise InputError(
                    f"the key {key!r} stands twice{also}"
                    + (f", first on line {line}." if line else "."),
                    where=str(where),
                    todo="keep one of the two",
                )
            made.value[key] = self.node(
                child, secret=secret or key in SECRETS, depth=depth + 1, flags=key == "args"
            )
            made.key_origins[key] = where
        return made
