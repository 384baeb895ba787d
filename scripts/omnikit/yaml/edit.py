"""Changes of YAML text that leave every other character as it is, comments too.

Who uses it reads the new text again and compares: what cannot be written in a place of its own
(a value that is empty, a key on the line of a list's dash) is refused here with NotEditable.
"""

from __future__ import annotations

from typing import Any, Sequence, Union

import yaml

from omnikit.yaml.strict_yaml import compose

Path = Sequence[Union[str, int]]


class NotEditable(ValueError):
    """The text has no place for this change."""


def flow(value: Any) -> str:
    """A value on one line, in YAML's short form.

    >>> flow({"hosts": ["p2"], "out": True})
    '{hosts: [p2], out: true}'
    """
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def put(text: str, path: Path, value: Any) -> str:
    """A new key at a path of keys, with the maps above it where they are missing."""
    node, known = compose(text, "text"), 0
    for step in path[:-1]:
        child = _child(node, step)
        if child is None:
            break
        node, known = child, known + 1
    if not isinstance(node, yaml.MappingNode):
        raise NotEditable(f"{_shown(path[:known])} is no map")
    if _child(node, path[known]) is not None:
        raise NotEditable(f"{_shown(path)} is there already")
    keys = [str(step) for step in path[known:]]
    if node.flow_style:
        for key in reversed(keys[1:]):
            value = {key: value}
        return _into_flow(text, node, f"{flow(keys[0])}: {flow(value)}")
    lines, column = [], node.start_mark.column
    for key in keys:
        lines.append(f"{' ' * column}{flow(key)}:")
        column += 2
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        lines += [f"{' ' * column}- {flow(one)}" for one in value]
    else:
        lines[-1] += f" {flow(value)}"
    return _below(text, node, lines)


def append(text: str, path: Path, value: Any) -> str:
    """One more item at the end of the list at a path."""
    node = _at(text, path)
    if not isinstance(node, yaml.SequenceNode):
        raise NotEditable(f"{_shown(path)} is no list")
    if node.flow_style:
        return _into_flow(text, node, flow(value))
    return _below(text, node, [f"{' ' * node.start_mark.column}- {flow(value)}"])


def remove(text: str, path: Path) -> str:
    """Without the key, or the item of a list, at a path; what is above it keeps another one."""
    parent = _at(text, path[:-1])
    if isinstance(parent, yaml.MappingNode):
        spans = [(key.start_mark, value) for key, value in parent.value]
        at = next((i for i, (k, _) in enumerate(parent.value) if k.value == path[-1]), None)
    else:
        spans = [(item.start_mark, item) for item in parent.value]
        at = path[-1] if isinstance(path[-1], int) else None
    if at is None or at >= len(spans) or len(spans) < 2:
        raise NotEditable(f"{_shown(path)} cannot be taken out")
    begin, end = _index(text, spans[at][0]), _end(text, spans[at][1])
    if parent.flow_style:  # with the comma before it, or behind the first
        if at:
            begin = _end(text, spans[at - 1][1])
        else:
            end = _index(text, spans[1][0])
        return text[:begin] + text[end:]
    start = text.rfind("\n", 0, begin) + 1
    if text[start:begin].strip(" -" if isinstance(parent, yaml.SequenceNode) else " "):
        raise NotEditable(f"{_shown(path)} is not alone on its lines")
    return text[:start] + text[_next_line(text, end) :]


def _at(text: str, path: Path) -> Any:
    node = compose(text, "text")
    for step in path:
        node = _child(node, step)
        if node is None:
            raise NotEditable(f"there is no {_shown(path)}")
    return node


def _child(node: Any, step: Union[str, int]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _shown(path: Path) -> str:
    return ".".join(map(str, path)) or "the whole"


def _index(text: str, mark: Any) -> int:
    """Where a mark is; its own index counts bytes with some parsers."""
    at = 0
    for _ in range(mark.line):
        at = text.index("\n", at) + 1
    return at + int(mark.column)


def _end(text: str, node: Any) -> int:
    """Behind the last character of a value; of a block it is that of its last value."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    at = _index(text, node.end_mark)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        at = len(text[:at].rstrip("\r\n "))
    return at


def _next_line(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _below(text: str, node: Any, lines: Sequence[str]) -> str:
    """Lines behind the one that a block ends on."""
    at, newline = _next_line(text, _end(text, node)), "\r\n" if "\r\n" in text else "\n"
    before = text[:at] if text[:at].endswith("\n") else text[:at] + newline
    return before + "".join(line + newline for line in lines) + text[at:]


def _into_flow(text: str, node: Any, words: str) -> str:
    """Words behind the last of a list or map in its short form."""
    if not node.value:
        at = _index(text, node.start_mark) + 1
        return text[:at] + words + text[at:]
    last = node.value[-1]
    at = _end(text, last[1] if isinstance(last, tuple) else last)
    return f"{text[:at]}, {words}{text[at:]}"
