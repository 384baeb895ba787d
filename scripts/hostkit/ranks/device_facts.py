"""What a host's tools say about its NPUs and its network, read from their text. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Optional

from hostkit.base.errors import ActionError, InputError


@dataclass(frozen=True)
class Chip:
    """One logical device as npu-smi lists it. phy_id is the id that everything else uses."""

    card: int
    chip: int
    phy_id: int
    name: str
    health: str
    hbm_used_mb: int
    hbm_total_mb: int


@dataclass(frozen=True)
class NpuProcess:
    """A process that holds a chip. Inside a container npu-smi may not know its name."""

    card: int
    chip: int
    pid: int
    name: str
    memory_mb: int


@dataclass(frozen=True)
class NpuInfo:
    """The whole of `npu-smi info`."""

    version: str
    chips: tuple[Chip, ...]
    processes: tuple[NpuProcess, ...]


@dataclass(frozen=True)
class HccnAnswer:
    """What hccn_tool said about one device. kind: address, empty, busy or error.

    text: the address, or the tool's own words.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Route:
    """Where packets leave. source: the address that the kernel would put on them, if it says so."""

    interface: str
    source: Optional[str]


@dataclass(frozen=True)
class InterfaceAddress:
    """One IPv4 address of a network interface."""

    interface: str
    address: str
    secondary: bool


def address_problem(text: object) -> Optional[str]:
    """Why this cannot be the address of a host or device in a cluster; None when it can."""
    if not isinstance(text, str) or not text.strip():
        return "is blank"
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return f"is {text!r}, which is no IPv4 address"
    if address.is_loopback:
        return f"is {text}, a loopback address that no other host can reach"
    if address.is_unspecified or address.is_multicast or text == "255.255.255.255":
        return f"is {text}, which is the address of no single machine"
    return None


_HCCN_ADDRESS = re.compile(r"^\s*(?:vnic )?ipaddr\s*:\s*(\S*)\s*$", re.MULTILINE)


def hccn_answer(out: str, err: str = "", code: int = 0) -> HccnAnswer:
    """Read the answer of `hccn_tool -i N -ip -g`, or of -vnic.

    Blank, unset (0.0.0.0) and "no ip was preset" are the same answer: the device has no address.
    The tool is not for two users at a time and then says that it is busy, with status 0 or not.
    """
    said = " ".join(f"{out}\n{err}".split())
    found = _HCCN_ADDRESS.search(out)
    if found and found.group(1) not in ("", "0.0.0.0"):
        return HccnAnswer("address", found.group(1))
    if "is busy" in said:
        return HccnAnswer("busy", said)
    if found or (not said and code == 0) or "no ip was preset" in said:
        return HccnAnswer("empty", said)
    return HccnAnswer("error", said or f"exit status {code}, no words")


_HCCN_CONF = re.compile(r"^\s*address_(\d+)\s*=\s*(.*?)\s*$")


def hccn_conf(text: str, source: str) -> dict[int, str]:
    """Device addresses of an hccn.conf by device id, as written there."""
    found: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _HCCN_CONF.match(line)
        if not match:
            continue
        device, address = int(match.group(1)), match.group(2)
        if found.setdefault(device, address) != address:
            raise InputError(
                f"address_{device} is set twice: {found[device]} and {address}.",
                where=f"{source}:{number}",
                todo=f"hccn_tool -i {device} -ip -g tells which one the device has",
            )
    return found


_USAGE = re.compile(r"(\d+)\s*/\s*(\d+)\s*$")
_VERSION = re.compile(r"npu-smi\s+(\S+)")


def npu_smi_info(text: str) -> NpuInfo:
    """Read `npu-smi info`, with Phy-ID (two chips a card) or without (one).

    Raises ActionError when it lists no chip at all: that is the tool's own failure.
    """
    chips: list[Chip] = []
    processes: list[NpuProcess] = []
    section, first = "", [""]
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "Health" in cells:
            section = "chips"
        elif "Process id" in cells:
            section = "processes"
        elif section == "chips" and len(cells) >= 3 and cells[0][:1].isdigit():
            if _is_first(cells[0]):
                first = cells
            elif len(first) >= 3:
                chips.append(_chip(first, cells))
        elif section == "processes" and len(cells) >= 4:
            card, chip = (int(word) for word in cells[0].split())
            processes.append(NpuProcess(card, chip, int(cells[1]), cells[2], int(cells[3])))
    if not chips:
        said = " ".join(text.split())
        raise ActionError(f"npu-smi lists no chip; it says: {said or 'nothing'}")
    version = _VERSION.search(text)
    return NpuInfo(version.group(1) if version else "", tuple(chips), tuple(processes))


def _is_first(cell: str) -> bool:
    """A chip takes two rows: card and name, then chip and physical id (numbers only)."""
    return not all(word.isdigit() for word in cell.split())


def _chip(first: list[str], second: list[str]) -> Chip:
    card, name = first[0].split(None, 1)
    chip, *physical = second[0].split()
    usage = _USAGE.search(second[2])
    return Chip(
        card=int(card),
        chip=int(chip),
        phy_id=int(physical[0]) if physical else int(card),
        name=name,
        health=first[1],
        hbm_used_mb=int(usage.group(1)) if usage else 0,
        hbm_total_mb=int(usage.group(2)) if usage else 0,
    )


def _word_after(words: list[str], key: str) -> Optional[str]:
    return words[words.index(key) + 1] if key in words[:-1] else None


def default_route(text: str) -> Optional[Route]:
    """The default route of `ip -4 route list 0/0`: of several, the one with the lowest metric."""
    found: list[tuple[int, Route]] = []
    for line in text.splitlines():
        words = line.split()
        interface = _word_after(words, "dev")
        if words[:1] == ["default"] and interface:
            metric = int(_word_after(words, "metric") or 0)
            found.append((metric, Route(interface, _word_after(words, "src"))))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def route_to(text: str) -> Optional[Route]:
    """The route of `ip -4 route get PEER`."""
    words = text.split()
    interface = _word_after(words, "dev")
    return Route(interface, _word_after(words, "src")) if interface else None


def interface_addresses(text: str) -> tuple[InterfaceAddress, ...]:
    """The addresses of `ip -4 -o addr show`, with or without `dev NAME`."""
    found = []
    for line in text.splitlines():
        words = line.replace("\\", " ").split()
        address = _word_after(words, "inet")
        if address:
            found.append(
                InterfaceAddress(words[1], address.partition("/")[0], "secondary" in words)
            )
    return tuple(found)
