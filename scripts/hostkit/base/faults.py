"""What a program's words mean when it failed: why, and what to do about it, by a table of signs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple, Sequence

from hostkit.base.errors import ActionError

NETWORK, SPACE, REFUSED = "network", "space", "refused"


class Meaning(NamedTuple):
    """signs: a pattern, in any case. why, todo: with holes for what is known.

    final: who was asked has answered, and will not answer otherwise.
    """

    kind: str
    signs: str
    why: str
    todo: str
    final: bool = False


@dataclass(frozen=True)
class Fault:
    """kind: network (worth another attempt), space, refused. source: what was asked, as it may be
    shown. said: the program's last words.
    """

    kind: str
    source: str
    why: str
    todo: str
    said: str = ""
    final: bool = False

    def line(self) -> str:
        """In one line."""
        return f"{self.source}: {self.why}"

    def error(self, wanted: str) -> ActionError:
        """The error for a person, who wanted something that was asked for as the source."""
        at = "" if self.source == wanted else f" (asked for as {self.source})"
        return ActionError(f"{wanted}{at}: {self.why}.\n{self.said}", todo=self.todo)


def read(
    said: str,
    source: str,
    table: Sequence[Meaning],
    known: Mapping[str, Any],
    shown: str,
) -> Fault:
    """The first meaning with a sign in what was said: the last of a table needs none.

    known: what fills the holes. shown: of what was said, what a person gets to see.
    """
    one = next(row for row in table if re.search(row.signs, said, re.IGNORECASE))
    why, todo = one.why.format(**known), one.todo.format(**known)
    return Fault(one.kind, source, why, todo, shown, one.final)
