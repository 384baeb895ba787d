"""The merged, checked configuration, what is set for one run, and where values came from."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

from pydantic import BaseModel, ValidationError

from hostkit.base.errors import InputError, ManyErrors, ToolkitError
from hostkit.base.log import some
from hostkit.base.redact import Hidden, is_secret
from hostkit.files import regular
from omnikit.config import layers
from omnikit.config.layers import VARIABLES, as_released
from omnikit.config.schema import ROLES, Secret, Server, Settings
from omnikit.yaml.node import Node, Origin
from omnikit.yaml.setting_types import IN_WORDS
from omnikit.yaml.strict_yaml import HINTS, parse_value

# Settings given for one run: --set options and OMNIKIT_ variables, as layers.

PREFIX = "OMNIKIT_"
# Variables of ours that are no settings.
NOT_SETTINGS = ("OMNIKIT_ENVIRONMENT", "OMNIKIT_LANGUAGE", "OMNIKIT_CI", layers.SITE_FOLDER)

_EXAMPLE = "for example: --set server.args.max-model-len=8192"
# The network of configs/environments: RFC 5737 keeps it free for documentation.
FOR_DOCUMENTATION = "192.0.2."


def option_layer(assignments: Sequence[str]) -> Node:
    """The layer of --set section.key=value; a later one wins. Raises InputError."""
    made = Node({}, Origin("--set", 0, layers.OPTIONS))
    for text in assignments:
        key, equals, value = text.partition("=")
        steps = layers.dotted(key)
        if not equals or not steps:
            hidden = any(word in text.lower() for word in HINTS)
            found = "" if hidden else f"found {text[:80]!r}, "
            raise InputError(f"{found}expected section.key=value.", where="--set", todo=_EXAMPLE)
        made = layers.merge(made, _nested(steps, value, Origin(f"--set {key}", 0, layers.OPTIONS)))
    return made


def variable_layer(environ: Mapping[str, str], known: Node) -> Node:
    """The layer of OMNIKIT_SECTION__KEY variables; __ separates the levels.

    known: the layers below, whose spelling of a key (upper or lower case) is taken; environment
    variables of the servers keep the case that they are given in.
    """
    made = Node({}, Origin("environment", 0, layers.VARIABLES))
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        origin = Origin(name, 0, layers.VARIABLES)
        words = name[len(PREFIX) :].split("__")
        if len(words) == 1 and words[0].lower() not in known.value:
            near = get_close_matches(name, NOT_SETTINGS[:1], n=1, cutoff=0.8)
            if near:
                raise InputError(f"unknown variable, is it {near[0]}?", where=name)
        made = layers.merge(made, _nested(_spelled(words, known), environ[name], origin))
    return made


def _spelled(words: Sequence[str], known: Node) -> list[str]:
    steps: list[str] = []
    for word in words:
        here = known.find(tuple(steps))
        keys = list(here.value) if here is not None and isinstance(here.value, dict) else []
        same = [key for key in keys if key.lower() == word.lower()]
        as_given = word if steps[-1:] == ["env"] else word.lower()
        steps.append(as_given if as_given in keys or not same else same[0])
    return steps


def _nested(steps: Sequence[str], text: str, origin: Origin) -> Node:
    node = parse_value(text, origin, secret=any(map(is_secret, steps)))
    for step in reversed(steps):
        node = Node({step: node}, origin, {step: origin})
    return node


# A tree of settings against the schema: typed values, or every mistake with its place.

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
# Maps whose keys are names of variables and flags.
_OPEN = {"env", "args", "build_args"}
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


def check_secrets(tree: Node) -> None:
    """Refuse secrets of servers and containers that stand in the open. Raises InputError.

    They would be in rendered files and on command lines. What a file of another tool holds is
    hidden when it is read, and handed over like a reference.
    """
    errors: list[ToolkitError] = []
    for path, _, node in _texts(tree, ()):
        named = _OPEN & set(path[:-1]) and is_secret(str(path[-1]))
        plain = isinstance(node.value, str) and node.value and not isinstance(node.value, Hidden)
        if not (named and plain) or "${plan." in node.value:
            continue
        todo = "take it out: only server.env and server.args take references to secrets"
        if "server" in path:
            todo = f"write a reference: {path[-1]}: {{file: PATH}} or {{variable: NAME}}"
        shown = ".".join(str(step) for step in path)
        text = f"{shown}: expected a reference to the secret and not the secret itself."
        errors.append(InputError(text, where=str(node.origin), todo=todo))
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors(errors)


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
    wanted = [wanted_instead(item) for item in items]
    if any(item["loc"][-1:] == ("[key]",) for item in items):
        parent = tree.at(path[:-1])
        where = parent.key_origins.get(str(path[-1]), node.origin)
        return InputError(
            f"{'.'.join(map(str, path[:-1]))}: the name {str(path[-1])!r} is malformed,"
            f" expected {wanted[0]}.",
            where=str(where),
        )
    label = "" if str(node.origin) == f"--set {shown}" else f"{shown}: "
    secret = _model_at(model, path) is Secret or any(is_secret(str(step)) for step in path)
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


def wanted_instead(item: Mapping[str, Any]) -> str:
    """What a setting was expected to be, after one of pydantic's errors."""
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


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Config:
    """settings: typed values. tree: the same with origins. environment: its name.

    notes: what stands in files of other tools and has no effect here, each with its place.
    shipped: what engine, release and model say on their own, without what users say on top.
    """

    environment: str
    settings: Settings
    tree: Node
    defaults: Node
    notes: tuple[str, ...] = ()
    shipped: Optional[Node] = None

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
        merged = self._server_tree(self.tree, role, index, host, profiled)
        server: Server = validate(Server, merged, "server")
        return server, merged

    def shipped_server(self, role: str, index: int) -> Optional[Node]:
        """Server settings of an instance as engine, release and model have them, with origins."""
        if self.shipped is None:
            return None
        return self._server_tree(self.shipped, role, index, "", False)

    def _server_tree(self, tree: Node, role: str, index: int, host: str, profiled: bool) -> Node:
        general = ("roles", "disaggregated") if role != "colocated" else ()
        ray = ("ray",) if self.on_ray(role, index) else ()
        places = [general, ("roles", role), ray, ("topology", role, index), ("hosts", host)]
        places.append(("profiling",) if profiled else ())
        found = [tree.find((*place, "server")) if place else None for place in places]
        own = [part for part in found if part is not None and part.value is not None]
        return layers.most_specific([tree.value["server"], *own])

    def on_ray(self, role: str, index: int) -> bool:
        """Whether an instance spans several hosts in a way that needs Ray."""
        entry = getattr(self.settings.topology, role)[index]
        whole = self.servers_are(role, index) == "instance"
        return role == "prefill" and whole and len(entry.hosts) > 1

    def servers_are(self, role: str, index: int) -> str:
        """What the API servers of an instance are: instance, ranks or replicas."""
        entry = getattr(self.settings.topology, role)[index]
        return str(entry.servers or getattr(self.settings.roles, role).servers)

    def refuse_examples(self) -> None:
        """Raise InputError, with the way to real ones, where hosts have addresses of an example.

        For who is about to go there: ssh would say that there is no route. Hosts that have nothing
        to do (left over from based_on) do not count.
        """
        hosts, given = self.settings.hosts, self.settings.topology
        used = {name for role in ROLES for one in getattr(given, role) for name in one.hosts}
        found = {
            f"{name} ({host.address})": str(self.origin("hosts", name, "address"))
            for name, host in hosts.items()
            if name in (used | {given.proxy} if used else hosts)
            and not host.local
            and host.address.startswith(FOR_DOCUMENTATION)
        }
        if found:
            places = list(dict.fromkeys(found.values()))
            raise InputError(
                f"{some(list(found), 4)}: addresses for documentation, which no machine has. This"
                " environment is an example.",
                where=places[0],
                todo="have one made for your hosts: invoke init --hosts ADDRESS,ADDRESS,…; or write"
                f" their addresses in {some(places, 4)}",
            )

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
    tree: Optional[Node] = None,
    texts: Mapping[Path, str] = MappingProxyType({}),
) -> Config:
    """Read all layers, merge and check them.

    tree: the settings of the environment, in place of its file. texts: what files are going to
    have, in place of what they have.
    environment: a name in configs/environments, or a path; None: $OMNIKIT_ENVIRONMENT, or the
    first of the files that another tool's users brought (see omnikit.foreign.format), or local.
    Raises InputError that names file:line, variable or option for every mistake found.
    """
    variables = os.environ if environ is None else environ
    chosen, where, brought, sites = _chosen_files(environment, files, variables)
    defaults = layers.defaults()
    if tree is None:
        path = brought or layers.environment_file(chosen, where)
        tree = layers.read_file(path, layers.ENVIRONMENT, texts=texts)
    trees = [tree]
    name = _name(trees[0].name or chosen, where)
    sites = [*layers.local_files(), *sites]
    trees += [layers.read_file(path, layers.SITE, texts=texts) for path in sites]
    notes = tuple(dict.fromkeys(note for tree in trees for note in tree.notes))
    trees.append(variable_layer(variables, layers.merged([defaults, *trees])))
    trees.append(option_layer(assignments))
    between, trees = as_released(layers.chosen_files([defaults, *trees]), trees)
    merged = layers.merged([defaults, *between, *trees])
    settings: Settings = validate(Settings, merged)
    check_text(merged)
    check_secrets(merged)
    settings = _for_hardware(settings, merged)
    return Config(name, settings, merged, defaults, notes, layers.merged([defaults, *between]))


