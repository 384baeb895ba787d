"""The layers of the configuration, lowest first, and how they merge."""

from __future__ import annotations

import os
import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.foreign import format, recipe
from omnikit.yaml.node import Node, Origin
from omnikit.yaml.strict_yaml import parse, read_text

PROJECT = Path(__file__).resolve().parents[3]
SITE_FOLDER = "OMNIKIT_SITE"  # a variable

# A step of a dotted name; quotes keep the dots of a host's name together.
_STEP = re.compile(r'"([^"]+)"|([^."]+)')

DEFAULTS, ENGINE, VERSION, HARDWARE, MODEL, ENVIRONMENT, SITE, VARIABLES, OPTIONS = range(9)
# profile.<word> chooses the file of a layer.
_CHOSEN = (
    (ENGINE, "engine", "engines"),
    (VERSION, "omni_version", "versions"),
    (HARDWARE, "hardware", "hardware"),
    (MODEL, "model", "models"),
)


def merge(low: Node, high: Node, *, flags: bool = False) -> Node:
    """Two trees as one. Maps merge, everything else of the higher tree replaces.

    Below an args map, "block_size" and "block-size" are one key; the first spelling stays.
    """
    if high.whole or not (isinstance(low.value, dict) and isinstance(high.value, dict)):
        return high
    made = Node(dict(low.value), high.origin, dict(low.key_origins))
    spelled: dict[str, str] = {same_flag(key): key for key in low.value} if flags else {}
    for key, child in high.value.items():
        here = str(spelled.get(same_flag(key), key))
        below = made.value.get(here)
        made.value[here] = child if below is None else merge(below, child, flags=key == "args")
        made.key_origins[here] = high.key_origins.get(key, child.origin)
    return made


def same_flag(key: str) -> str:
    """A flag's name in the one spelling by which it is compared."""
    return key.replace("_", "-")


def dotted(key: str) -> list[str]:
    """The steps of section."a.b".key; empty when malformed."""
    steps: list[str] = []
    rest = key.strip()
    while rest:
        match = _STEP.match(rest)
        if not match or rest[match.end() : match.end() + 1] not in ("", "."):
            return []
        steps.append(match[1] or match[2])
        if match.end() == len(rest) - 1:  # a dot at the end
            return []
        rest = rest[match.end() + 1 :]
    return steps


def most_specific(parts: Sequence[Optional[Node]], *, flags: bool = False) -> Node:
    """Merge trees of rising specificity: the higher layer wins, then the more specific tree."""
    present = [part for part in parts if part is not None]
    if not all(isinstance(part.value, dict) for part in present):
        best = present[0]
        for part in present[1:]:
            if part.origin.layer >= best.origin.layer:
                best = part
        return best
    made = Node({}, present[-1].origin)
    spelled: dict[str, str] = {}
    groups: dict[str, list[Optional[Node]]] = {}
    for part in present:
        for key, child in part.value.items():
            same = same_flag(key) if flags else key
            spelled.setdefault(same, key)
            groups.setdefault(same, []).append(child)
    for same, children in groups.items():
        made.value[spelled[same]] = most_specific(children, flags=same == "args")
    return made


def shown_path(path: Path) -> str:
    """A path as a person would write it: relative to the project where it lies inside."""
    try:
        return str(path.resolve().relative_to(PROJECT))
    except (ValueError, OSError, RuntimeError):  # RuntimeError: a loop of symlinks
        return str(path)


