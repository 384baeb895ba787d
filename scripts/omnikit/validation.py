"""A tree of settings against the schema: typed values, or every mistake with its place."""

from __future__ import annotations

import unicodedata
from difflib import get_close_matches
from typing import Any, Iterator, Optional, Sequence, Union

from pydantic import BaseModel, ValidationError

from omnikit.errors import InputError, ManyErrors, ToolkitError
from omnikit.given import PREFIX
from omnikit.layers import VARIABLES
from omnikit.located import Node
from omnikit.setting_types import IN_WORDS
from omnikit.strict_yaml import SECRETS

Steps = tuple[Union[str, int], ...]

# More mistakes than a person reads at once.
_SHOWN = 20
# What pydantic calls a mistake, and how we say it.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "list_type": "a list",
    "too_short": "at least one entry",
    "string_too_short": "some text",
}
# What the renderer puts the interface of the default route in for; no text of a user's.
_RESERVED = "${host."


def validate(model: type[BaseModel], tree: Node, prefix: str = "") -> Any:
    """A typed model of a tree. Raises one InputError for all mistakes, each with its place."""
    try:
        return model.model_validate(tree.plain())
    except ValidationError as error:
        grouped: dict[Steps, list[dict[str, Any]]] = {}
        for item in error.errors(include_url=False):
            grouped.setdefault(_real_path(tree, item["loc"]), []).append(dict(item))
    errors: list[ToolkitError] = [
        _explain(model, tree, path, items, prefix) for path, items in grouped.items()
    ]
    if len(errors) == 1:
        raise errors[0]
    if len(errors) > _SHOWN:
        rest = len(errors) - _SHOWN
        errors = [*errors[:_SHOWN], InputError(f"and {rest} more mistakes.")]
    raise ManyErrors(errors)


def check_text(tree: Node) -> None:
    """Refuse text that no command line, variable or file can carry. Raises InputError."""
    for path, text, node in _texts(tree, ()):
        shown = ".".join(str(step) for step in path)
        bad = next((c for c in text if c == "\0" or unicodedata.category(c) == "Cs"), None)
        if bad is not None:
            raise InputError(
                f"{shown}: the character U+{ord(bad):04X} has no place in a setting.",
                where=str(node.origin),
                todo="remove it",
            )
        if _RESERVED in text:
            raise InputError(
                f"{shown}: found {_RESERVED}…}}, which is no reference.",
                where=str(node.origin),
                todo="in server settings, ${plan.interface} is the host's network interface",
            )


