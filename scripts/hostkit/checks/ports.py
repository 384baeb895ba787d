"""Checks of the planned ports of a host: free, and not among those that the kernel hands out."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Iterable

from hostkit.base.log import some
from hostkit.checks.base import Group
from hostkit.nodes import needed, taken_ports

_LISTEN = "0A"  # state of a socket in /proc/net/tcp


def look(group: Group) -> None:
    """All checks of ports."""
    if group.given["ports"]:
        _free(group)
        _range(group)


def _free(group: Group) -> None:
    taken = [one for one in group.given["ports"] if taken_ports.is_taken(one[0], one[1])]
    ours = held_by(needed.our_pids(group.given)) if taken else set()
    shown = []
    asked: set[int] = set()
    for _, port, what in taken:
        if port not in ours and port not in asked:
            asked.add(port)
            shown.append(f"{port} ({what}) is taken by {taken_ports.owner(port)}")
    free = len(group.given["ports"]) - len(taken)
    own = f", {len(taken)} held by the toolkit's own servers" if taken else ""
    group.add(
        *("ports.free", "planned ports free", not shown),
        found=some(shown, between="; ") if shown else f"{free} free{own}",
        needed=f"all {len(group.given['ports'])} free, or the toolkit's own",
        todo=f"{' '.join(f'fuser -v {port}/tcp;' for port in sorted(asked)[:4])} end that program,"
        " or plan other ports (section ports)",
    )


def held_by(pids: Iterable[int]) -> set[int]:
    """The TCP ports that these processes listen on."""
    inodes = set()
    for pid in pids:
        with suppress(OSError):  # it ended in between
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(str(entry.readlink()))
    return {port for port, own in listening().items() if own & inodes}


def listening() -> dict[int, set[str]]:
    """The sockets that listen, by port, named as /proc/PID/fd names them."""
    found: dict[int, set[str]] = defaultdict(set)
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                # sl local rem st … inode is the tenth
                fields = line.split()
                if fields[3] == _LISTEN:
                    port = int(fields[1].rpartition(":")[2], 16)
                    found[port].add(f"socket:[{fields[9]}]")
    return found


def _range(group: Group) -> None:
    """A port that the kernel gives to any connection may be free now and taken at the start."""
    title, below = "planned ports reserved", group.path("/proc/sys/net/ipv4")
    try:
        low, high = (int(n) for n in (below / "ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        group.unknown("ports.range", title, f"{below}/ip_local_port_range cannot be read")
        return
    kept: set[int] = set()
    with suppress(OSError, ValueError):
        kept = reserved((below / "ip_local_reserved_ports").read_text())
    exposed = sorted({p for _, p, _ in group.given["ports"] if low <= p <= high} - kept)
    group.add(
        *("ports.range", title, not exposed),
        found=f"the kernel may hand out {some([str(p) for p in exposed])} (it uses {low} to {high})"
        if exposed
        else f"none between {low} and {high}",
        needed="outside the kernel's range for outgoing connections",
        todo="sysctl -w net.ipv4.ip_local_reserved_ports="
        + ",".join(str(p) for p in sorted(kept | set(exposed)))
        + "; or plan lower ports (section ports)",
        required=False,
    )


def reserved(text: str) -> set[int]:
    """The ports of ip_local_reserved_ports.

    >>> sorted(reserved("8000-8002,9000"))
    [8000, 8001, 8002, 9000]
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found
