"""The environment that invoke init proposes: asked for, looked at, reckoned, written as a file."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import InputError
from hostkit.base.log import give, say, some
from omnikit.config import layers
from omnikit.config.change import Change, Place, raw
from omnikit.config.config import FOR_DOCUMENTATION, Config, load
from omnikit.plan.types import Plan
from omnikit.propose import look, sizing
from omnikit.propose.look import Facts, Fault
from omnikit.propose.sizing import Group, Layout, Machine, Refused, Role, Size
from omnikit.topology.checks import nearest
from omnikit.topology.topology import make_plan
from omnikit.versions import image
from omnikit.yaml import edit
from omnikit.yaml.setting_types import parse_devices
from omnikit.yaml.strict_yaml import compose, parse

CPU = "cpu"
Hosts = dict[str, dict[str, Any]]  # entries of an environment, by name
_RANGE = re.compile(r"(\d+\.\d+\.\d+\.)(\d+)-(\d+)")
_ROLES = ("prefill", "decode", "colocated")


@dataclass(frozen=True)
class Wish:
    """What the command line says; None or empty: to be found out, or asked for.

    login: of all hosts, as an environment has it (user, private_key, port, jump, python).
    """

    environment: str
    hosts: Sequence[str] = ()
    login: Mapping[str, Any] = field(default_factory=dict)
    model: Optional[str] = None
    engine: Optional[str] = None
    release: Optional[str] = None
    yes: bool = False


@dataclass(frozen=True)
class Proposal:
    """The file's text, what it means, and what a person should know."""

    text: str
    config: Config
    plan: Plan
    said: list[str]


def file_of(name: str) -> Path:
    """Where an environment of this name, or path, stands."""
    if layers.is_path(name):
        return Path(name).expanduser().absolute()
    return layers.own_file(name.removesuffix(".local")).absolute()


def _name(path: Path) -> str:
    return path.name.removesuffix(".yaml").removesuffix(".local")


def run(wish: Wish) -> int:
    """Propose; write a new file, or show what differs. Raises InputError before anything is."""
    path = file_of(wish.environment)
    wish, hosts = complete(wish, path)
    there = raw(path)
    made = propose(wish, hosts, path, there)
    print("\n".join(made.said))
    wanted, shown = Change({path: made.text}, {path: there}), layers.shown_path(path)
    if there not in (None, made.text):
        give(wanted.diff())
        if not wish.yes:
            print(f"{shown}: left as it is. To write this: the same command with --yes")
            return 0
    if there != made.text:
        wanted.write()
    print(f"{shown}: {'unchanged' if there == made.text else 'written'}")
    chosen = str(path) if layers.is_path(wish.environment) else _name(path)
    steps = ["plan", *([] if made.plan.local else ["check-env"]), "deploy"]
    print("next: " + "; ".join(f"invoke {step} --environment {chosen}" for step in steps))
    return 0


def only_hosts(wish: Wish) -> str:
    """An environment that has hosts and nothing else, for their keys. Raises InputError."""
    hosts = _hosts(list(wish.hosts), {}, wish.login)
    if not hosts:
        raise InputError("whose keys?", where="--setup-keys", todo="say --hosts ADDRESS,ADDRESS,…")
    return edit.flow({"profile": {"model": "any"}, "hosts": hosts}) + "\n"


# What is asked.


