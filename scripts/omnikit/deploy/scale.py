"""Instances that join and leave an environment while it serves.

The environment's file is changed first, then it is deployed: so whatever is cut off is finished by
the same command or by a deploy, for both do what the file says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from omnikit.checks import environment, report
from omnikit.config import change
from omnikit.config.change import Place
from omnikit.config.config import Config
from omnikit.config.schema import ROLES
from omnikit.deploy import acts, deploy, plan_report
from omnikit.deploy.acts import Options
from omnikit.deploy.record import recorded
from omnikit.plan.types import Plan
from omnikit.prepare import look
from omnikit.runs import releases
from omnikit.runs.run import settle
from omnikit.timeline.progress import Progress
from omnikit.topology import members
from omnikit.topology.checks import nearest
from omnikit.topology.topology import make_plan
from omnikit.versions import image

# What an instance or a host has of its own; all else a new one takes over from those of its role.
_OWN = ("hosts", "parts", "out", "api_port", "master_port", "kv_port")
_OWN_OF_HOST = ("address", "connection", "node_name", "api_port")


@dataclass
class Wish:
    """hosts: new ones, by name. topology: by role, all its instances as they are to stand in the
    files. names: the instances that join or leave; said: what is so already.
    """

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    topology: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def _names(config: Config) -> dict[tuple[str, int], list[str]]:
    """The names of each instance's parts, of those that are out too."""
    return {
        (group.role, group.index): [member.name for member in group.members]
        for group in members.groups(config)
    }


def _host(config: Config, wish: Wish, word: str, name: str) -> str:
    """The name of a host that was given as NAME, ADDRESS or NAME=ADDRESS; a new one is wished."""
    known = config.settings.hosts
    given, equals, address = word.partition("=")
    if not equals:
        if word in known:
            return word
        same = [one for one, host in known.items() if host.address == word]
        if same:
            return same[0]
        if not any(sign in word for sign in ".:"):
            near = nearest(word, list(known))
            raise InputError(
                f"there is no host {word!r}" + (f", is it {near!r}?" if near else "."),
                where="--host",
                todo=f"give a new one with its address: --host {word}=192.168.1.20",
            )
        given, address = name, word
    if given in known and known[given].address != address:
        raise InputError(
            f"the host {given} has the address {known[given].address}, not {address}.",
            where=str(config.origin("hosts", given, "address")),
            todo="give the new one another name, or correct the address there",
        )
    wish.hosts.setdefault(given, {"address": address})
    return given


def _agreed(of: Sequence[Any], own: Iterable[str]) -> dict[str, Any]:
    """What all of some maps say alike, without what is one's own."""
    first = of[0] if of else {}
    return {
        key: value
        for key, value in first.items()
        if key not in own and all(one.get(key) == value for one in of)
    }


def joining(
    config: Config, hosts: Sequence[str], role: Optional[str], instance: Optional[str]
) -> Wish:
    """What add-host wants. hosts: for each instance its hosts, with commas. Raises InputError."""
    wish, names = Wish(), _names(config)
    lists = {role: change.instances(config, role) for role in ROLES}
    there = next((key for key, own in names.items() if instance in own), None)
    if instance and there and role not in (None, there[0]):
        raise InputError(
            f"{instance} is a {there[0]} instance, not {role}.",
            where=str(config.origin("topology", *there)),
        )
    if role is None:
        has = [one for one in ROLES if lists[one]]
        role = there[0] if there else has[0] if len(has) == 1 else None
    if role is None or not (hosts or there):
        raise InputError(
            "which host is to join, and as what?",
            where="--host" if role else "--role",
            todo="for example: invoke add-host --host 192.168.1.20 --role prefill",
        )
    if len(hosts) > 1 and instance:
        raise InputError(
            "one instance was named, but several are to join.",
            where="--instance",
            todo="run this for each; or leave --instance out; one over several hosts: --host H1,H2",
        )
    siblings = list(lists[role])
    of_hosts = [
        config.tree.value["hosts"].value[name].plain() for one in siblings for name in one["hosts"]
    ]
    wish.topology[role] = entries = [dict(entry) for entry in siblings]
    for words in hosts or [",".join(siblings[there[1]]["hosts"]) if there else ""]:
        free = _free(config, wish, role)
        its = [_host(config, wish, word, next(free)) for word in words.split(",")]
        for name in its:
            if name in wish.hosts:
                wish.hosts[name] = {**wish.hosts[name], **_agreed(of_hosts, _OWN_OF_HOST)}
        _join(config, wish, role, its, instance, names)
    if entries == siblings:
        del wish.topology[role]
    return wish