def read_file(
    path: Path,
    layer: int,
    seen: tuple[Path, ...] = (),
    texts: Mapping[Path, str] = MappingProxyType({}),
) -> Node:
    """One configuration file as a tree, merged over the file that its based_on names, if any.

    texts: what files are going to have, in place of what they have.

    A file of omni_cli or an Ansible inventory for omni-infer is read as the settings that it means.
    """
    name = shown_path(path)
    text = texts.get(path.absolute()) or read_text(path, name)
    if format.recognise(text) == recipe.KIND:
        raise InputError(
            f"this is a {recipe.KIND}, which names no machines.",
            where=name,
            todo=f"make an environment of it: invoke import-config {shlex.quote(name)}"
            " --hosts 10.0.0.1,10.0.0.2",
        )
    if format.recognise(text):
        made = format.read_settings(text, name, layer)
        if format.recognise(text) == format.INVENTORY:
            made.notes += tuple(_beside(path))
        return made
    tree = parse(text, name, layer)
    base = tree.value.pop("based_on", None)
    if base is None:
        return tree
    where = str(base.origin)
    if not isinstance(base.value, str) or Path(base.value).name != base.value:
        raise InputError(
            "based_on: expected the name of a file beside this one, without folder and ending.",
            where=where,
            todo="for example: based_on: 2p1d",
        )
    below = path.with_name(f"{base.value}.yaml")
    if not os.path.isfile(below):  # noqa: PTH113
        below = layer_file("environments", base.value, where)
    if below.resolve() in (*seen, path.resolve()):
        raise InputError(
            "based_on: the files are based on each other.", where=where, todo="end the circle"
        )
    return merge(read_file(below, layer, (*seen, path.resolve()), texts), tree)


def _beside(path: Path) -> Iterator[str]:
    """Notes for what Ansible would read besides an inventory."""
    for folder in ("group_vars", "host_vars"):
        if path.with_name(folder).is_dir():
            yield (
                f"{shown_path(path.with_name(folder))}: not used: variables are read from the"
                " inventory itself; a file of omni-infer's variables may be given besides:"
                " --config FILE"
            )


def is_foreign(path: Path) -> bool:
    """Whether a file is one of another tool's, which describes a whole environment."""
    return format.recognise(read_text(path, shown_path(path))) in format.WHOLE


def resolve_path(text: str, local: bool) -> str:
    """A configured path as the host sees it: on this machine, relative means below the project."""
    path = Path(text).expanduser() if local else Path(text)
    return str(path if path.is_absolute() else PROJECT / path)


def control_folder(environment: str) -> Path:
    """Where the control host keeps what concerns an environment."""
    return (site() or PROJECT / "build") / "control" / environment


def environment_file(name: str, where: str) -> Path:
    """configs/environments/<name>.yaml, or the path that was given. Raises InputError."""
    if is_path(name):
        return Path(name).expanduser()
    own = own_file(name.removesuffix(".local"))  # site.local is what its file is called
    return own if own.is_file() else layer_file("environments", name, where)


def is_path(name: str) -> bool:
    """Whether an environment is chosen by its file and not by name."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def own_file(name: str) -> Path:
    """Where a user's changes of a shipped environment stand, on top of it (based_on: NAME)."""
    return (site() or PROJECT / "configs") / "environments" / f"{name}.local.yaml"


def layer_file(folder: str, name: str, where: str) -> Path:
    """configs/<folder>/<name>.yaml. Raises InputError that lists what there is."""
    path = PROJECT / "configs" / folder / f"{name}.yaml"
    if "/" not in name and os.path.isfile(path):  # noqa: PTH113 (false, where Path raises)
        return path
    known = sorted(p.stem for p in (PROJECT / "configs" / folder).glob("*.yaml"))
    near = get_close_matches(name, known, n=1)
    own = "give the path of a .yaml file" if folder == "environments" else "add its file"
    raise InputError(
        f"there is no {folder[:-1]} named {name!r}" + (f", is it {near[0]!r}?" if near else "."),
        where=where,
        todo=f"choose one of {', '.join(known)}; or {own}"
        + ("" if folder == "environments" else f": configs/{folder}/NAME.local.yaml"),
    )


def site() -> Optional[Path]:
    """The folder of OMNIKIT_SITE, which has a user's own settings and records instead of the clone.

    Several users of one clone keep apart so, and tests see nothing of what was done in theirs.
    """
    given = os.environ.get(SITE_FOLDER)
    if not given:
        return None
    folder = Path(given).expanduser().absolute()
    if not folder.is_dir():
        todo = f"make it: mkdir {shlex.quote(str(folder))}"
        raise InputError(f"there is no folder {folder}.", where=SITE_FOLDER, todo=todo)
    return folder


