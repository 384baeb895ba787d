"""Checks of a host's network: its name and address, its interface, the ways to the other hosts.

Gloo and HCCL take the address that the host's own name resolves to when nothing else is said. With
127.0.1.1, as Debian writes it into /etc/hosts, the other hosts can never reach it.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Any, Optional

from hostkit.base.errors import ToolkitError
from hostkit.base.log import some
from hostkit.checks.base import Group, within
from hostkit.ranks import device_facts

_NO_IP = "install iproute2 (dnf install iproute, or apt-get install iproute2), or set ranktable.ip"


def look(group: Group) -> None:
    """All checks of the network."""
    _own_address(group)
    try:
        _interface(group)
        if group.given["peers"]:
            _routes(group)
    except ToolkitError as error:
        group.error(
            "network.interface", "network interface", error, needed="an answer of ip", todo=_NO_IP
        )


def _own_address(group: Group) -> None:
    address, host = str(group.given["address"]), group.given["host"]
    problem = None
    if not is_own(address):
        problem = "is no address of this host"
    elif is_loopback(address) and not all(is_loopback(p) for _, p in group.given["peers"]):
        problem = "no other host can reach"
    group.add(
        *("network.address", "planned address", problem is None),
        found=f"{address}, which {problem}" if problem else address,
        needed="an address of this host that the others reach",
        todo=f"ip -4 -br addr lists them; set hosts.{host}.address",
    )


def is_own(address: str) -> bool:
    """Whether a server of this host could listen on an address."""
    for family, kind, protocol, _, place in _places(address):
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(place)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    return False
    return bool(_places(address))


def _places(address: str) -> list[Any]:
    try:
        return socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def _interface(group: Group) -> None:
    """The one that Gloo and HCCL are told: configured, else that of the default route."""
    ip, given, host = group.given["ranktable"]["ip"], group.given["interface"], group.given["host"]
    route = device_facts.default_route(group.ask(ip, "-4", "route", "list", "0/0").out)
    shown = device_facts.interface_addresses(group.ask(ip, "-4", "-o", "addr", "show").out)
    own: dict[str, list[str]] = {}
    for one in shown:
        own.setdefault(one.interface, []).append(one.address)
    name = given or (route.interface if route else None)
    problem = _interface_problem(group, name, own)
    by = f"hosts.{host}.interface" if given else "the default route"
    group.add(
        *("network.interface", "network interface", problem is None),
        found=f"{name or 'none'} ({by})" + (f": {problem}" if problem else _addresses(own, name)),
        needed="an interface with an address that the other hosts reach",
        todo=f"ip -4 -br addr lists them; set hosts.{host}.interface",
        required=bool(group.given["peers"] or given),
    )


def _interface_problem(
    group: Group, name: Optional[str], own: dict[str, list[str]]
) -> Optional[str]:
    if name is None:
        return "there is no default route"
    if name not in own:
        return f"it has no address; those with one: {', '.join(own)}"
    # Where the plan itself says loopback, all is on one machine.
    if group.given["peers"] and name == "lo" and not is_loopback(str(group.given["address"])):
        return "no other host can be reached over it"
    return None


def _addresses(own: dict[str, list[str]], name: Optional[str]) -> str:
    return f", {', '.join(own.get(name or '', ()))}"


def _routes(group: Group) -> None:
    """The interface to each peer. Whether all are the same is for the control host to say."""
    ip = group.given["ranktable"]["ip"]
    found: dict[str, str] = {}
    lost = []
    for name, address in group.given["peers"]:
        numbers = addresses(str(address))
        route = None
        if numbers:
            route = device_facts.route_to(group.ask(ip, "-4", "route", "get", numbers[0]).out)
        if route is None:
            lost.append(f"{name} ({address})")
        else:
            found[str(address)] = route.interface
    group.facts["routes"] = found
    ways = sorted(set(found.values()))
    group.add(
        *("network.routes", "ways to the other hosts", not lost),
        found=f"none to {some(lost)}" if lost else f"{len(found)} hosts, over {', '.join(ways)}",
        needed="a route to each",
        todo=f"ip route get {lost[0].partition('(')[2].rstrip(')')}" if lost else "",
    )


_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def look_at_names(group: Group) -> None:
    """The name, and its addresses."""
    name = group.given.get("hostname") or socket.gethostname()  # given by the tests alone
    group.facts["hostname"] = name
    problem = name_problem(name)
    group.add(
        *("names.host", "host name", problem is None),
        found=f"{name or 'none'}{', which ' + problem if problem else ''}",
        needed="letters, digits and hyphens, not digits alone",
        todo=f"hostnamectl set-hostname {suggestion(group.given['host'])}",
        required=False,
    )
    _resolution(group, name)


def name_problem(name: str) -> Optional[str]:
    """Why a host name makes trouble; None when it does not.

    >>> name_problem("p0"), name_problem("42"), name_problem("my_host")
    (None, 'is a number', "has the odd part 'my_host'")
    """
    if not name or name in ("localhost", "localhost.localdomain", "(none)"):
        return "tells nobody which host it is"
    if name.replace(".", "").isdigit():
        return "is a number"
    odd = [label for label in name.split(".") if not _LABEL.fullmatch(label)]
    return f"has the odd part {odd[0]!r}" if odd else None


def suggestion(name: str) -> str:
    """A name of the plan as a host name."""
    made = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return made if made and not made.isdigit() else f"host-{made}".rstrip("-")


def _resolution(group: Group, name: str) -> None:
    title, address = "what the host name resolves to", str(group.given["address"])
    try:
        found = within(group.timeout_s, f"the resolution of {name}", lambda: addresses(name))
    except ToolkitError as error:
        group.add(
            *("names.resolve", title, False),
            found=error.what,
            needed=f"{address}, at once",
            todo=f"echo '{address} {name}' >> /etc/hosts; getent ahosts {name} shows the result",
            required=False,
        )
        return
    group.facts["resolves_to"] = found
    several = bool(group.given["peers"])
    # Where the plan itself says loopback, all is on one machine.
    looped = bool(found) and is_loopback(found[0]) and not is_loopback(address)
    group.add(
        *("names.resolve", title, bool(found) and not looped),
        found=", ".join(found) or "nothing",
        needed=f"{address}, or another address that is not 127.x",
        todo=mend(name, address) if looped else f"echo '{address} {name}' >> /etc/hosts",
        required=looped and several,
    )


def addresses(name: str) -> list[str]:
    """What a name resolves to, in the resolver's order; nothing when it does not."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_loopback(text: str) -> bool:
    """Whether a text is an address that leads back to the same host, or the name of one."""
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return text == "localhost"


def mend(name: str, address: str) -> str:
    """The command that takes a name off the loopback lines of /etc/hosts and gives it an address.

    Other names on those lines stay.
    """
    pattern = re.escape(name).replace("/", r"\/")
    script = rf"s/^((127\.|::1).*)[[:space:]]{pattern}([[:space:]]|$)/\1 \3/"
    return f"sed -i.bak -E '{script}' /etc/hosts && echo '{address} {name}' >> /etc/hosts"