def _free(config: Config, wish: Wish, role: str) -> Iterator[str]:
    """Names for new hosts: those that their instances get, as far as no host has them."""
    number = sum(len(entry["hosts"]) for entry in wish.topology[role])
    while True:
        name = f"{members.PREFIX[role]}{number}"
        if name not in config.settings.hosts and name not in wish.hosts:
            yield name
        number += 1


def _join(
    config: Config,
    wish: Wish,
    role: str,
    hosts: list[str],
    instance: Optional[str],
    names: dict[tuple[str, int], list[str]],
) -> None:
    """Add one instance to the wish, take it in again, or say that it is there."""
    entries = wish.topology[role]
    for index, entry in enumerate(entries):
        own = names.get((role, index), [instance or ""])
        if entry["hosts"] != hosts or (instance and instance not in own):
            continue
        wish.names.append(own[0])
        if entry.get("out"):
            entry.pop("out")
        else:
            wish.said.append(
                f"{own[0]} on {', '.join(hosts)} is in the environment already"
                + ("" if instance else "; another one there: --instance NAME")
            )
        return
    taken = next((key for key, own in names.items() if instance in own), None)
    if taken:
        raise InputError(
            f"{instance} is the {taken[0]} instance on"
            f" {', '.join(getattr(config.settings.topology, taken[0])[taken[1]].hosts)}.",
            where=str(config.origin("topology", *taken)),
            todo="give the new one another name, or leave --instance out",
        )
    serving = [i for i, entry in enumerate(entries) if not entry.get("out")]
    if role == "decode" and config.settings.engine.decode_instances == "one" and serving:
        # All decode hosts are one instance, which grows.
        at = serving[0]
        new = [name for name in hosts if name not in entries[at]["hosts"]]
        wish.names.append(names[role, at][0])
        if not new:
            wish.said.append(f"{', '.join(hosts)} is in the environment already")
        entries[at] = {**entries[at], "hosts": [*entries[at]["hosts"], *new]}
        return
    count = sum(len(entry["hosts"]) for entry in entries)
    name = f"{members.PREFIX[role]}{count}"
    made = {"hosts": hosts, **_agreed(entries, _OWN)}
    if instance and instance != name:
        made["parts"] = {hosts[0]: {"node_name": instance}}
    wish.names.append(instance or _own_name(config, hosts[0]) or name)
    entries.append(made)


def _own_name(config: Config, host: str) -> Optional[str]:
    """The name that a known host gives its one instance."""
    known = config.settings.hosts.get(host)
    return known.node_name if known else None


