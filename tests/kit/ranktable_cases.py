"""Clusters that several rank table tests use. Addresses are those of the stand-ins in fake_npu."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

from hostkit.ranks.check import Instance, Member
from hostkit.ranks.device_facts import npu_smi_info
from omnikit.prepare.ranktables import HostFacts

FACTS = Path(__file__).parents[1] / "facts" / "npu"
ALL = tuple(range(16))


def fact(name: str) -> str:
    return (FACTS / name).read_text(encoding="utf-8")


def device_ips(number: int) -> dict[int, str]:
    """The device addresses of host number."""
    return {device: f"10.1.{number}.{100 + device}" for device in ALL}


def two_p_one_d() -> tuple[Instance, ...]:
    """The install guide's four hosts."""
    hosts = {name: f"10.0.0.1{number}" for number, name in enumerate(["p0", "p1", "d0", "d1"])}
    members = {name: Member(name, address, ALL) for name, address in hosts.items()}
    return (
        Instance("p0", "prefill", (members["p0"],)),
        Instance("p1", "prefill", (members["p1"],)),
        Instance("d0", "decode", (members["d0"], members["d1"])),
    )


def two_p_one_d_ips() -> dict[str, Mapping[int, str]]:
    return {name: device_ips(number) for number, name in enumerate(["p0", "p1", "d0", "d1"])}


def two_p_one_d_facts(npu_smi: str = "npu-smi-info.a3.healthy.txt") -> dict[str, HostFacts]:
    """What four healthy hosts report."""
    chips = npu_smi_info(fact(npu_smi)).chips
    return {
        member.host: HostFacts(
            ("127.0.0.1", member.address),
            {d: (ip, "hccn_tool") for d, ip in two_p_one_d_ips()[member.host].items()},
            chips,
        )
        for instance in two_p_one_d()
        for member in instance.members
    }