def complete(wish: Wish, path: Path) -> tuple[Wish, Hosts]:
    """The wish without holes, and the hosts by name: from the file that is there, else asked."""
    known: Hosts = {}
    if path.exists():
        config = load(str(path))
        if not wish.hosts:
            config.refuse_examples()
        profile = config.settings.profile
        known = dict(config.tree.value["hosts"].plain())
        same = not wish.model or wish.model == profile.model
        wish = replace(
            wish,
            model=wish.model or profile.model,
            engine=wish.engine or (profile.engine if same else None),
            release=wish.release or (profile.omni_version if same else None),
        )
    words = list(wish.hosts)
    if not words and not known and wish.engine != CPU and wish.model != "tiny-qwen2":
        words = cli.ask(
            "Addresses of the hosts (10.0.0.1,10.0.0.2 or 10.0.0.1-4; nothing: this machine, CPU)",
            "--hosts 10.0.0.1,10.0.0.2 (or --engine cpu for this machine)",
            "",
        ).split(",")
    words = [word for word in words if word]
    local = not words and all(host.get("connection") == "local" for host in known.values())
    if not wish.model and (local or wish.engine == CPU):
        wish = replace(wish, model="tiny-qwen2")
    if not wish.model:
        question = f"Model, one of {', '.join(models())}"
        wish = replace(wish, model=cli.ask(question, "--model NAME", "deepseek-r1-w8a8"))
    _known("model", str(wish.model), models())
    sized = _draft(str(wish.model), None, None, {}).settings.sizing
    engine = wish.engine or sized.engine or "ascend"
    _known("engine", engine, _names("engines"))
    release = wish.release or (sized.release if engine == sized.engine else _newest(engine))
    _known("release", str(release), _names("versions"))
    wish = replace(wish, engine=engine, release=release)
    if engine == CPU and not local:
        raise InputError(
            "the engine cpu is for this machine.",
            where="--hosts",
            todo="leave --hosts out, or name another engine: --engine vllm-ascend",
        )
    if engine != CPU and not (words or known):
        raise InputError(
            f"the engine {engine} needs hosts.",
            where="--engine",
            todo="--hosts ADDRESS,ADDRESS,…; or for this machine: --engine cpu --model tiny-qwen2",
        )
    if (engine == CPU) != (sized.engine == CPU):
        raise InputError(
            f"the settings of {wish.model} are for {sized.engine}, not for {engine}.",
            where="--model",
            todo=f"leave --engine out, or: --engine {sized.engine}",
        )
    return wish, _hosts(words, known, wish.login)


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = nearest(name, list(names))
        raise InputError(
            f"there is no {what} {name!r}" + (f", is it {near!r}?" if near else "."),
            where=f"--{what}",
            todo=f"one of {', '.join(names)}",
        )


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in (layers.PROJECT / "configs" / folder).glob("*.yaml"))


def models() -> list[str]:
    """All that can be proposed."""
    return [name for name in _names("models") if name != "any"]


def _newest(engine: str) -> Optional[str]:
    """The last release of an engine that is known; none of one without."""
    dated = []
    for name in _names("versions"):
        release = _draft("any", engine, name, {}).settings.release
        if release.engine == engine and release.date:
            dated.append((str(release.date), name))
    return max(dated)[1] if dated else "none"