def leaving(
    config: Config, before: Optional[Plan], hosts: Sequence[str], named: Sequence[str]
) -> Wish:
    """What remove-host wants. before: what served last. Raises InputError."""
    wish, names = Wish(), _names(config)
    by_name = {one: key for key, own in names.items() for one in own}
    wish.topology = {role: change.instances(config, role) for role in ROLES}
    gone: dict[tuple[str, int], set[str]] = {}
    for name in named:
        if name in by_name:
            role, index = by_name[name]
            gone[role, index] = set(wish.topology[role][index]["hosts"])
        elif not before or name not in {node.name for node in before.nodes}:
            near = nearest(name, list(by_name))
            raise InputError(
                f"there is no instance {name!r}" + (f", is it {near!r}?" if near else "."),
                where="--instance",
                todo=f"one of {', '.join(by_name)}",
            )
    for word in hosts:
        addresses = {name: host.address for name, host in config.settings.hosts.items()}
        its = [name for name, address in addresses.items() if word in (name, address)]
        was = before is not None and any(word in (h.name, h.address) for h in before.hosts)
        if not its and not was:
            raise InputError(
                f"there is no host {word!r}.", where="--host", todo=f"one of {', '.join(addresses)}"
            )
        for key in names:
            there = set(wish.topology[key[0]][key[1]]["hosts"]) & set(its)
            if there:
                gone.setdefault(key, set()).update(there)
    if not (named or hosts):
        raise InputError(
            "which host or instance is to leave?",
            where="--host",
            todo=f"one of {', '.join(by_name)}: for example --instance {next(iter(by_name))}",
        )
    for (role, index), parts in gone.items():
        _leave(config, wish, role, index, parts, names[role, index])
    for role, entries in wish.topology.items():
        if (
            entries
            and all(entry.get("out") for entry in entries)
            and change.instances(config, role)
        ):
            last = [names[role, i][0] for i, _ in enumerate(entries)]
            raise InputError(
                f"without {', '.join(name for name in last if name in wish.names) or last[-1]}"
                f" no {role} instance would be left.",
                where=str(config.origin("topology", role)),
                todo=f"let another join first: invoke add-host --role {role} --host ADDRESS;"
                " or end all: invoke stop",
            )
    return wish


def _leave(
    config: Config, wish: Wish, role: str, index: int, hosts: set[str], names: list[str]
) -> None:
    entry = dict(wish.topology[role][index])
    rest = [name for name in entry["hosts"] if name not in hosts]
    wish.names.append(names[0])
    if entry.get("out"):
        wish.said.append(f"{names[0]} on {', '.join(entry['hosts'])} is out already")
        return
    if rest and not (role == "decode" and config.settings.engine.decode_instances == "one"):
        raise InputError(
            f"{', '.join(sorted(hosts))} is a part of {names[0]}, which runs on"
            f" {', '.join(entry['hosts'])} as one: it leaves as a whole, or is made smaller.",
            where=str(config.origin("topology", role, index)),
            todo=f"invoke remove-host --instance {names[0]}; or shorten its hosts there, then:"
            " invoke deploy",
        )
    if rest:
        entry["hosts"] = rest
    else:
        entry["out"] = True
    wish.topology[role] = [
        entry if at == index else one for at, one in enumerate(wish.topology[role])
    ]


# Both commands: the file, then the deployment of what it says.


def add(
    place: Place,
    hosts: Sequence[str],
    role: Optional[str],
    instance: Optional[str],
    options: Options,
    only_file: bool = False,
) -> int:
    """Instances join. Raises InputError before anything changed, ActionError after a failure."""
    config = place.load()
    if not only_file:
        config.refuse_examples()
    image.refuse(config)
    with recorded(config.environment, "add-host", options) as progress:
        settle(config)
        config = place.load()  # nobody else changes it now
        wish = joining(config, hosts, role, instance)
        made = change.make(place, config, wish.hosts, wish.topology)
        _tell(wish, made, progress)
        new = place.load(made.texts)
        plan = make_plan(new)
        if only_file:
            _write(made, progress)
            progress.say("nothing was started; what the file says is started by: invoke deploy")
            return 0
        _check(config, new, plan)
        return _carry_out(new, plan, made, wish, options, progress, "add-host")


def remove(
    place: Place, hosts: Sequence[str], named: Sequence[str], options: Options, now: bool = False
) -> int:
    """Instances leave. Raises InputError before anything changed, ActionError after a failure."""
    config = place.load()
    config.refuse_examples()
    with recorded(config.environment, "remove-host", options) as progress:
        settle(config)
        config = place.load()
        wish = leaving(config, _served(config), hosts, named)
        made = change.make(place, config, {}, wish.topology)
        _tell(wish, made, progress)
        new = place.load(made.texts)
        plan = make_plan(new)
        return _carry_out(new, plan, made, wish, options, progress, "remove-host", now)


