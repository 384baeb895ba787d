"""Checks that need more than one host's facts: what must be equal, unique or in step. Pure.

Each returns, by host, check entries of the kind that omnikit.host_checks makes. A host whose facts
lack something gets no entry for it: its own checks say why.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import Any, Mapping

from omnikit.check_entry import Entry, entry
from omnikit.fleet_equal import RULES, Facts, by_value, equal, listed, tls

Entries = dict[str, list[Entry]]


def compare(
    facts: Mapping[str, Facts],
    parameters: Mapping[str, Mapping[str, Any]],
    windows: Mapping[str, tuple[float, float]],
) -> Entries:
    """All fleet checks, by host.

    facts: what each host reported. parameters: of its checks (omnikit.check_parameters).
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
            found="; ".join(twice) or f"{len(f['device_ips'])}, each once in the fleet",
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
