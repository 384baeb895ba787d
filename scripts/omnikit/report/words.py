"""The words of a report in English, as they stand in the code, and in Chinese, from a catalogue."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from hostkit.base.errors import ToolkitError
from omnikit.config.layers import shown_path
from omnikit.front.chinese import catalogue

# What a report could not find out, as notes: forms with holes, so that every language has them.

Note = Mapping[str, Any]
# What damaged data raises, wherever it is looked into.
_WRONG = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError),
    *(StopIteration, ToolkitError),
)


def add(notes: list[Note], form: str, **holes: str) -> None:
    """Note something. form: see words."""
    notes.append({"form": form, "holes": holes})


def said(note: Note, t: Words) -> str:
    """A note in words."""
    return t(note["form"], **note["holes"])


@contextmanager
def left_out(notes: list[Note], path: Path) -> Iterator[None]:
    """What is inside reads a file; where that is damaged it is left out, with a note."""
    try:
        yield
    except _WRONG as error:
        damaged(notes, path, _fault(error))


def damaged(notes: list[Note], path: Path, fault: str) -> None:
    """Note that a file, or a part of it, was left out."""
    form = "{file} is damaged and was left out: {fault}."
    add(notes, form, file=shown_path(path), fault=fault.rstrip("."))


def _fault(error: BaseException) -> str:
    if isinstance(error, ToolkitError):
        return error.what
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def away(
    notes: list[Note], nodes: Sequence[Mapping[str, Any]], addresses: Mapping[str, str]
) -> None:
    """Note the hosts that could not be reached: those with the same reason together."""
    groups: dict[str, dict[str, str]] = {}
    for node in nodes:
        if node["state"] == "unreachable":
            host = str(node["host"])
            reason = str(node["reason"]).removeprefix(f"host {host}: ")
            alike = reason.replace(addresses.get(host) or host, "*").replace(host, "*")
            groups.setdefault(alike, {})[host] = reason
    for hosts in groups.values():
        names = list(hosts)
        if len(names) == 1:
            add(notes, "host {host}: {reason}", host=names[0], reason=hosts[names[0]])
        else:
            form = "{number} hosts cannot be reached: {hosts}. {host}: {reason}"
            first = {"host": names[0], "reason": hosts[names[0]]}
            add(notes, form, number=str(len(names)), hosts=", ".join(names), **first)


class Words:
    """The words of a language: called with English, it says the same, with holes filled."""

    def __init__(self, language: str) -> None:
        self.chinese = language == "zh"

    def __call__(self, english: str, **holes: Any) -> str:
        """A form in this language. Holes for a state are filled in it too."""
        form = catalogue()[english] if self.chinese else english
        return form.format(**{k: self._hole(k, v) for k, v in holes.items()}) if holes else form

    def _hole(self, name: str, value: Any) -> Any:
        return self.known(value) if name in ("result", "state") else value

    def known(self, name: Any) -> str:
        """A name of another module's; one that is not in the catalogue stays as it is."""
        return catalogue().get(str(name), str(name)) if self.chinese else str(name)