def dry_run(place: Place, wish: Wish, config: Config) -> int:
    """Show what would be written, and what a deployment of it would do."""
    made = change.make(place, config, wish.hosts, wish.topology)
    for line in wish.said:
        print(line)
    if made.texts:
        print(made.diff())
    return plan_report.show(place.load(made.texts), as_json=False, asked=True)


def would_join(
    place: Place, hosts: Sequence[str], role: Optional[str], instance: Optional[str]
) -> int:
    """add without doing it."""
    config = place.load()
    return dry_run(place, joining(config, hosts, role, instance), config)


def would_leave(place: Place, hosts: Sequence[str], named: Sequence[str]) -> int:
    """remove without doing it."""
    config = place.load()
    return dry_run(place, leaving(config, _served(config), hosts, named), config)


def _served(config: Config) -> Optional[Plan]:
    """What was proved last."""
    known = releases.all_of(config.environment)
    try:
        return releases.restored(known[-1], config).plan if known else None
    except InputError:  # damaged, or of another version of the toolkit
        return None


def _tell(wish: Wish, made: change.Change, progress: Progress) -> None:
    for line in wish.said:
        progress.say(line)
    if made.texts:
        say(made.diff())


def _write(made: change.Change, progress: Progress) -> None:
    for name in made.write():
        progress.say(f"{name}: written")


def _check(config: Config, new: Config, plan: Plan) -> None:
    """Whether hosts that had nothing to do before are fit to serve. Raises InputError."""
    had = {host.name for host in (_served(config) or make_plan(config)).hosts}
    joined = [host.name for host in plan.hosts if host.name not in had]
    if not joined:
        return
    found = environment.run(new, plan, joined)
    if not report.passed(found.checks):
        say(report.text(found.checks))
        raise InputError(
            f"{', '.join(joined)} cannot serve yet, see the checks above. Nothing was changed.",
            todo="mend it, then run this again. Commands that want the host to be in the"
            " environment (setup-keys, pull-image, check-env): write it there first, by this"
            " command with --only-file",
        )


def _carry_out(
    config: Config,
    plan: Plan,
    made: change.Change,
    wish: Wish,
    options: Options,
    progress: Progress,
    verb: str,
    now: bool = False,
) -> int:
    """Ask before others are interrupted, write the file, deploy what it says."""
    deployment = acts.prepared(config, plan, options, progress)
    deployment.write()
    found = look.look(deployment, progress.timeline.on_event)
    found.refuse_problems()
    if set(found.actions.values()) == {"start"}:
        _write(made, progress)
        progress.say(f"nothing of {plan.environment} runs: nothing was started or ended")
        progress.say("start what the file says: invoke deploy")
        return 0
    own = {node.name for node in plan.nodes if node.name in wish.names}
    others = [
        name for name in found.replaces if name not in own and found.actions[name] != "remove"
    ]
    if others:
        for name in others:
            progress.say(f"{name}: {found.reasons.get(name, 'it differs')}")
        cli.confirm(
            f"with {config.settings.profile.omni_version} this cannot be done while all others go"
            f" on: {', '.join(others)} would be ended and started anew.",
            options.yes,
        )
    _write(made, progress)
    note = f"{verb} {', '.join(dict.fromkeys(wish.names))}".strip()
    told = Options(options.steps, options.named, options.keep, yes=True, as_json=options.as_json)
    try:
        return deploy.carry_out(deployment, told, progress, note, now)
    except ActionError as error:
        other = "remove-host" if verb == "add-host" else "add-host"
        names = dict.fromkeys(wish.names)
        raise ActionError(
            f"{error.what}\nThe environment's file has what was asked for, the hosts have not.",
            where=error.where,
            todo=f"{error.todo or 'mend the cause'}; then run this again, which goes on; or take it"
            f" back: invoke {other}" + "".join(f" --instance {name}" for name in names),
        ) from error