def _for_hardware(settings: Settings, tree: Node) -> Settings:
    """The image that the engine's release names, for the hardware; a user's own is left alone."""
    container = settings.container
    ours = tree.at(("container", "image")).origin.layer <= layers.VERSION
    if not (container.image and container.image_suffix and ours):
        return settings
    image = f"{container.image}{container.image_suffix}"
    return settings.model_copy(update={"container": container.model_copy(update={"image": image})})


def own(
    environment: Optional[str], files: Sequence[str], assignments: Sequence[str]
) -> tuple[Node, Node]:
    """What users say, as load() reads it: in the environment's file, and all that goes on top."""
    chosen, where, brought, sites = _chosen_files(environment, files, os.environ)
    tree = layers.read_file(brought or layers.environment_file(chosen, where), layers.ENVIRONMENT)
    above = [layers.read_file(path, layers.SITE) for path in [*layers.local_files(), *sites]]
    known = layers.merged([layers.defaults(), tree, *above])
    above += [variable_layer(os.environ, known), option_layer(assignments)]
    return tree, layers.merged(above)


def load_merged(path: Path) -> Config:
    """A file that holds a whole merged configuration, and nothing on top of it."""
    defaults = layers.defaults()
    merged = layers.merged([defaults, layers.read_file(path, layers.ENVIRONMENT)])
    settings: Settings = validate(Settings, merged)
    return Config(_name(path.name, str(path)), settings, merged, defaults)