def local_files() -> list[Path]:
    """A site's own settings: every *.local.yaml directly in its folder (configs/), by name."""
    return sorted((site() or PROJECT / "configs").glob("*.local.yaml"))


def defaults() -> Node:
    """configs/defaults.yaml, where every setting stands."""
    return read_file(PROJECT / "configs" / "defaults.yaml", DEFAULTS)


def merged(trees: Sequence[Node]) -> Node:
    """All trees as one, lowest first."""
    made = trees[0]
    for tree in trees[1:]:
        made = merge(made, tree)
    return made


def chosen_files(trees: Sequence[Node]) -> list[Node]:
    """The files that profile names, each able to name the next; hardware may be none."""
    made: list[Node] = []
    for layer, key, folder in _CHOSEN:
        name, where = "", f"profile.{key}"
        for tree in [trees[0], *made, *trees[1:]]:
            node = tree.find(("profile", key))
            if node is not None and isinstance(node.value, str):
                name, where = node.value, f"{node.origin}"
        if name or key != "hardware":
            made.append(read_file(layer_file(folder, name, where), layer))
    return made


# What a release of an engine changed in settings that others wrote: new names, and what is gone.
# A model's file, and the user's, are written once and hold for several releases; a version's file
# says what its release calls otherwise (release.renamed) and has no use for (release.without).


def as_released(chosen: Sequence[Node], given: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The files of engine, version and model, and the user's layers, as the release has them.

    Variables get their new names everywhere; what the release has no use for is left out of the
    model's file alone: what a user asks for stays. Raises InputError.
    """
    known = Node({}, Origin("", 0, ENGINE))
    for tree in [*chosen, *given]:
        known = merge(known, tree)
    renamed = _map(known, "renamed")
    made = [_renamed(tree, renamed) for tree in chosen]
    for path in _paths(known):
        made[-1] = _without(made[-1], path)  # the model's is the highest
    return made, [_renamed(tree, renamed) for tree in given]


def _map(known: Node, name: str) -> dict[str, str]:
    node = known.find(("release", name))
    plain = node.plain() if node is not None else None
    return plain if isinstance(plain, dict) else {}  # else the schema says what is wrong


def _paths(known: Node) -> list[list[str]]:
    node = known.find(("release", "without"))
    made = []
    for child in node.value if node is not None and isinstance(node.value, list) else []:
        steps = dotted(str(child.value))
        if not steps:
            raise InputError(
                f"release.without: found {str(child.value)[:80]!r}, expected section.key.",
                where=str(child.origin),
                todo="for example: roles.decode.server.args.max-num-seqs",
            )
        made.append(steps)
    return made


def _renamed(tree: Node, names: Mapping[str, str]) -> Node:
    """A tree whose variables (all maps called env) have their new names."""
    if not names or not isinstance(tree.value, (dict, list)):
        return tree
    if isinstance(tree.value, list):  # of instances, which may have settings of their own
        return Node([_renamed(child, names) for child in tree.value], tree.origin)
    value: dict[str, Any] = {}
    for key, child in tree.value.items():
        if key == "env" and isinstance(child.value, dict):
            value[key] = _with_names(child, names)
        else:
            value[key] = _renamed(child, names)
    return Node(value, tree.origin, dict(tree.key_origins), tree.whole, tree.notes, tree.name)


def _with_names(env: Node, names: Mapping[str, str]) -> Node:
    made = Node({}, env.origin, {}, env.whole)
    for key, child in env.value.items():
        name = names.get(key, key)
        if name != key and name in env.value:
            continue  # the new name says it already
        made.value[name] = child
        made.key_origins[name] = env.key_origins.get(key, child.origin)
    return made


def _without(tree: Node, path: Sequence[str]) -> Node:
    """A tree without the setting at a path; flags in either spelling."""
    if not isinstance(tree.value, dict):
        return tree
    value = dict(tree.value)
    for key in tree.value:
        if same_flag(key) != same_flag(path[0]):
            continue
        if len(path) == 1:
            del value[key]
        else:
            value[key] = _without(value[key], path[1:])
    return Node(value, tree.origin, dict(tree.key_origins), tree.whole, tree.notes, tree.name)
