"""Hosts and instances that come and go, written into the files that name them.

Comments and all else in these files stay. What cannot be written without a doubt is refused, with
the lines to write by hand.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.base.writing import write_atomically
from omnikit.config import config as config_config
from omnikit.config import layers
from omnikit.config.config import Config
from omnikit.foreign import format
from omnikit.yaml import edit
from omnikit.yaml.strict_yaml import parse, read_text

_NOTHING: Mapping[Path, str] = MappingProxyType({})
_BOM = "\ufeff"


@dataclass(frozen=True)
class Place:
    """What a command line chose: the environment, site files, and settings for this run."""

    environment: Optional[str]
    files: Sequence[str] = ()
    assignments: Sequence[str] = ()

    def load(self, texts: Mapping[Path, str] = _NOTHING) -> Config:
        """The configuration, as it is or with these texts of files. Raises InputError."""
        environment, own = self.environment, self.own_file()
        if own in texts:
            environment = str(own)
        return config_config.load(environment, self.files, self.assignments, texts=texts)

    def file(self) -> Path:
        """The environment's file, which is read."""
        return config_config.file_of(self.environment, self.files).absolute()

    def own_file(self) -> Path:
        """The file that takes changes: one that the toolkit ships is left as it is."""
        file = self.file()
        given = self.environment or os.environ.get("OMNIKIT_ENVIRONMENT") or "local"
        here = file.parent == layers.PROJECT / "configs" / "environments"
        if not here or layers.is_path(given):
            return file
        words = ["git", "-C", str(file.parent), "ls-files", "--error-unmatch", file.name]
        try:
            shipped = run.run(words, check=False).code == 0
        except InputError:  # without git, nothing of it is pulled either
            shipped = False
        return layers.own_file(file.stem).absolute() if shipped else file


@dataclass(frozen=True)
class Change:
    """New texts of files. before: what they have; None: the file is new."""

    texts: Mapping[Path, str]
    before: Mapping[Path, Optional[str]]

    def diff(self) -> str:
        """What differs, as diff -u shows it."""
        made = []
        for path, text in self.texts.items():
            old, name = self.before[path], layers.shown_path(path)
            was = "/dev/null" if old is None else name
            lines = difflib.unified_diff(
                (old or "").splitlines(), text.splitlines(), was, name, lineterm=""
            )
            made += list(lines)
        return "\n".join(made)

    def write(self) -> list[str]:
        """Write the files, each whole; the names of those. Raises InputError."""
        for path, text in self.texts.items():
            if raw(path) != self.before[path]:
                raise InputError(
                    "somebody else changed this file meanwhile; it was left as it is.",
                    where=layers.shown_path(path),
                    todo="run this command again",
                )
            real = Path(os.path.realpath(path))
            try:
                real.parent.mkdir(parents=True, exist_ok=True)
                had = real.stat() if real.exists() else None
                write_atomically(real, text, 0o644)
                if had is not None:
                    real.chmod(had.st_mode & 0o7777)
                    if os.geteuid() == 0:
                        os.chown(real, had.st_uid, had.st_gid)
            except OSError as error:
                raise InputError(
                    f"cannot be written: {error.strerror}.", where=layers.shown_path(path)
                ) from error
        return [layers.shown_path(path) for path in self.texts]


