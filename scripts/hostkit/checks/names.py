"""Checks of a host's name: what it is and what it resolves to.

Gloo and HCCL take the address that the host's own name resolves to when nothing else is said. With
127.0.1.1, as Debian writes it into /etc/hosts, the other hosts can never reach it.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Optional

from hostkit.base.errors import ToolkitError
from hostkit.checks.base import Group, within

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def look(group: Group) -> None:
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