def _hosts(
    words: Sequence[str], known: Mapping[str, dict[str, Any]], login: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Entries of hosts by name. words: NAME=ADDRESS, ADDRESS or 10.0.0.1-4; none: those known."""
    login = {key: value for key, value in login.items() if value is not None}
    if not words:
        return {name: {**entry, **login} for name, entry in known.items()}
    by_address = {entry["address"]: (name, entry) for name, entry in known.items()}
    made: dict[str, dict[str, Any]] = {}
    for word in words:
        given, _, text = word.strip().rpartition("=")
        for address in _addresses(text):
            name, entry = by_address.get(address, ("", {}))
            name = given or name or f"h{len(made)}"
            if name in made or any(one["address"] == address for one in made.values()):
                raise InputError(
                    f"{word} is given twice.", where="--hosts", todo="give each host once"
                )
            made[name] = {"user": "root", **entry, "address": address, **login}
    return made


def _addresses(text: str) -> list[str]:
    """An address, or those of a range of its last part. Raises InputError."""
    found = _RANGE.fullmatch(text)
    if found and int(found[2]) <= int(found[3]) <= 254:
        made = [f"{found[1]}{n}" for n in range(int(found[2]), int(found[3]) + 1)]
    else:
        made = [text]
    for one in made:
        try:
            ip_address(one)
        except ValueError:
            raise InputError(
                f"{text!r} is no IP address.",
                where="--hosts",
                todo="for example: --hosts 10.0.0.11,10.0.0.12; or 10.0.0.11-14; or p0=10.0.0.11",
            ) from None
        if one.startswith(FOR_DOCUMENTATION):
            raise InputError(
                f"{one} is an address for documentation, which no machine has.",
                where="--hosts",
                todo="give the addresses of your hosts",
            )
    return made


# What is there, and what is made of it.


def _profile(model: str, engine: str, release: Optional[str], hardware: str) -> dict[str, Any]:
    made = {"engine": engine, "omni_version": release}
    if engine == "vllm-ascend":  # its files differ by hardware
        made["hardware"] = hardware
    made["model"] = model
    return {key: value for key, value in made.items() if value}


def _draft(
    model: str,
    engine: Optional[str],
    release: Optional[str],
    hosts: Mapping[str, Any],
    hardware: str = "",
) -> Config:
    """Settings with hosts, and an instance of each role on the first, so that it can be asked."""
    whole: dict[str, Any] = {"profile": _profile(model, engine or "", release, hardware)}
    if hosts:
        whole["hosts"] = {name: dict(entry) for name, entry in hosts.items()}
        whole["topology"] = {role: [{"hosts": [next(iter(hosts))]}] for role in _ROLES}
    return load("init", tree=parse(edit.flow(whole), "invoke init", layers.ENVIRONMENT))


def propose(
    wish: Wish, hosts: Mapping[str, dict[str, Any]], path: Path, there: Optional[str]
) -> Proposal:
    """Look at the hosts and lay out the model on them. Raises InputError with all that is wrong."""
    if wish.engine == CPU:
        return _here(wish, path, there)
    model, engine = str(wish.model), str(wish.engine)
    config = _draft(model, engine, wish.release, hosts)
    say(f"looking at {some(list(hosts))}")
    facts, faults = look.survey(config)
    _refuse(faults, hosts)
    return lay_out(wish, hosts, facts, path, there)


def lay_out(
    wish: Wish,
    hosts: Mapping[str, dict[str, Any]],
    facts: Mapping[str, Facts],
    path: Path,
    there: Optional[str],
) -> Proposal:
    """What suits hosts of which this is known. Raises InputError where they cannot serve."""
    model, engine = str(wish.model), str(wish.engine)
    machine, hardware = _machine(hosts, facts)
    config = _draft(model, engine, wish.release, hosts, hardware)
    wish, config = _with_release(wish, config, hosts, facts, hardware)
    weights, why = _weights(config, facts)
    size = _size(config, weights, facts)
    layout = _layout(config, size, machine, list(hosts))
    if isinstance(layout, Refused):
        raise InputError(
            f"{len(hosts)} host{'s' * (len(hosts) > 1)} with {machine.devices} devices of"
            f" {machine.gib:.0f} GiB cannot serve {model}: {layout.why}.",
            where="--hosts",
            todo=_would(layout, machine, list(hosts), wish),
        )
    names = _named(layout, hosts)
    found = {names[host]: own for host, own in facts.items()}
    ports, reasons = _ports_of(path, there)
    reasons.update(_beside_random(config, machine, ports))
    made = _Text(
        *(wish, config, layout, machine, size),
        facts=found,
        hosts={names[host]: dict(entry) for host, entry in hosts.items()},
        names=names,
        hardware=hardware,
        ports=ports,
        port_reasons=reasons,
        weights=weights,
        weights_why=why if weights != config.settings.model.path else "",
        work_dir=_work_dir(config, found),
    )
    return _finish(made, path, there)


def _refuse(faults: Mapping[str, Fault], hosts: Mapping[str, dict[str, Any]]) -> None:
    """Raise one InputError that names every host that cannot serve, why, and what would help."""
    if not faults:
        return
    lines = [
        f"host {name} ({hosts[name]['address']}): {fault.what}."
        + (f"\n    {fault.todo}" if fault.todo and not fault.keys else "")
        for name, fault in faults.items()
    ]
    todo = []
    if any(fault.keys for fault in faults.values()):
        todo.append("have keys set up first (it asks for the password once): add --setup-keys")
    rest = [str(entry["address"]) for name, entry in hosts.items() if name not in faults]
    if rest:
        todo.append(f"or go on without: --hosts {','.join(rest)}")
    raise InputError(
        "nothing was written.\n  " + "\n  ".join(lines),
        where="--hosts",
        todo="; ".join(todo) or "mend this, then the same command again",
    )


def _machine(hosts: Mapping[str, Any], facts: Mapping[str, Facts]) -> tuple[Machine, str]:
    """What all hosts have alike, and what hardware that is. Raises InputError where they differ."""
    kinds: dict[tuple[int, int, str], list[str]] = {}
    for name, own in facts.items():
        chips = own["devices"]["chips"]
        gib = min(chip["hbm_total_mb"] for chip in chips) // 1024
        kinds.setdefault((len(chips), gib, _hardware(chips)), []).append(name)
    if len(kinds) > 1:
        most = max(kinds.values(), key=len)
        said = [
            f"{some(names)}: {count} devices of {gib} GiB"
            for (count, gib, _), names in kinds.items()
        ]
        raise InputError(
            f"the hosts differ: {'; '.join(said)}. Ranks have to be equal.",
            where="--hosts",
            todo="take those that are alike: --hosts "
            + ",".join(str(hosts[name]["address"]) for name in most)
            + "; if devices are missing on the others: npu-smi info -l",
        )
    (count, gib, hardware), _ = next(iter(kinds.items()))
    return Machine(count, gib), hardware


def _hardware(chips: Sequence[Mapping[str, Any]]) -> str:
    """configs/hardware's name of what npu-smi lists: A3 has two chips on a card."""
    if any("950" in chip["name"] for chip in chips):
        return "a5"
    return "a3" if any(chip["chip"] for chip in chips) else "a2"


def _with_release(
    wish: Wish,
    config: Config,
    hosts: Mapping[str, Any],
    facts: Mapping[str, Facts],
    hardware: str,
) -> tuple[Wish, Config]:
    """Another release whose image all hosts have, where none has the proposed one's."""
    there = [set((own["images"] or {}).get("names", ())) for own in facts.values()]
    everywhere = set.intersection(*there) if there else set()
    wanted = config.settings.container.image
    if wanted in set.union(*there) or not everywhere or wish.release is None:
        return wish, config
    for name in reversed(_names("versions")):
        other = _draft(str(wish.model), wish.engine, name, hosts, hardware)
        fits = other.settings.release.engine == wish.engine
        if fits and other.settings.container.image in everywhere:
            say(f"all hosts have the image of {name}, none that of {wish.release}: {name} it is")
            return replace(wish, release=name), other
    return wish, config


def _weights(config: Config, facts: Mapping[str, Facts]) -> tuple[str, str]:
    """The folder with whole weights that most hosts have, and how many; the set one if none."""
    wished = config.settings.model.path
    found = Counter(
        path
        for own in facts.values()
        for path, there in (own["weights"] or {}).items()
        if not there["problem"]
    )
    best = max(found, key=lambda path: (found[path], path == wished), default=wished)
    return best, f"found on {found[best]} of {len(facts)} hosts"


def _size(config: Config, path: str, facts: Mapping[str, Facts]) -> Size:
    """Of the model's files where a host has them, else of its configuration."""
    known = config.settings.sizing
    size = Size(
        *(known.weights_gib, known.experts_gib, known.kv_kib_per_token, known.kv_heads),
        known.reserve_gib,
        f"configs/models/{config.settings.profile.model}.yaml",
    )
    for own in facts.values():
        there = (own["weights"] or {}).get(path)
        if there and not there["problem"]:
            gib, experts = there["bytes"] / sizing.GIB, there["experts"] / sizing.GIB
            size = replace(
                size, gib=gib, experts=experts, told=f"the headers of the files in {path}"
            )
            kv, heads = sizing.kv_kib(there["config"])
            return replace(size, kv_kib=kv, kv_heads=heads) if kv else size
    return size


def roles_of(config: Config) -> dict[str, Role]:
    """The roles that the model's own file has, as their servers would be told. config: has one
    instance of each.
    """
    made = {}
    for name in _ROLES:
        nodes = [config.tree.find(("roles", part, "server")) for part in (name, "disaggregated")]
        nodes = nodes[:1] if name == "colocated" else nodes
        ours = (leaf for node in nodes if node for _, leaf in node.leaves())
        if not any(leaf.origin.layer == layers.MODEL for leaf in ours):
            continue
        server, _ = config.server_for(name, 0, next(iter(config.settings.hosts)))
        told = {layers.same_flag(key): value for key, value in server.args.items()}
        made[name] = Role(
            name,
            config.servers_are(name, 0),
            server.tensor_parallel,
            int(told.get("max-model-len") or 0),
            float(told.get("gpu-memory-utilization") or 0.9),
            bool(told.get("enable-expert-parallel")),
        )
    return made


def _layout(config: Config, size: Size, machine: Machine, hosts: Sequence[str]) -> Layout | Refused:
    roles, engine = roles_of(config), config.settings.engine
    apart = {"prefill", "decode"} <= set(roles)
    if apart and (len(hosts) > 1 or "colocated" not in roles):
        halves = engine.decode_devices == "told"
        one = engine.decode_instances == "one"
        return sizing.disaggregated(size, roles, machine, hosts, one_decode=one, halves=halves)
    return sizing.colocated(size, roles["colocated"], machine, hosts)


def _would(refused: Refused, machine: Machine, hosts: Sequence[str], wish: Wish) -> str:
    """What would serve: more hosts, or models that these hosts have room for."""
    fit = []
    for name in models():
        if name in (wish.model, "tiny-qwen2"):
            continue
        sized = _draft(name, None, None, {}).settings.sizing
        config = _draft(name, sized.engine, sized.release, {"h0": {"address": "10.0.0.1"}})
        if isinstance(_layout(config, _size(config, "", {}), machine, hosts), Layout):
            fit.append(name)
    todo = []
    if refused.needed:
        todo.append(f"give {refused.needed} hosts at least")
    if fit:
        todo.append(f"a model for which these have room: --model {some(fit, 4)}")
    return "; or ".join(todo) or "take hosts with more devices, or with more memory on each"


def _named(layout: Layout, hosts: Mapping[str, Any]) -> dict[str, str]:
    """What hosts are called: p0, d0, s0 by what they do, unless somebody named them."""
    made = {name: name for name in hosts}
    for role, letter in (("prefill", "p"), ("decode", "d"), ("colocated", "s")):
        group = layout.groups.get(role)
        own = [name for part in group.hosts for name in part] if group else []
        for name in own:
            if re.fullmatch(r"h\d+", made[name]):
                free = (f"{letter}{n}" for n in range(len(hosts)))
                made[name] = next(one for one in free if one not in made.values())
    return made


def _work_dir(config: Config, facts: Mapping[str, Facts]) -> Optional[tuple[str, str]]:
    """Another work directory where the usual one cannot be written to, and why; None: it can."""
    usual = config.settings.paths.work_dir
    least = config.settings.checks.free_mib
    small = least.code + least.log
    bad = {}
    for name, own in facts.items():
        one = next((disk for disk in own["disks"] or () if disk[0] == usual), None)
        if one and (not one[2] or one[1] < small):
            bad[name] = "cannot be written to" if not one[2] else f"has {one[1]} MiB free"
    if not bad:
        return None
    why = f"{usual} {next(iter(bad.values()))} on {some(list(bad))}"
    first = next(iter(facts.values()))
    homes = {own["system"]["home"] for own in facts.values()}
    if not first["system"]["root"] and len(homes) == 1:
        return f"{homes.pop()}/omnikit", why
    roomy = [
        {disk[0] for disk in own["disks"] or () if disk[2] and disk[1] >= small and disk[0] != "/"}
        for own in facts.values()
    ]
    shared = set.intersection(*roomy) - {usual}
    other = next((disk[0] for disk in first["disks"] or () if disk[0] in shared), None)
    if other is None:
        return usual, f"{why}, and no disk has room instead"
    return str(PurePosixPath(other) / "omnikit"), why


# The file.

_BELOW = 10000  # where nothing else is planned
_WHY = re.compile(r"(?m)^  (\w+): \d+  # (.+)$")  # of a port, as _ports writes it


def _head(what: str) -> list[str]:
    again = "Run it again to see what differs now. Every setting: configs/defaults.yaml."
    return [*_comment(f"Proposed by invoke init: {what}"), *_comment(again)]


@dataclass
class _Text:
    """All that the file says. names: by what a host was called before, what it is called now; facts
    and hosts: by its name now. weights_why, work_dir: where it is another than usual.
    """

    wish: Wish
    config: Config
    layout: Layout
    machine: Machine
    size: Size
    facts: Mapping[str, Facts]
    hosts: Mapping[str, dict[str, Any]]
    names: Mapping[str, str]
    hardware: str
    ports: dict[str, int]
    weights: str
    weights_why: str
    work_dir: Optional[tuple[str, str]] = None
    port_reasons: dict[str, str] = field(default_factory=dict)

    def head(self) -> str:
        """What it is about, in one line."""
        return (
            f"{self.wish.model} with {self.wish.engine} {self.wish.release} on"
            f" {len(self.hosts)} host{'s' * (len(self.hosts) > 1)} with {self.machine.devices}"
            f" devices of {self.machine.gib:.0f} GiB each"
        )

    def reasons(self) -> dict[str, str]:
        """By role: its instances, and why they are so."""
        made = {}
        for role, group in self.layout.groups.items():
            parts = "; ".join("+".join(self.names[n] for n in part) for part in group.hosts)
            made[role] = f"{parts}: {group.shape.said()}"
        return made

    def write(self) -> str:
        """The whole text."""
        wish = self.wish
        profile = _profile(str(wish.model), str(wish.engine), wish.release, self.hardware)
        lines = [
            *_head(f"{self.head()}."),
            *_comment(f"Sizes are from {self.size.told}."),
            *_comment("Ports are those of configs/defaults.yaml, unless below; all are free now."),
            f"profile: {edit.flow(profile)}",
            "",
        ]
        if self.weights_why:
            lines += [*_comment(f"{self.weights_why}."), "model:"]
            lines += [f"  path: {edit.flow(self.weights)}", ""]
        if self.work_dir:
            lines += [*_comment(f"{self.work_dir[1]}."), "paths:"]
            lines += [f"  work_dir: {edit.flow(self.work_dir[0])}", ""]
        lines += [
            *self._there(),
            "hosts:",
            *(f"  {n}: {edit.flow(self._host(n))}" for n in self.hosts),
            "",
        ]
        lines += [*_comment(f"{self.layout.why}."), "topology:"]
        reasons = self.reasons()
        for role, group in self.layout.groups.items():
            lines += [f"  {line}" for line in _comment(reasons[role])]
            lines += [f"  {role}:", *(f"    - {edit.flow(e)}" for e in self._instances(group))]
        if self.layout.proxy:
            lines += [f"  proxy: {self.names[self.layout.proxy]}  # it takes no device"]
        lines += [""]
        if self.machine.devices != len(parse_devices(self.config.settings.devices)):
            lines += [f'devices: "0-{self.machine.devices - 1}"', ""]
        tensor = self._tensor_parallel()
        if tensor:
            lines += ["roles:"]
            for role, (tp, why) in tensor.items():
                lines += [f"  {line}" for line in _comment(why)]
                lines += [f"  {role}:", f"    server: {{tensor_parallel: {tp}}}"]
            lines += [""]
        if self.ports:
            lines += [*_ports(self.ports, self.port_reasons), ""]
        return "\n".join(lines).rstrip("\n") + "\n"

    def _there(self) -> list[str]:
        """What hosts have, in one line for all that have the same."""
        said: dict[str, list[str]] = {}
        for name, own in self.facts.items():
            images, weights = own["images"] or {}, (own["weights"] or {}).get(self.weights)
            memory = (own["system"]["memory_mib"] or 0) // 1024
            text = f"driver {own['devices']['driver']}, {memory} GiB of memory"
            text += f", {images['engine']}" if images else ""
            lacks = (
                [] if self.config.settings.container.image in images.get("names", ()) else ["image"]
            )
            lacks += [] if weights and not weights["problem"] else [f"weights in {self.weights}"]
            text += f"; not there yet: {', '.join(lacks)}" if lacks else ""
            said.setdefault(text, []).append(name)
        return [
            line for text, names in said.items() for line in _comment(f"{some(names)}: {text}.")
        ]

    def _host(self, name: str) -> dict[str, Any]:
        entry = {"address": self.hosts[name]["address"], **self.hosts[name]}
        network = self.facts[name]["network"]
        if network and "interface" not in entry:
            own = [one for one, address in network["addresses"] if address == entry["address"]]
            if own and own[0] != network["default"]:
                entry["interface"] = own[0]  # not that of the default route
        return entry

    def _instances(self, group: Group) -> list[dict[str, Any]]:
        made = []
        for part in group.hosts:
            entry: dict[str, Any] = {"hosts": [self.names[name] for name in part]}
            devices = group.shape.devices
            if devices != self.machine.devices:
                entry["devices"] = f"{group.first}-{group.first + devices - 1}"
            if group.shape.role.name == "colocated" and group.shape.ranks > 1:
                entry["servers"] = "replicas"
            made.append(entry)
        return made

    def _tensor_parallel(self) -> dict[str, tuple[int, str]]:
        made = {}
        for role, group in self.layout.groups.items():
            wished, tp = group.shape.role.tensor_parallel, group.shape.tensor_parallel
            replicas = role == "colocated" and group.shape.ranks > 1
            if wished == tp or (wished is None and not replicas):
                continue
            why = f"The model's file says {wished}; that many devices do not suit these hosts."
            if wished is None:
                why = "As few devices as a server fits on."
            elif tp > wished:
                why = f"The model's file says {wished}, with which it does not fit on these hosts."
            made[role] = (tp, why)
        return made


def _ports(ports: Mapping[str, int], reasons: Mapping[str, str]) -> list[str]:
    said = {name: f"  # {reasons[name]}" if name in reasons else "" for name in ports}
    return ["ports:", *(f"  {name}: {port}{said[name]}" for name, port in ports.items())]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")


def _ports_of(path: Path, there: Optional[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Ports that the file says already, and why."""
    node = parse(there, str(path)).find(("ports",)) if there else None
    plain = node.plain() if node is not None else None
    ports = {name: port for name, port in (plain or {}).items() if isinstance(port, int)}
    return ports, {n: why for n, why in _WHY.findall(there or "") if n in ports}


def _beside_random(config: Config, machine: Machine, ports: dict[str, int]) -> dict[str, str]:
    """Move HCCL's ports where an engine takes theirs at random; why, by setting."""
    given = config.settings.ports
    for what, taken in given.random.items():
        last = taken.last or taken.first + (taken.per_device or 0) * machine.devices - 1
        if taken.first <= given.hccl_base <= last:
            ports.setdefault("hccl_base", _BELOW)
            return {"hccl_base": f"{what} takes {taken.first} to {last} at random"}
    return {}


def _finish(made: _Text, path: Path, there: Optional[str]) -> Proposal:
    """The text with free ports and what else the file said, planned. Raises InputError."""
    taken = {name: () if own["ours"] else own["ports"] or () for name, own in made.facts.items()}
    text, config, plan = _free(
        lambda: _kept(made.write(), there), path, made.ports, made.port_reasons, taken
    )
    said = [f"{config.environment}: {made.head()}"]
    said += [f"  {role}: {why}" for role, why in made.reasons().items()]
    if plan.proxy:
        said.append(f"  proxy: {plan.proxy.host}, port {plan.proxy.port}")
    said += [f"  {name}: {why}" for name, why in made.port_reasons.items()]
    said += [f"  {line}" for line in _said_of(made.facts)]
    said += [f"  note: {note}" for note in (*plan.notes, *image.notes(config))]
    return Proposal(text, config, plan, said)


def _free(
    write: Callable[[], str],
    path: Path,
    ports: dict[str, int],
    reasons: dict[str, str],
    taken: Mapping[str, Sequence[int]],
) -> tuple[str, Config, Plan]:
    """The text with free ports, which go into ports with a reason each, and its plan."""
    for _ in range(20):
        text = write()
        config = Place(str(path)).load({path: text})
        plan = make_plan(config)
        found = sizing.clashes(plan, taken)
        if not found:
            return text, config, plan
        for setting, (host, port) in found.items():
            ports[setting] = sizing.moved(setting, getattr(config.settings.ports, setting))
            reasons.setdefault(setting, f"{port} is taken on {host}")
    setting, (host, port) = next(iter(found.items()))
    raise InputError(
        f"no free ports were found for ports.{setting}: the last try met {port}, taken on {host}.",
        where=str(path),
        todo=f"see what listens there (ss -ltnp, on {host}), or set ports.{setting} in this file",
    )


def _said_of(facts: Mapping[str, Facts]) -> list[str]:
    made = []
    for name, own in facts.items():
        made += [f"not looked at: {name}: {one['what']}" for one in own["problems"]]
        there = (own["devices"] or {}).get("processes", ())
        if there:
            one = there[0]
            made.append(
                f"busy: {name}: {len(there)} processes of others on its devices, such as pid"
                f" {one['pid']} ({one['name'] or 'no name'}) with {one['memory_mb']} MiB"
            )
    return made


def _kept(text: str, there: Optional[str]) -> str:
    """With the sections of the file that is there which are none of a proposal."""
    if there is None:
        return text
    ours = {key.value for key, _ in compose(text, "text").value}
    ours |= {"profile", "hosts", "topology", "devices", "ports", "based_on"}
    node = compose(there, "text")
    lines, kept = there.splitlines(), []
    keys = [(key.value, key.start_mark.line) for key, _ in getattr(node, "value", ())]
    for (name, begin), (_, end) in zip(keys, [*keys[1:], ("", len(lines))]):
        if name in ours:
            continue
        while begin and lines[begin - 1].startswith("#"):
            begin -= 1  # what is said of it
        block = lines[begin:end]
        while block and (not block[-1].strip() or block[-1].startswith("#")):
            block.pop()
        kept += ["", *block]
    return text + "".join(f"{line}\n" for line in kept)


# This machine, on CPU.


def _here(wish: Wish, path: Path, there: Optional[str]) -> Proposal:
    """As many servers as this machine has memory for, two prefill and one decode at the most."""
    base = load("local")
    facts, faults = look.survey(base)
    _refuse(faults, {"local": {"address": "127.0.0.1"}})
    own = facts["local"]
    told = base.settings.server.args.get("kv-cache-memory-bytes")
    each = base.settings.engine.memory_per_server_mib + int(told or 0) / (1 << 20)
    free = own["system"]["free_mib"] or 0
    count = 3 if own["ours"] else min(3, int(free // each))
    if count < 1:
        raise InputError(
            f"this machine has {free} MiB of memory free, a server takes {each:.0f}.",
            where="--engine cpu",
            todo="end what is not needed: ps aux --sort=-rss | head",
        )
    why = f"A server takes {each / 1024:.1f} GiB of memory at the most."
    several = [{"hosts": ["local"]} for _ in range(count)]
    served: dict[str, Any] = {"prefill": several[1:], "decode": several[:1]}
    if count == 1:
        served = {"prefill": [], "decode": [], "colocated": several, "proxy": None}
    lines = [
        *_head("real servers on this machine's CPU."),
        "based_on: local",
        "",
        f"paths: {{work_dir: build/{_name(path)}}}",
        "",
        *_comment(why),
        f"topology: {edit.flow(served)}",
        "",
    ]
    taken = () if own["ours"] else own["ports"] or ()
    ports, reasons = _ports_of(path, there)

    def write() -> str:
        text = "\n".join([*lines, *(_ports(ports, reasons) if ports else [])])
        return _kept(text.rstrip("\n") + "\n", there)

    text, config, plan = _free(write, path, ports, reasons, {"local": taken})
    what = "one server" if count == 1 else f"{count - 1} prefill, 1 decode"
    said = [
        f"{config.environment}: tiny-qwen2 on this machine's CPU: {what}. {why}"
        f" {free} MiB are free."
    ]
    return Proposal(text, config, plan, said)
