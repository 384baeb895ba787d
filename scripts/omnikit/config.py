"""The merged, checked configuration, and where each value of it came from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence, Union

from omnikit import given, layers
from omnikit.errors import InputError
from omnikit.located import Node, Origin
from omnikit.schema import Secret, Server, Settings
from omnikit.validation import check_text, validate

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Config:
    """settings: typed values. tree: the same with origins. environment: its name."""

    environment: str
    settings: Settings
    tree: Node
    defaults: Node

    def origin(self, *path: Union[str, int]) -> Origin:
        """Where the value at a path came from."""
        return self.tree.at(path).origin

    def error(self, what: str, *path: Union[str, int], todo: Optional[str] = None) -> InputError:
        """An input error that points at a setting."""
        shown = ".".join(str(step) for step in path)
        return InputError(f"{shown}: {what}", where=str(self.origin(*path)), todo=todo)

    def server_for(
        self, role: str, index: int, host: str, profiled: bool = False
    ) -> tuple[Server, Node]:
        """Server settings of one instance on one host, typed and with origins.

        Within a layer: general < disaggregated < role < ray < instance < host < profiling.
        """
        general = ("roles", "disaggregated") if role != "colocated" else ()
        ray = ("ray",) if self.on_ray(role, index) else ()
        places = [general, ("roles", role), ray, ("topology", role, index), ("hosts", host)]
        places.append(("profiling",) if profiled else ())
        found = [self.tree.find((*place, "server")) if place else None for place in places]
        own = [part for part in found if part is not None and part.value is not None]
        merged = layers.most_specific([self.tree.value["server"], *own])
        server: Server = validate(Server, merged, "server")
        return server, merged

    def on_ray(self, role: str, index: int) -> bool:
        """Whether an instance spans several hosts in a way that needs Ray."""
        entry = getattr(self.settings.topology, role)[index]
        return role == "prefill" and len(entry.hosts) > 1

    def changed(self) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Values that differ from configs/defaults.yaml, with their paths."""
        for path, node in self.tree.leaves():
            default = self.defaults.find(path)
            if default is None or default.plain() != node.plain():
                yield path, node


def load(
    environment: Optional[str] = None,
    files: Sequence[str] = (),
    assignments: Sequence[str] = (),
    environ: Optional[Mapping[str, str]] = None,
) -> Config:
    """Read all layers, merge and check them.

    environment: a name in configs/environments, or a path; None: $OMNIKIT_ENVIRONMENT, or the
    first of the files that another tool's users brought (see foreign_format), or local.
    Raises InputError that names file:line, variable or option for every mistake found.
    """
    variables = os.environ if environ is None else environ
    chosen, where = _chosen(environment, variables)
    sites = [Path(file).expanduser() for file in files]
    brought = None if chosen else next(filter(layers.is_foreign, sites), None)
    if brought is not None:  # such a file is a whole environment
        sites.remove(brought)
        chosen, where = str(brought), "--config"
    chosen = chosen or "local"
    path = brought or layers.environment_file(chosen, where)
    defaults = layers.defaults()
    trees = [layers.read_file(path, layers.ENVIRONMENT)]
    name = _name(chosen, where)
    sites = [*layers.local_files(), *sites]
    trees += [layers.read_file(path, layers.SITE) for path in sites]
    trees.append(given.variable_layer(variables, layers.merged([defaults, *trees])))
    trees.append(given.option_layer(assignments))
    between = layers.chosen_files([defaults, *trees])
    merged = layers.merged([defaults, *between, *trees])
    settings: Settings = validate(Settings, merged)
    check_text(merged)
    return Config(name, settings, merged, defaults)


def load_merged(path: Path) -> Config:
    """A file that holds a whole merged configuration, and nothing on top of it."""
    defaults = layers.defaults()
    merged = layers.merged([defaults, layers.read_file(path, layers.ENVIRONMENT)])
    settings: Settings = validate(Settings, merged)
    return Config(_name(path.name, str(path)), settings, merged, defaults)


def _chosen(environment: Optional[str], variables: Mapping[str, str]) -> tuple[str, str]:
    """The environment that was asked for, if any, and by what."""
    if environment or not variables.get("OMNIKIT_ENVIRONMENT"):
        return environment or "", "--environment"
    return variables["OMNIKIT_ENVIRONMENT"], "OMNIKIT_ENVIRONMENT"


def _name(chosen: str, where: str) -> str:
    """The environment's name: folders and rendered files carry it."""
    name = Path(chosen).name
    for ending in (".yaml", ".yml", ".local"):
        name = name[: -len(ending)] if name.endswith(ending) else name
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of an environment.",
            where=where,
            todo="rename the file: letters, digits, and . _ - after the first, 63 at most",
        )
    return name


def read_secret(secret: Secret, where: str) -> str:
    """The text that a secret's reference points at, without a line end. Never log it."""
    if secret.literal is not None:
        return secret.literal.reveal()
    if secret.variable is not None:
        value = os.environ.get(secret.variable)
        if value is None:
            raise InputError(
                f"the variable {secret.variable} that holds a secret is not set.", where=where
            )
        return value
    path = Path(str(secret.file)).expanduser()
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"the secret in {path} is not UTF-8 text.", where=where) from error
    except OSError as error:
        raise InputError(
            f"cannot read the secret in {path}: {error.strerror}.", where=where
        ) from error
