"""Checks that need more than one host's facts: what must be equal, unique or in step. Pure.

Each returns, by host, check entries of the kind that hostkit.checks.checks makes. A host whose
facts lack something gets no entry for it: its own checks say why.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from hostkit.base.log import some
from hostkit.checks.base import Entry, entry

# Fleet checks of what must be equal: versions, image, model, TLS. Names who differs. Pure.

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Equal:
    """A fact that all hosts should share. required: a difference breaks serving."""

    fact: str
    name: str
    title: str
    required: bool
    todo: str


RULES = (
    Equal(
        *("driver_version", "driver", "NPU driver equal on all hosts", True),
        "install the same NPU driver and firmware on all hosts, then restart them",
    ),
    Equal(
        *("firmware_version", "firmware", "NPU firmware equal on all hosts", True),
        "install the same NPU firmware on all hosts, then restart them",
    ),
    Equal(
        *("cann_version", "cann", "CANN equal on all hosts", True),
        "install the same CANN toolkit and kernels on all hosts",
    ),
    Equal(
        *("arch", "arch", "processor architecture equal on all hosts", True),
        "deploy on hosts of one architecture: images and wheels are made for one",
    ),
    Equal("os", "os", "Linux equal on all hosts", False, "install the same release everywhere"),
    Equal("kernel", "kernel", "kernel equal on all hosts", False, "boot the same kernel"),
    Equal(
        *("python", "python", "Python equal on all hosts", False),
        "install the same Python, or name it: hosts.NAME.python",
    ),
    Equal(
        *("engine", "container", "container engine equal on all hosts", False),
        "install the same container engine and version on all hosts",
    ),
    Equal(
        *("image_id", "image", "container image equal on all hosts", True),
        "invoke pull-image: a tag may have moved since the older pull; a digest cannot",
    ),
    Equal(
        *("manifest_sha256", "weights", "model files equal on all hosts", True),
        "invoke distribute-weights --from HOST, one that has it whole",
    ),
)


def equal(facts: Mapping[str, Facts], rule: Equal) -> dict[str, Entry]:
    """Hosts that differ from what most have. Where no value leads, all of them are at fault."""
    values = {host: str(f[rule.fact]) for host, f in facts.items() if f.get(rule.fact)}
    if len(values) < 2:
        return {}
    hosts = by_value(values)
    common = _common(hosts)
    if common is not None:
        needed = f"{short(common)}, as on {listed(hosts[common])}"
    else:
        all_of_them = "; ".join(f"{short(v)} on {listed(own)}" for v, own in hosts.items())
        needed = f"the same on all hosts, found {all_of_them}"
    return {
        host: entry(
            f"fleet.{rule.name}",
            rule.title,
            value == common,
            required=rule.required,
            found=short(value),
            needed=needed,
            todo=rule.todo,
        )
        for host, value in values.items()
    }


def by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Who has each value."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for host, value in values.items():
        hosts[value].append(host)
    return dict(hosts)


def _common(hosts: Mapping[str, list[str]]) -> Optional[str]:
    """The value that more hosts have than any other; None when none leads."""
    ranked = sorted(hosts, key=lambda value: -len(hosts[value]))
    if len(ranked) > 1 and len(hosts[ranked[0]]) == len(hosts[ranked[1]]):
        return None
    return ranked[0]


def short(value: str) -> str:
    """A hash is told apart by its beginning; all else is shown in full."""
    bare = value.partition("sha256:")[2] or value
    is_hash = len(bare) == 64 and all(c in "0123456789abcdef" for c in bare)
    return f"{bare[:12]}…" if is_hash else value


def listed(names: Iterable[str]) -> str:
    """Names for a sentence; of many, the first three and how many there are."""
    shown = list(names)
    return ", ".join(shown) if len(shown) < 5 else f"{', '.join(shown[:3])} … ({len(shown)})"


def tls(facts: Mapping[str, Facts]) -> dict[str, Entry]:
    """The TLS switch of every device of every host is the same: HCCL cannot connect otherwise."""
    devices = {host: _switches(f.get("tls")) for host, f in facts.items()}
    counted = Counter(value for own in devices.values() for value in own.values())
    if not counted:
        return {}
    ranked = counted.most_common(2)
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    common = None if tied else ranked[0][0]
    found = {}
    for host, own in devices.items():
        if not own:
            continue
        odd = [device for device, value in own.items() if value != common]
        grouped = by_value(own)
        values = "; ".join(
            f"{value} on device {','.join(devices)}" if len(grouped) > 1 else value
            for value, devices in grouped.items()
        )
        found[host] = entry(
            "fleet.tls",
            "TLS switch equal on all devices",
            not odd,
            required=True,
            found=values,
            needed=f"{common} on every device of every host"
            if common is not None
            else "the same on every device of every host",
            todo="hccn_tool -i DEVICE -tls -s enable 0, for each device of each host that differs",
        )
    return found


def _switches(value: Any) -> dict[str, str]:
    """The TLS fact by device; one value for all of a host's devices has the key ""."""
    if isinstance(value, Mapping):
        return {str(device): str(found) for device, found in value.items() if found is not None}
    return {} if value is None or value == "" else {"": str(value)}


