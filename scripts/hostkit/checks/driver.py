"""Checks of a host's NPU driver: its files, its version, firmware and CANN.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from hostkit.checks.base import Group, read_pairs

_INSTALL_INFO = "/etc/ascend_install.info"
_ASCEND = "/usr/local/Ascend"  # where the installers put things when told nothing else
_DCMI = "/usr/local/dcmi"
_CANN = ("ascend-toolkit/latest/*-linux", "cann/*-linux", "latest/*-linux")


def files(group: Group) -> None:
    """What the driver's installer leaves: the record of it, the folders of driver and dcmi.

    And the versions that are told from files: of the firmware, and of CANN where servers run on
    the host itself.
    """
    info = read_pairs(group.path(_INSTALL_INFO))
    status = (info or {}).get("driver_install_status", "complete")
    group.add(
        *("npu.install", "record of the driver's installation", info is not None)
        if status == "complete"
        else ("npu.install", "record of the driver's installation", False),
        found=f"no {_INSTALL_INFO}"
        if info is None
        else f"{_INSTALL_INFO}: installation {status}, below {_below(group)}",
        needed=f"{_INSTALL_INFO}, as the driver's installer writes it",
        todo="install the NPU driver again: Ascend-hdk-…-npu-driver….run --full --install-for-all",
    )
    wanted = [f"{_below(group)}/driver", _DCMI]
    missing = [path for path in wanted if not group.path(path).is_dir()]
    group.add(
        *("npu.driver_files", "driver and dcmi", not missing),
        found=f"missing: {', '.join(missing)}" if missing else ", ".join(wanted),
        needed="the folders of the NPU driver",
        todo="install the NPU driver: Ascend-hdk-…-npu-driver….run --full --install-for-all",
    )
    firmware = _version(group, "firmware")
    if firmware:
        group.facts["firmware_version"] = firmware
    if not group.in_containers:
        _cann(group)


def _below(group: Group) -> str:
    """The folder that driver and firmware were installed into."""
    info = read_pairs(group.path(_INSTALL_INFO)) or {}
    return info.get("driver_install_path_param", "").rstrip("/") or _ASCEND


def _version(group: Group, part: str) -> Optional[str]:
    return (read_pairs(group.path(f"{_below(group)}/{part}/version.info")) or {}).get("version")


def version(group: Group, running: str) -> None:
    """The driver that runs (npu-smi's word) is the installed one, and the wanted one."""
    group.facts["driver_version"] = running
    installed, wanted = _version(group, "driver"), group.limits["driver_version"]
    file = f"{_below(group)}/driver/version.info"
    found = f"{running} runs"
    if installed and not _same(installed, running):
        found += f", {file} says {installed}"
        todo = "an update takes effect when the host starts: reboot"
    else:
        todo = f"install driver {wanted}, or set checks.driver_version"
    group.add(
        "npu.driver",
        "driver version",
        (not installed or _same(installed, running)) and (not wanted or _same(wanted, running)),
        found=found if installed else f"{found}; {file} says nothing",
        needed=f"{wanted} (checks.driver_version)" if wanted else "what is installed also runs",
        todo=todo,
    )


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _cann(group: Group) -> None:
    """Servers without containers use the host's CANN."""
    below = group.path(_ASCEND)
    found: list[tuple[Path, str]] = []
    for pattern in _CANN:
        for folder in sorted(below.glob(pattern)):
            path = folder / "ascend_toolkit_install.info"
            said = (read_pairs(path) or {}).get("version")
            if said:
                found.append((path, said))
    if found:
        group.facts["cann_version"] = found[0][1]
    group.add(
        *("npu.cann", "CANN", bool(found)),
        found=f"{found[0][1]} ({found[0][0]})" if found else f"none below {_ASCEND}",
        needed="the CANN toolkit, for servers that run without containers",
        todo="install it (Ascend-cann-toolkit_….run --install), or set runtime: docker",
    )