def file_of(environment: Optional[str], files: Sequence[str] = ()) -> Path:
    """The file of the environment that load() reads. Raises InputError."""
    chosen, where, brought, _ = _chosen_files(environment, files, os.environ)
    return brought or layers.environment_file(chosen, where)


def _chosen_files(
    environment: Optional[str], files: Sequence[str], variables: Mapping[str, str]
) -> tuple[str, str, Optional[Path], list[Path]]:
    """What was chosen and by what, another tool's file that is the environment, and site files."""
    chosen, where = _chosen(environment, variables)
    sites = [Path(file).expanduser() for file in files]
    brought = None if chosen else next(filter(layers.is_foreign, sites), None)
    if brought is not None:  # such a file is a whole environment
        sites.remove(brought)
        chosen, where = str(brought), "--config"
    return chosen or "local", where, brought, sites


def _chosen(environment: Optional[str], variables: Mapping[str, str]) -> tuple[str, str]:
    """The environment that was asked for, if any, and by what."""
    if environment or not variables.get("OMNIKIT_ENVIRONMENT"):
        return environment or "", "--environment"
    return variables["OMNIKIT_ENVIRONMENT"], "OMNIKIT_ENVIRONMENT"


def _name(chosen: str, where: str) -> str:
    """The environment's name: folders and rendered files carry it."""
    name = Path(chosen).name
    for ending in (".yaml", ".yml", ".json", ".local"):
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
        return regular.text(path).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"the secret in {path} is not UTF-8 text.", where=where) from error
    except OSError as error:
        raise InputError(
            f"cannot read the secret in {path}: {error.strerror}.", where=where
        ) from error
