"""A tree of settings in which every value remembers the file and line it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator, Optional, Union


@dataclass(frozen=True)
class Origin:
    """Where a value came from. layer orders the sources: a higher one wins."""

    source: str
    line: int = 0
    layer: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass
class Node:
    """A value and its origin. value: a scalar, a list of nodes or a map of nodes.

    whole: this map replaces the one of a lower layer, where maps otherwise merge. Of a whole file,
    notes: what in it has no effect, each with its place; name: what it calls its environment.
    """

    value: Any
    origin: Origin
    key_origins: dict[str, Origin] = field(default_factory=dict)
    whole: bool = False
    notes: tuple[str, ...] = ()
    name: Optional[str] = None

    def plain(self) -> Any:
        """The value as ordinary Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def find(self, path: tuple[Union[str, int], ...]) -> Optional[Node]:
        """The node at a path, None when there is none."""
        node = self
        for step in path:
            child = node.child(step)
            if child is None:
                return None
            node = child
        return node

    def child(self, step: Union[str, int]) -> Optional[Node]:
        """The value of a key or the item of an index, None when there is none."""
        if isinstance(self.value, dict):
            found = self.value.get(step)
        elif isinstance(self.value, list) and isinstance(step, int) and step < len(self.value):
            found = self.value[step]
        else:
            return None
        return found if isinstance(found, Node) else None

    def at(self, path: tuple[Union[str, int], ...]) -> Node:
        """The node at a path, or the deepest one that exists on the way there."""
        node = self
        for step in path:
            child = node.child(step)
            if child is None:
                break
            node = child
        return node

    def leaves(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Every scalar, list and empty map, with the path of keys that leads to it."""
        if isinstance(self.value, dict) and self.value:
            for key, child in self.value.items():
                yield from child.leaves((*path, key))
        else:
            yield path, self
