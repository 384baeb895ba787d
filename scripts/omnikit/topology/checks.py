"""What a topology must satisfy before it is planned; each check raises InputError."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import Iterable, Optional, Sequence, Union

from hostkit.base.errors import InputError
from omnikit.config.config import Config
from omnikit.config.schema import ROLES
from omnikit.topology.members import Group, Member

VISIBLE_DEVICES = "ASCEND_RT_VISIBLE_DEVICES"


def check_shape(config: Config) -> None:
    """Which instances there are, and a release of the engine that runs them."""
    topology, of = config.settings.topology, config.settings.release.engine
    profile = config.settings.profile
    if of is not None and of != profile.engine:
        raise config.error(
            f"{profile.omni_version} is a release of {of}, the engine is {profile.engine}"
            f" ({config.origin('profile', 'engine')}).",
            *("profile", "omni_version"),
            todo=f"choose one of that engine (configs/versions), or --set profile.engine={of}",
        )
    prefill, decode, colocated = map(topology.serving, ROLES)
    if len(decode) > 1 and config.settings.engine.decode_instances == "one":
        raise config.error(
            f"found {len(decode)} decode instances, {config.settings.profile.omni_version}"
            " has one: all decode hosts form one data-parallel group that every prefill instance"
            " hands over to.",
            "topology",
            "decode",
            todo="list all decode hosts under one entry: decode: [{hosts: [d0, d1]}]; or choose a"
            " release that has several (engine.decode_instances:"
            f" {config.origin('engine', 'decode_instances')})",
        )
    if bool(prefill) != bool(decode):
        here, there = ("prefill", "decode") if prefill else ("decode", "prefill")
        raise config.error(
            f"there are {here} instances but no {there} instance.",
            "topology",
            there,
            todo=f"add one under topology.{there}, or use topology.colocated",
        )
    if not (prefill or colocated):
        raise config.error(
            "nothing to serve: no instance is listed.",
            "topology",
            todo="see configs/environments/ for examples",
        )
    if prefill and colocated:
        raise config.error(
            "co-located servers and prefill/decode instances in one environment have no common"
            " proxy.",
            "topology",
            "colocated",
            todo="make two environments of them",
        )
    if prefill and topology.proxy is None:
        raise config.error(
            "prefill and decode need a proxy.", "topology", "proxy", todo="name a host for it"
        )


def check_hosts(config: Config) -> None:
    """Every host that the topology names is known, and stands once in an instance."""
    topology = config.settings.topology
    for role in ROLES:
        for index, entry in enumerate(getattr(topology, role)):
            for k, name in enumerate(entry.hosts):
                _known(config, name, "topology", role, index, "hosts", k)
            for name in entry.parts:
                if name not in entry.hosts:
                    raise config.error(
                        f"{name!r} is none of this instance's hosts.",
                        *("topology", role, index, "parts", name),
                        todo=f"its hosts are {', '.join(entry.hosts)}",
                    )
            twice = [name for name, count in Counter(entry.hosts).items() if count > 1]
            if twice:
                raise config.error(
                    f"the host {twice[0]} stands twice in one instance.",
                    *("topology", role, index, "hosts"),
                    todo="name it once; an instance uses all devices it is given on a host",
                )
    if topology.proxy is not None:
        _known(config, topology.proxy, "topology", "proxy")


def _known(config: Config, name: str, *path: Union[str, int]) -> None:
    if name in config.settings.hosts:
        return
    known = ", ".join(list(config.settings.hosts)[:20]) or "none"
    raise config.error(
        f"there is no host {name!r}.", *path, todo=f"add it under hosts:, known are: {known}"
    )


def check_addresses(config: Config, used: Sequence[str]) -> None:
    """Addresses are reachable for other hosts where there are any."""
    addresses = {name: config.settings.hosts[name].address for name in used}
    several = len(set(addresses.values())) > 1
    for name, address in addresses.items():
        loopback = address in ("localhost", "::1") or address.startswith("127.")
        if several and loopback:
            raise config.error(
                f"{address} is a loopback address, the other hosts cannot reach it.",
                *("hosts", name, "address"),
                todo="give the address of the interface that the other hosts see",
            )


def check_names(config: Config, groups: Iterable[Group], proxy: str) -> None:
    """No two instances, and no instance and the proxy, share a name."""
    members = [member for group in groups for member in group.members]
    named = Counter(
        m.host
        for group in groups
        for m in group.members
        if config.settings.hosts[m.host].node_name == m.name
    )
    for host, count in named.items():
        if count > 1:
            raise config.error(
                f"{count} instances run on the host {host}, one name is not enough for them.",
                *("hosts", host, "node_name"),
                todo="leave node_name out: they are then named p0, p1, d0, …; or name each in its"
                " instance: parts: {HOST: {node_name: NAME}}",
            )
    seen = {proxy: "the proxy"} if config.settings.topology.proxy else {}
    for m in members:
        other = seen.setdefault(m.name, f"the {m.role} instance on {m.host}")
        if other != f"the {m.role} instance on {m.host}":
            path: tuple[Union[str, int], ...] = ("topology", m.role, m.index)
            if config.settings.hosts[m.host].node_name == m.name:
                path = ("hosts", m.host, "node_name")
            raise config.error(f"{m.name!r} is also the name of {other}.", *path)


def check_profiled(config: Config, groups: Iterable[Group]) -> None:
    """Instances whose profiler is on exist, and their engine has one."""
    profiling = config.settings.profiling
    if profiling.instances and profiling.start == "none":
        raise config.error(
            "nothing is known of a profiler of this engine.",
            *("profiling", "start"),
            todo="set profiling.start and profiling.server, or choose the engine's release:"
            " profile.omni_version",
        )
    names = [member.name for group in groups for member in group.members]
    for index, name in enumerate(profiling.instances):
        if name not in names:
            near = nearest(name, names)
            raise config.error(
                f"there is no instance {name!r}" + (f", is it {near!r}?" if near else "."),
                *("profiling", "instances", index),
                todo=f"one of {', '.join(names)}",
            )


def nearest(name: str, names: Sequence[str]) -> Optional[str]:
    """The name that was probably meant; of names so short, one with the same first letter."""
    alike = [other for other in names if other[:1] == name[:1]] or list(names)
    return next(iter(get_close_matches(name, alike, n=1, cutoff=0.4)), None)


def check_devices(config: Config, groups: Iterable[Group]) -> None:
    """On each machine every device belongs to one instance, and tensor parallel sizes fit."""
    owner: dict[tuple[str, int], Member] = {}
    for group in groups:
        for m in group.members:
            for device in m.devices:
                other = owner.setdefault((config.settings.hosts[m.host].address, device), m)
                if other is not m:
                    raise config.error(
                        f"device {device} of host {m.host} is given to {other.name} and to"
                        f" {m.name}.",
                        *_devices_path(config, m, group),
                        todo="give instances on one host disjoint devices, "
                        'for example devices: "0-7" and devices: "8-15"',
                    )
        if config.settings.engine.device_kind == "npu":
            _check_tensor_parallel(config, group)
            if group.role == "decode" and config.settings.engine.decode_devices == "from_zero":
                _check_from_zero(config, group)


def _check_from_zero(config: Config, group: Group) -> None:
    """An engine that counts a decode host's devices itself always begins with device 0.

    vLLM 0.9.0 takes its numbers out of ASCEND_RT_VISIBLE_DEVICES by VLLM_DP_RANK_LOCAL, which
    counts through all hosts, and omni-infer's worker uses NPU local_rank + VLLM_DP_RANK_LOCAL * tp
    - SERVER_OFFSET: no list of a host's own fits both.
    """
    release = config.settings.profile.omni_version
    for m in group.members:
        if m.devices != tuple(range(len(m.devices))):
            found = ",".join(map(str, m.devices))
            raise config.error(
                f"{m.name} is to use devices {found}, but decode servers of {release} take a host's"
                f" devices 0 to {len(m.devices) - 1} for {len(m.devices)} devices, and no others.",
                *_devices_path(config, m, group),
                todo=f'give decode "0-{len(m.devices) - 1}", and what else runs on the host the'
                " devices after them; or a release that tells each decode server its devices"
                f" (engine.decode_devices: {config.origin('engine', 'decode_devices')})",
            )
        told = m.server.env.get(VISIBLE_DEVICES)
        if told is not None:
            raise InputError(
                f"{m.name} is told {VISIBLE_DEVICES}, but decode servers of {release} count their"
                " devices themselves and end with an IndexError when they have a list.",
                where=str(m.settings.at(("env", VISIBLE_DEVICES)).origin),
                todo=f"remove it, or set it to null: roles.decode.server.env.{VISIBLE_DEVICES}",
            )


def _check_tensor_parallel(config: Config, group: Group) -> None:
    whole = sum(len(m.devices) for m in group.members)
    for m in group.members:
        path = _devices_path(config, m, group)
        if not m.devices:
            raise config.error(f"{m.name} has no devices.", *path, todo='for example: "0-15"')
        tp, size = m.tensor_parallel, m.server_devices
        one = m.servers == "instance"
        found = whole if one else len(m.devices)
        if found != size if one else found % size:
            need = "just" if one else "a multiple of"
            times = f" times {size // tp} (pipeline and context parallel)" if size > tp else ""
            raise config.error(
                f"{m.name} has {found} devices, expected {need} its tensor parallel size {tp}"
                f"{times}.",
                *path,
                todo="change the devices or server.tensor_parallel"
                f" ({m.settings.at(('tensor_parallel',)).origin})",
            )


def _devices_path(config: Config, m: Member, group: Group) -> tuple[Union[str, int], ...]:
    part = group.entry.parts.get(m.host)
    if part and part.devices is not None:
        return "topology", m.role, m.index, "parts", m.host, "devices"
    if config.settings.hosts[m.host].devices is not None:
        return "hosts", m.host, "devices"
    if group.entry.devices is not None:
        return "topology", m.role, m.index, "devices"
    return ("devices",)