Entries = dict[str, list[Entry]]


def compare(
    facts: Mapping[str, Facts],
    parameters: Mapping[str, Mapping[str, Any]],
    windows: Mapping[str, tuple[float, float]],
) -> Entries:
    """All fleet checks, by host.

    facts: what each host reported. parameters: of its checks (omnikit.checks.environment).
    windows: when, by this machine's clock, each host's job began and ended.
    """
    found: Entries = {host: [] for host in facts}
    parts = [equal(facts, rule) for rule in RULES]
    parts += [tls(facts), host_names(facts), routes(facts, parameters), device_ips(facts)]
    skew = {host: parameters[host]["checks"]["clock_skew_s"] for host in facts}
    parts.append(clocks(facts, windows, skew))
    for part in parts:
        for host, one in part.items():
            found[host].append(one)
    return found


def host_names(facts: Mapping[str, Facts]) -> dict[str, Entry]:
    """Every host calls itself something else."""
    names = {host: str(f["hostname"]) for host, f in facts.items() if f.get("hostname")}
    if len(names) < 2:
        return {}
    hosts = by_value(names)
    return {
        host: entry(
            "fleet.names",
            "host name unique",
            len(hosts[name]) == 1,
            required=False,  # servers are told addresses; logs and Ray's lists mix the two up
            found=name if len(hosts[name]) == 1 else f"{name}, on {listed(hosts[name])}",
            needed="a name that no other host has",
            todo=f"hostnamectl set-hostname NAME, for example {host}",
        )
        for host, name in names.items()
    }


def routes(
    facts: Mapping[str, Facts], parameters: Mapping[str, Mapping[str, Any]]
) -> dict[str, Entry]:
    """Packets to all other hosts leave by one interface: the servers' own, never loopback.

    The servers' own is the configured one, else that of the default route (fact "interface").
    """
    found = {}
    for host, f in facts.items():
        by_peer = f.get("routes") or {}
        if not by_peer:
            continue
        names = {address: name for name, address in parameters[host]["peers"]}
        peers: dict[str, list[str]] = defaultdict(list)
        for address, interface in by_peer.items():
            peers[interface].append(names.get(address, address))
        given = parameters[host]["interface"]
        used = given or f.get("interface")
        one_machine = all(_is_loopback(address) for address in by_peer)
        ok = len(peers) == 1 and used in (None, *peers) and "lo" not in peers
        why = f"hosts.{host}.interface" if given else "of the default route"
        found[host] = entry(
            "fleet.route",
            "one interface to all other hosts",
            ok or one_machine,
            required=True,
            found="; ".join(f"{name} to {listed(own)}" for name, own in peers.items()),
            needed=f"{used} ({why}), which the servers use" if used else "one, and not lo",
            todo=_route_todo(host, list(peers)),
        )
    return found


def _route_todo(host: str, interfaces: list[str]) -> str:
    if len(interfaces) == 1 and interfaces != ["lo"]:
        return f"set hosts.{host}.interface: {interfaces[0]}"
    return (
        "on that host: ip route get ADDRESS shows the way to each; mend hosts.NAME.address"
        " or the routes"
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def device_ips(facts: Mapping[str, Facts]) -> dict[str, Entry]:
    """No two devices of the fleet have the same address."""
    owners: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for host, f in facts.items():
        for device, address in (f.get("device_ips") or {}).items():
            owners[address].append((host, str(device)))
    found = {}
    for host, f in facts.items():
        if not f.get("device_ips"):
            continue
        twice = [
            f"{address} is device {' and device '.join(f'{d} of {h}' for h, d in own)}"
            for address, own in owners.items()
            if len(own) > 1 and host in [h for h, _ in own]
        ]
        found[host] = entry(
            "fleet.device_ips",
            "device addresses unique",
            not twice,
            required=True,
            found=some(twice, 3, between="; ") or f"{len(f['device_ips'])}, each once in the fleet",
            needed="an address of its own for each device",
            todo="hccn_tool -i DEVICE -ip -s address ADDRESS netmask MASK, on one of them",
        )
    return found


def clocks(
    facts: Mapping[str, Facts],
    windows: Mapping[str, tuple[float, float]],
    skew_s: Mapping[str, float],
) -> dict[str, Entry]:
    """Each host's clock lies between the start and the end of its job, give or take skew_s."""
    found = {}
    for host, f in facts.items():
        if "clock" not in f or host not in windows:
            continue
        start, end = windows[host]
        ahead, behind = f["clock"] - end, start - f["clock"]
        off = max(ahead, behind)
        if off > skew_s[host]:
            side = "ahead of" if ahead > behind else "behind"
            said = f"at least {off:.1f} s {side} this machine's clock"
        else:
            said = f"it read a time within the {end - start:.1f} s that the checks took"
            said += f", give or take {skew_s[host]:g} s"
        found[host] = entry(
            "fleet.clock",
            "clock in step with this machine's",
            off <= skew_s[host],
            required=False,
            found=said,
            needed=f"at most {skew_s[host]:g} s off (checks.clock_skew_s)",
            todo="on both: timedatectl set-ntp true, or chronyc makestep",
        )
    return found
