"""YAML text to a tree of nodes, more strictly than YAML: what could surprise is refused."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import yaml

from hostkit.base.errors import InputError
from hostkit.base.redact import is_secret
from hostkit.files import regular
from omnikit.yaml.node import Node, Origin

# What a plain (unquoted) word of a configuration means: text, number, true, false or nothing.

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?")
# More digits are an identifier, not a quantity; Python refuses to read thousands of them.
_DIGITS = 18
# Spellings that both YAML 1.1 and 1.2 agree on.
_WORDS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
# Plain words of which YAML 1.1 or 1.2 makes something that the writer rarely meant.
_SURPRISES = (
    (re.compile(r"(?i:yes|no|on|off|y|n|true|false)"), "write true or false, or quote it: '{}'"),
    (re.compile(r"[-+]?0[0-9_]+"), "drop the leading zero, or quote it: '{}'"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write the decimal number, or quote it: '{}'"),
    (re.compile(r"[-+]?[0-9][0-9_.]*_[0-9_.]*"), "drop the underscores, or quote it: '{}'"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "quote it: '{}'"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"), "quote it: '{}'"),
    (re.compile(r"(?i:[-+]?\.inf|\.nan)"), "write a number, or quote it: '{}'"),
)


class Surprise(ValueError):
    """A word that different readers read differently. advice: what to write instead."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


def read_plain(text: str) -> Any:
    """The value of a plain word. Raises Surprise."""
    if text in _NULLS:
        return None
    if text in _WORDS:
        return _WORDS[text]
    for pattern, advice in _SURPRISES:
        if pattern.fullmatch(text):
            raise Surprise("means different things to different YAML readers", advice.format(text))
    if not _FLOAT.fullmatch(text):
        return text
    if len(text) > _DIGITS:
        raise Surprise("has more digits than a number can keep", "quote it if it is text")
    if _INT.fullmatch(text):
        return int(text)
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Surprise("is larger than any number", "quote it if it is text")
    return number


def reads_as_text(text: str) -> bool:
    """Whether a plain word would be read as just this text."""
    try:
        return isinstance(read_plain(text), str)
    except Surprise:
        return False


# The C parser is ten times faster; PyYAML built without it still works.
_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

# Words of a line that may hold a secret: no message quotes it.
HINTS = ("pass", "secret", "token", "credential", "key", "auth", "cookie", "pwd")
# A settings file is a few kilobytes; this keeps a device or a model file from being read whole.
_LARGEST = 16 * 1024 * 1024
_DEEPEST = 60
_TOO_DEEP = "the text is nested too deeply"


class _Loader(_Base):  # type: ignore[misc]
    """Refuses what is nested too deeply while it is read: PyYAML's C code takes the C stack for
    each level, and has no bound.
    """

    depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = current_node.start_mark
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


def read_text(path: Path, name: Optional[str] = None) -> str:
    """A UTF-8 text file. Raises InputError when missing, unreadable, huge or not UTF-8."""
    shown = name or str(path)
    try:
        data = regular.data(path, _LARGEST)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read the file: {why}.",
            where=shown,
            todo="check that it is a file and that you may read it: ls -ld " + shlex.quote(shown),
        ) from error
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
    except UnicodeEncodeError as error:
        raise InputError("the text is not valid Unicode.", where=source) from error


def _syntax(error: yaml.MarkedYAMLError, text: str, source: str, secret: bool) -> InputError:
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    if mark and error.context_mark and not "".join(lines[mark.line :]).strip():
        mark = error.context_mark  # the end of the text says nothing, what was left open does
    line = mark.line + 1 if mark else 0
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    where = f"{source}:{line}"
    problem = f"{error.problem or error.context}"
    if problem == _TOO_DEEP:
        return InputError(f"{problem}.", where=where, todo=f"at most {_DEEPEST} levels are read")
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
    hidden = secret or any(word in shown.lower() for word in HINTS)
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

    def node(self, tree: Any, *, secret: bool, flags: bool = False) -> Node:
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
        if isinstance(tree, yaml.MappingNode):
            return self._map(tree, origin, secret, flags)
        if isinstance(tree, yaml.SequenceNode):
            children = [self.node(c, secret=secret) for c in tree.value]
            return Node(children, origin)
        if tree.style:  # quoted or a block: text, whatever it looks like
            return Node(tree.value, origin)
        return Node(_plain(tree.value, origin, secret), origin)

    def _map(self, tree: Any, origin: Origin, secret: bool, flags: bool) -> Node:
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
            made.value[key] = self.node(child, secret=secret or is_secret(key), flags=key == "args")
            made.key_origins[key] = where
        return made