def make(
    place: Place,
    config: Config,
    hosts: Mapping[str, Mapping[str, Any]],
    topology: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Change:
    """The change of files after which there are these hosts besides, and these instances by role.

    Of an instance its hosts may differ, and whether it is out; new ones stand behind the others.
    Raises InputError, with what to write, where no file can be changed so.
    """
    lists = {
        role: [dict(entry) for entry in entries]
        for role, entries in topology.items()
        if list(entries) != instances(config, role)
    }
    new = {name: dict(host) for name, host in hosts.items() if name not in config.settings.hosts}
    if not lists and not new:
        return Change({}, {})
    _refuse_foreign(place, config, new, lists)
    texts: dict[Path, str] = {}
    before: dict[Path, Optional[str]] = {}
    try:
        for role, entries in lists.items():
            path = _file_of_list(place, config, role)
            text = texts.get(path) or _begun(path, place, before)
            texts[path] = _with_list(path, text, config, role, entries, new)
            new = {}  # they stand where their instance stands
        made = place.load(texts)
        if any(instances(made, role) != entries for role, entries in lists.items()):
            raise edit.NotEditable("a higher layer says otherwise")
    except edit.NotEditable as error:
        wanted = {**({"hosts": dict(hosts)} if hosts else {}), "topology": dict(lists)}
        raise InputError(
            f"this file cannot be changed safely: {error}. Nothing was changed.",
            where=layers.shown_path(place.own_file()),
            todo="see to it that it says so, then run this again:\n  " + _lines(wanted),
        ) from error
    return Change(texts, before)


def instances(config: Config, role: str) -> list[dict[str, Any]]:
    """The instances of a role as they stand in the files."""
    node = config.tree.find(("topology", role))
    return list(node.plain()) if node is not None else []


def raw(path: Path) -> Optional[str]:
    """The text of a file with all its signs; None: there is none."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None


def _begun(path: Path, place: Place, before: dict[Path, Optional[str]]) -> str:
    """The text of a file that is going to be changed; of a new one, what it begins with."""
    before[path] = raw(path)
    text = before[path]
    if text is None:
        name = place.file().stem
        return f"# {name} as changed by invoke add-host and remove-host.\nbased_on: {name}\n"
    read_text(path)  # says what is wrong with it in words
    return text


def _file_of_list(place: Place, config: Config, role: str) -> Path:
    node = config.tree.find(("topology", role))
    origin = config.origin("topology", role) if node is None else node.origin
    if origin.layer > layers.SITE:
        raise InputError(
            f"topology.{role} is set for this run only; it has to stand in a file.",
            where=str(origin),
            todo="write it into the environment's file, and run this without it",
        )
    if origin.layer == layers.SITE:
        return (layers.PROJECT / origin.source).absolute()  # one that is absolute stays so
    return place.own_file()


def _with_list(
    path: Path,
    text: str,
    config: Config,
    role: str,
    entries: Sequence[dict[str, Any]],
    hosts: Mapping[str, Mapping[str, Any]],
) -> str:
    """The text of a file with these instances of a role, and these hosts. Raises NotEditable."""
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    wanted = copy.deepcopy(parse(text, str(path)).plain())
    for part, values in (("hosts", hosts), ("topology", {role: list(entries)})):
        if values:
            wanted[part] = {**(wanted.get(part) or {}), **values}
    for name, host in hosts.items():
        text = edit.put(text, ("hosts", name), dict(host))
    own = parse(text, str(path)).find(("topology", role))
    text = (
        edit.put(text, ("topology", role), list(entries))
        if own is None  # the list of the file that this one is based on, written out
        else _changed(text, ("topology", role), own.plain(), entries)
    )
    if parse(text, str(path)).plain() != wanted:
        raise edit.NotEditable("what was written would be read as something else")
    return bom + text


def _changed(
    text: str, path: tuple[str, str], old: Sequence[Any], new: Sequence[dict[str, Any]]
) -> str:
    for index, (was, now) in enumerate(zip(old, new)):
        here = (*path, index)
        if was.get("out", False) != now.get("out", False):
            if "out" in was:
                text = edit.remove(text, (*here, "out"))
            if "out" in now:
                text = edit.put(text, (*here, "out"), now["out"])
        for at in reversed(range(len(was["hosts"]))):
            if was["hosts"][at] not in now["hosts"]:
                text = edit.remove(text, (*here, "hosts", at))
        for name in now["hosts"]:
            if name not in was["hosts"]:
                text = edit.append(text, (*here, "hosts"), name)
    for entry in new[len(old) :]:
        text = edit.append(text, path, entry)
    return text


def _lines(wanted: Mapping[str, Any]) -> str:
    made = []
    for part, values in wanted.items():
        made.append(f"{part}:")
        for name, value in values.items():
            made.append(f"  {name}: {edit.flow(value)}")
    return "\n  ".join(made)


def _refuse_foreign(
    place: Place, config: Config, hosts: Mapping[str, Any], lists: Mapping[str, Any]
) -> None:
    """Raise InputError, with the lines of it, where the environment is another tool's file."""
    file = place.file()
    text = read_text(file, layers.shown_path(file))
    kind = format.recognise(text)
    if kind is None:
        return
    todo = []
    for role, entries in lists.items():
        old = instances(config, role)
        gone = [was for was, now in zip(old, entries) if now.get("out") and not was.get("out")]
        for name in (name for entry in gone for name in entry["hosts"]):
            line, block = _block(config, text, name)
            todo += [f"take out, at line {line}:", *block]
        alike = next((name for entry in old for name in entry["hosts"]), "")
        for name in (name for entry in entries[len(old) :] for name in entry["hosts"]):
            line, block = _block(config, text, alike)
            host = config.settings.hosts.get(name)
            address = host.address if host else str(hosts[name]["address"])
            words = {alike: name, config.settings.hosts[alike].address: address}
            todo += [f"add, like {alike} at line {line}, with numbers of its own:"]
            todo += [_renamed(one, words) for one in block]
    raise InputError(
        f"this is a file of another tool ({kind}), which is not changed here. Nothing was changed.",
        where=layers.shown_path(file),
        todo="change it by hand, then run this again, which goes on from there:\n  "
        + "\n  ".join(todo),
    )


def _renamed(line: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        line = re.sub(rf"(?<![\w.]){re.escape(old)}(?![\w.])", new, line)
    return line


def _block(config: Config, text: str, host: str) -> tuple[int, list[str]]:
    """Where a host stands in a file, and its lines: those below belong to it by indentation."""
    lines = text.splitlines()
    at = max(0, config.origin("hosts", host).line - 1)
    while at and host not in lines[at]:
        at -= 1
    depth = len(lines[at]) - len(lines[at].lstrip())
    made = [lines[at]]
    for one in lines[at + 1 :]:
        if not one.strip() or len(one) - len(one.lstrip()) <= depth:
            break
        made.append(one)
    return at + 1, [one[depth:] for one in made]
