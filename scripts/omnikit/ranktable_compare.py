"""Do the plan, a rank table and what the hosts report now agree? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from omnikit import ranktable_read as read
from omnikit.device_facts import Chip, address_problem
from omnikit.ranktable_check import Instance, check_global

HEALTHY = "OK"


@dataclass(frozen=True)
class HostFacts:
    """What one host reports now. chips: None when npu-smi did not answer.

    device_ips: by device id, the address and who says so. problems: what could not be asked.
    """

    addresses: tuple[str, ...]
    device_ips: Mapping[int, tuple[str, str]]
    chips: Optional[tuple[Chip, ...]]
    problems: tuple[str, ...] = ()


def host_facts(data: Mapping[str, Any]) -> HostFacts:
    """Read what device_query.gather made on a host."""
    chips = data["chips"]
    return HostFacts(
        addresses=tuple(data["addresses"]),
        device_ips={
            int(device): (found["address"], found["source"])
            for device, found in data["device_ips"].items()
        },
        chips=None if chips is None else tuple(Chip(**chip) for chip in chips),
        problems=tuple(data["problems"]),
    )


def compare(
    instances: Sequence[Instance], table: Any, source: str, live: Mapping[str, HostFacts]
) -> list[str]:
    """Every disagreement between the plan, the cluster's table and the hosts, as sentences.

    live: facts by host name. A host that reported nothing is a disagreement too.
    """
    problems = check_global(table, source, instances)
    written: dict[str, dict[str, str]] = {}
    for server in read.all_servers(table):
        devices = written.setdefault(server.address, {})
        devices.update({device.device_id: device.address for device in server.devices or ()})
    planned: dict[tuple[str, str], list[int]] = {}
    for instance in instances:
        for member in instance.members:
            planned.setdefault((member.host, member.address), []).extend(member.devices)
    for (host, address), ids in planned.items():
        facts = live.get(host)
        label = f"host {host} ({address})"
        if facts is None:
            problems.append(f"{label}: it reported nothing.")
            continue
        problems += [f"{label}: {text}" for text in facts.problems]
        if facts.addresses and address not in facts.addresses:
            there = ", ".join(a for a in facts.addresses if not address_problem(a)) or "none"
            problems.append(f"{label}: the planned address is not one of its own: {there}.")
        for device in ids:
            problems += _device(
                label, device, written.get(address, {}).get(str(device)), source, facts
            )
    return problems


def _device(
    label: str, device: int, written: Optional[str], source: str, facts: HostFacts
) -> list[str]:
    problems = []
    if facts.chips is not None:
        chip = next((chip for chip in facts.chips if chip.phy_id == device), None)
        if chip is None:
            listed = ",".join(str(chip.phy_id) for chip in facts.chips)
            return [
                f"{label}: device {device}{_card(device, facts.chips)} is planned, but npu-smi "
                f"does not list it; it lists {listed}."
            ]
        if chip.health != HEALTHY:
            problems.append(
                f"{label}: the health of device {device} (card {chip.card}, chip {chip.chip}) is "
                f"{chip.health}, expected {HEALTHY}."
            )
    if device in facts.device_ips and written is not None:
        address, teller = facts.device_ips[device]
        if address != written:
            problems.append(
                f"{label}: device {device} has the address {address} now (says {teller}), "
                f"{source} says {written}."
            )
    elif device not in facts.device_ips and not facts.problems:
        problems.append(f"{label}: device {device} reported no address.")
    return problems


def _card(device: int, chips: Sequence[Chip]) -> str:
    """Which card a missing device is on, told from how the listed ones are numbered."""
    width = max((chip.chip for chip in chips), default=0) + 1
    if any(chip.phy_id != chip.card * width + chip.chip for chip in chips):
        return ""
    return f" (card {device // width}, chip {device % width})"
