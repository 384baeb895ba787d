"""Jinja expressions in the variables of an Ansible inventory, evaluated when they are needed."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Iterator, Mapping, Optional

from jinja2 import StrictUndefined, Undefined, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.yaml.node import Node

_WHOLE = re.compile(r"\s*\{\{[-+]?(?P<inner>.*?)[-+]?\}\}\s*", re.DOTALL)


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    made.filters["split"] = str.split
    return made


_ENVIRONMENT = _environment()


class Variables:
    """A host's merged variables. magic: those that Ansible itself adds (hostvars, groups, …).

    read: ids of the nodes that were looked at, of all hosts that share it.
    """

    def __init__(
        self,
        host: str,
        values: Mapping[str, Node],
        magic: Mapping[str, Any],
        read: Optional[set[int]] = None,
    ) -> None:
        self._host = host
        self._values = values
        self._magic = {"inventory_hostname": host, **magic}
        self._known: dict[str, Any] = {}
        self._under_way: list[str] = []
        self._read: set[int] = set() if read is None else read

    def __contains__(self, name: str) -> bool:
        node = self._values.get(name)
        return node is not None and node.value not in (None, "")

    def names(self) -> list[str]:
        """Every variable of the host."""
        return list(self._values)

    def was_read(self, node: Node) -> bool:
        """Whether somebody has looked at a variable, or at another one that refers to it."""
        return id(node) in self._read

    def written(self, name: str) -> Node:
        """A variable as it was written, without looking at it."""
        return self._values[name]

    def raw(self, name: str) -> Node:
        """A variable as it was written."""
        self._read.add(id(self._values[name]))
        return self._values[name]

    def node(self, name: str) -> Node:
        """The evaluated value of a variable that is there, with the line that says it."""
        found = self.raw(name)
        if isinstance(found.value, Hidden):
            return Node(Hidden(str(self._plain(found, secret=True))), found.origin)
        if isinstance(found.value, list):  # for messages about a list where none belongs
            return found
        return Node(self.value(name), found.origin)

    def value(self, name: str) -> Any:
        """The evaluated value of a variable that is there, as plain data."""
        if name not in self._known:
            found = self.raw(name)
            if name in self._under_way:
                circle = " -> ".join([*self._under_way[self._under_way.index(name) :], name])
                raise InputError(
                    f"the variables of {self._host} refer to each other in a circle: {circle}.",
                    where=str(found.origin),
                    todo="give one of them a value of its own",
                )
            self._under_way.append(name)
            try:
                self._known[name] = self._plain(found)
            finally:
                self._under_way.pop()
        return self._known[name]

    def _plain(self, node: Node, secret: bool = False) -> Any:
        if isinstance(node.value, dict):
            return {key: self._plain(child) for key, child in node.value.items()}
        if isinstance(node.value, list):
            return [self._plain(child) for child in node.value]
        value = node.value
        if isinstance(value, Hidden):
            value = value.reveal() if secret else value
        if isinstance(value, str) and any(opening in value for opening in ("{{", "{%", "{#")):
            return self._evaluate(value, node, secret)
        return value

    def _evaluate(self, text: str, node: Node, secret: bool) -> Any:
        missing: list[str] = []
        try:
            tree = _ENVIRONMENT.parse(text)
            context = dict(self._magic)
            for name in sorted(meta.find_undeclared_variables(tree)):
                if name in self._values:
                    context[name] = self._context_value(name, secret)
                elif name not in context:
                    missing.append(name)
            return _result(text, tree, context)
        except UndefinedError as error:
            raise self._undefined(node, text, missing, error, secret) from error
        except InputError:
            raise  # of a variable that this one names
        except Exception as error:  # whatever a filter raises: the expression is a user's
            said = "" if secret else f" {text!r}: {error}"
            raise InputError(
                f"cannot evaluate this expression for {self._host}"
                + (f":{said.rstrip('.')}." if said else "."),
                where=str(node.origin),
                todo="text becomes a number with | int; Ansible's lookups and filters of"
                " collections are not known here, write the value instead",
            ) from error

    def _context_value(self, name: str, secret: bool) -> Any:
        found = self.raw(name)
        if secret and isinstance(found.value, Hidden):
            return self._plain(found, secret=True)
        return self.value(name)

    def _undefined(
        self, node: Node, text: str, missing: list[str], error: UndefinedError, secret: bool
    ) -> InputError:
        problem = f"{error.message}".rstrip(".")
        near: list[str] = []
        if missing:
            problem = f"the variable {missing[0]!r} is undefined for {self._host}"
            near = get_close_matches(missing[0], list(self._values), n=1)
        shown = "" if secret else f" in {text!r}"
        return InputError(
            f"{problem}{shown}" + (f", is it {near[0]!r}?" if near else "."),
            where=str(node.origin),
            todo="set it under vars: of the group or of all, in this file (files in group_vars/"
            " and host_vars/ are not read)",
        )


class HostVariables(Mapping[str, Any]):
    """hostvars['d0'] of an expression: another host's variables, evaluated when asked for."""

    def __init__(self, of: Variables) -> None:
        self._of = of

    def __getitem__(self, name: str) -> Any:
        if name not in self._of.names():
            raise KeyError(name)
        return self._of.value(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of.names())

    def __len__(self) -> int:
        return len(self._of.names())


def _result(text: str, tree: nodes.Template, context: Mapping[str, Any]) -> Any:
    """One expression keeps the type of its value, anything else becomes text."""
    whole = _WHOLE.fullmatch(text)
    output = tree.body[0] if len(tree.body) == 1 else None
    if whole and isinstance(output, nodes.Output):
        inner = [n for n in output.nodes if not _is_blank(n)]
        if len(inner) == 1 and not isinstance(inner[0], nodes.TemplateData):
            expression = _ENVIRONMENT.compile_expression(whole["inner"], undefined_to_none=False)
            value = expression(**context)
            if isinstance(value, Undefined):
                value = str(value)  # StrictUndefined raises here
            return value
    return _ENVIRONMENT.from_string(text).render(**context)


def _is_blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) and not node.data.strip()