def _texts(node: Node, path: Steps) -> Iterator[tuple[Steps, str, Node]]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield (*path, ascii(key)), key, node
            yield from _texts(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _texts(child, (*path, index))
    elif isinstance(node.value, str):
        yield path, node.value, node


def _explain(
    model: type[BaseModel], tree: Node, path: Steps, items: list[dict[str, Any]], prefix: str
) -> InputError:
    shown = ".".join(str(step) for step in ([prefix] if prefix else []) + list(path))
    node = tree.at(path)
    kinds = {item["type"] for item in items}
    if "extra_forbidden" in kinds:
        return _unknown(model, tree, path, shown)
    if "missing" in kinds:
        example = {"address": "10.0.0.1", "hosts": "[p0]"}.get(str(path[-1]), "…")
        return InputError(
            f"{shown} is missing.", where=str(node.origin), todo=f"add: {path[-1]}: {example}"
        )
    wanted = [_wanted(item) for item in items]
    if any(item["loc"][-1:] == ("[key]",) for item in items):
        parent = tree.at(path[:-1])
        where = parent.key_origins.get(str(path[-1]), node.origin)
        return InputError(
            f"{'.'.join(map(str, path[:-1]))}: the name {str(path[-1])!r} is malformed,"
            f" expected {wanted[0]}.",
            where=str(where),
        )
    label = "" if str(node.origin) == f"--set {shown}" else f"{shown}: "
    secret = any(step in SECRETS for step in path)
    found = "" if secret else f"found {_short(node.value)}, "
    return InputError(
        f"{label}{found}expected {' or '.join(dict.fromkeys(wanted))}.",
        where=str(node.origin),
        todo=_todo(kinds, node, shown),
    )


def _todo(kinds: set[str], node: Node, shown: str) -> Optional[str]:
    if node.value is None:
        return "give a value, or remove the key so that the default holds"
    if kinds == {"string_type"} and isinstance(node.value, (int, float)):
        return f'quote it: "{node.plain()}"'
    if "list_type" in kinds and isinstance(node.value, dict):
        return f"a list is given whole, for example: {shown}: [a, b]"
    if kinds & {"int_type", "float_type"} and isinstance(node.value, str):
        return "write digits without quotes and without a unit"
    return None


def _unknown(model: type[BaseModel], tree: Node, path: Steps, shown: str) -> InputError:
    parent = tree.at(path[:-1])
    where = parent.key_origins.get(str(path[-1]), parent.origin)
    above = list(path[:-1])
    near = get_close_matches(str(path[-1]), _keys(_model_at(model, path[:-1])), n=1, cutoff=0.6)
    names = [".".join(str(step) for step in [*above, key]) for key in near] or _elsewhere(
        model, str(path[-1])
    )
    if where.layer == VARIABLES:
        words = where.source[len(PREFIX) :].split("__")
        rest = words[len(path) :] if near else []
        names = [PREFIX + "__".join([*n.upper().split("."), *rest]) for n in names]
    question = f", is it {' or '.join(names)}?" if names else "."
    return InputError(
        f"unknown setting {shown}{question}",
        where=str(where),
        todo="configs/defaults.yaml lists every setting",
    )


def _elsewhere(model: type[BaseModel], key: str) -> list[str]:
    """Settings of the same name in other sections: the writer may have missed the level."""
    found = []
    for section in _keys(model):
        if key.replace("-", "_") in _keys(_model_at(model, (section,))):
            found.append(f"{section}.{key.replace('-', '_')}")
    return found[:3]


def _wanted(item: dict[str, Any]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return IN_WORDS[context["pattern"]]
    if kind == "value_error":
        return str(item["msg"]).replace("Value error, ", "")
    if kind == "literal_error":
        return f"{context['expected']}".replace("'", "")
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return _range(kind, context)
    return _EXPECTED.get(kind) or str(item["msg"]).lower()


def _range(kind: str, context: dict[str, Any]) -> str:
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    key = next(key for key in words if key in context)
    return f"{words[key]} {context[key]:g}" if key else kind


def _short(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _real_path(tree: Node, loc: Sequence[Union[str, int]]) -> Steps:
    """pydantic's loc without the steps that are not ours ("[key]")."""
    path: list[Union[str, int]] = []
    node: Optional[Node] = tree
    for i, step in enumerate(loc):
        child = node.child(step) if node is not None else None
        if child is not None or (i == len(loc) - 1 and step != "[key]"):
            path.append(step)
            node = child
    return tuple(path)


def _keys(model: Any) -> list[str]:
    return list(getattr(model, "model_fields", {}))


def _model_at(model: Any, path: Steps) -> Any:
    """The annotation at a path: through fields, maps and lists."""
    for step in path:
        model = _plain_type(model)
        fields = getattr(model, "model_fields", None)
        arguments = getattr(model, "__args__", ())
        if fields is not None:
            model = fields[step].annotation if step in fields else None
        else:
            model = arguments[-1] if arguments else None
    return _plain_type(model)


def _plain_type(annotation: Any) -> Any:
    """Without Optional and Annotated."""
    while annotation is not None and not hasattr(annotation, "model_fields"):
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
            continue
        arguments = getattr(annotation, "__args__", ())
        if type(None) in arguments:
            annotation = next(a for a in arguments if a is not type(None))
            continue
        break
    return annotation
