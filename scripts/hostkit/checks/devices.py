"""Checks of a host's NPUs: driver, firmware, CANN, device files, every planned chip, its memory and
users.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Optional

from hostkit.base.errors import ToolkitError
from hostkit.base.log import some
from hostkit.checks.base import Group, read_pairs
from hostkit.nodes import needed
from hostkit.ranks import device_facts
from hostkit.ranks.device_facts import Chip, NpuInfo

_DRIVER_VERSION = re.compile(r"\bVersion:\s*(\S+)")
_SMI_NEEDED = "a list of the NPUs"
_DRIVER_BROKEN = (
    "dmesg | grep -iE 'davinci|drv|npu' | tail -n 40; if the driver hangs or fails to load,"
    " restart the host or install the driver again"
)


def look(group: Group) -> None:
    """All checks of NPUs; nothing on an engine without them."""
    if group.given["device_kind"] != "npu":
        return
    _device_files(group)
    files(group)
    text = _npu_smi(group)
    if text is None:
        return
    try:
        info = device_facts.npu_smi_info(text)
    except ToolkitError as error:
        group.error("npu.smi", "npu-smi", error, needed=_SMI_NEEDED, todo=_DRIVER_BROKEN)
        return
    group.add(
        *("npu.smi", "npu-smi", True),
        found=f"npu-smi {info.version} lists {len(info.chips)} chips",
        needed=_SMI_NEEDED,
    )
    said = _DRIVER_VERSION.search(text)
    version(group, said.group(1) if said else info.version)
    chips = {chip.phy_id: chip for chip in info.chips}
    _present(group, chips)
    planned = [chips[device] for device in group.given["devices"] if device in chips]
    _health(group, planned, [c for c in info.chips if c not in planned])
    _memory(group, planned, info)
    _processes(group, planned, info)


def find_tool(group: Group, program: str) -> tuple[Optional[str], str]:
    """Where a program is that a setting names, None when it is nowhere; and where else it is."""
    found = shutil.which(program)
    places = ("/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/local/Ascend/driver/tools")
    others = [str(Path(p) / program) for p in places if group.path(Path(p) / program).exists()]
    return found, others[0] if others and not found else ""


def missing_tool(group: Group, name: str, setting: str, program: str) -> bool:
    """Note a tool that is not there; whether it is missing."""
    found, elsewhere = find_tool(group, program)
    if found:
        return False
    group.add(
        *(name, Path(program).name, False),
        found=f"there is no {program} on PATH" + (f", but {elsewhere}" if elsewhere else ""),
        needed=f"{program} ({setting})",
        todo=f"set {setting}: {elsewhere}"
        if elsewhere
        else "install the NPU driver (Ascend-hdk-…-npu-driver….run --full --install-for-all), or"
        f" set {setting}",
    )
    return True


def _npu_smi(group: Group) -> Optional[str]:
    program = group.given["ranktable"]["npu_smi"]
    if missing_tool(group, "npu.smi", "ranktable.npu_smi", program):
        return None
    try:
        done = group.ask(program, "info")
    except ToolkitError as error:
        group.error("npu.smi", "npu-smi", error, needed=_SMI_NEEDED, todo=_DRIVER_BROKEN)
        return None
    return f"{done.out}\n{done.err}"


def _device_files(group: Group) -> None:
    wanted = [f"/dev/davinci{device}" for device in group.given["devices"]]
    wanted += [device.split(":")[0] for device in group.given["container_devices"]]
    missing = [path for path in dict.fromkeys(wanted) if not group.path(path).exists()]
    group.add(
        *("npu.files", "device files", not missing),
        found=f"missing: {some(missing)}" if missing else f"all {len(wanted)} are there",
        needed="/dev/davinciN of each planned device, and container.devices",
        todo="ls -l /dev/davinci*; lsmod | grep -i drv; npu-smi info -l; without a driver, install"
        " it and restart the host",
    )


def _present(group: Group, chips: dict[int, Chip]) -> None:
    planned = group.given["devices"]
    missing = [str(device) for device in planned if device not in chips]
    cards = {chip.card for chip in chips.values()}
    gaps = [str(card) for card in range(max(cards)) if card not in cards]
    found = f"{len(chips)} chips on {len(cards)} cards"
    if missing:
        found += f"; not there: device {', '.join(missing)}"
    if gaps:
        found += f"; npu-smi does not list card {', '.join(gaps)}"
    group.add(
        *("npu.devices", "planned devices there", not (missing or gaps)),
        found=found,
        needed=f"the {len(planned)} planned devices ({_ids(planned)})",
        todo="npu-smi info -l; lspci | grep -i accelerators | wc -l; a card that is gone comes back"
        " with a power cycle of the host, or plan without it: hosts."
        f"{group.given['host']}.devices",
        required=bool(missing),
    )


def _ids(devices: list[int]) -> str:
    """Device ids, a whole range shortened.

    >>> _ids([0, 1, 2]), _ids([0, 2])
    ('0 to 2', '0,2')
    """
    if len(devices) > 2 and devices == list(range(devices[0], devices[-1] + 1)):
        return f"{devices[0]} to {devices[-1]}"
    return ",".join(str(device) for device in devices)


def _health(group: Group, planned: list[Chip], others: list[Chip]) -> None:
    sick = [chip for chip in planned if chip.health != "OK"]
    sick_others = [chip for chip in others if chip.health != "OK"]
    shown = [_named(chip, chip.health) for chip in sick]
    shown += [_named(chip, f"{chip.health}, not planned") for chip in sick_others]
    first = next(iter([*sick, *sick_others]), None)
    group.add(
        *("npu.health", "health of the chips", not shown),
        found="; ".join(shown) or f"all {len(planned)} planned chips are OK",
        needed="OK",
        todo=f"npu-smi info -t health -i {first.card} -c {first.chip}; npu-smi set -t reset -i"
        f" {first.card} -c {first.chip} when nothing uses the card, or plan without it"
        if first
        else "",
        required=bool(sick),
    )


def _named(chip: Chip, what: str) -> str:
    return f"device {chip.phy_id} (card {chip.card}, chip {chip.chip}): {what}"


def _memory(group: Group, planned: list[Chip], info: NpuInfo) -> None:
    """What our own servers hold is no fault; what anybody else holds is missing at the start."""
    size, most = group.limits["hbm_mib"], group.limits["hbm_used_mib"]
    pids = needed.our_pids(group.given)
    ours = {(p.card, p.chip) for p in info.processes if p.pid in pids}
    shown = []
    for chip in planned:
        if size and chip.hbm_total_mb < size:
            shown.append(_named(chip, f"{chip.hbm_total_mb} MiB in all"))
        elif most and chip.hbm_used_mb > most and (chip.card, chip.chip) not in ours:
            shown.append(_named(chip, f"{chip.hbm_used_mb} of {chip.hbm_total_mb} MiB are taken"))
    totals = sorted({chip.hbm_total_mb for chip in planned})
    free = min((c.hbm_total_mb - c.hbm_used_mb for c in planned), default=0)
    total = " or ".join(str(number) for number in totals)
    group.add(
        *("npu.memory", "free memory of the chips (HBM)", not shown),
        found=some(shown, 4, "; ") if shown else f"{total} MiB each, at least {free} MiB free",
        needed=", ".join(
            [
                *([f"at most {most} MiB taken (checks.hbm_used_mib)"] if most else []),
                *([f"{size} MiB in all (checks.hbm_mib)"] if size else []),
            ]
        ),
        todo="npu-smi info lists the processes; make stop ends those of the toolkit; a process in"
        " a container shows in: docker top NAME",
    )


def _processes(group: Group, planned: list[Chip], info: NpuInfo) -> None:
    ids = {(chip.card, chip.chip): chip.phy_id for chip in planned}
    ours = needed.our_pids(group.given)
    on_planned = [p for p in info.processes if (p.card, p.chip) in ids]
    foreign = [p for p in on_planned if p.pid not in ours]
    shown = [
        f"pid {p.pid} ({p.name or 'no name'}) on device {ids[p.card, p.chip]}, {p.memory_mb} MiB"
        for p in foreign
    ]
    own = f"{len(on_planned)} of the toolkit's own" if on_planned else "none"
    group.add(
        *("npu.processes", "other programs on the devices", not shown),
        found=some(shown, 4, "; ") if shown else own,
        needed="none",
        todo="ps -o pid,user,etime,args -p "
        + ",".join(dict.fromkeys(str(p.pid) for p in foreign))
        + "; end it with kill if it is left over",
        required=False,
    )


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
    _oldest(group, running)


def _oldest(group: Group, running: str) -> None:
    """A driver that is older than the release's graphs want: servers may start, and fail later."""
    oldest = group.limits["driver_oldest"]
    if oldest:
        group.add(
            *("npu.driver_age", "age of the driver", _numbers(running) >= _numbers(oldest)),
            found=running,
            needed=f"{oldest} or newer (checks.driver_oldest)",
            todo=f"install driver and firmware (HDK) {oldest} or newer; until then graphs may not"
            " be had: enforce-eager, or cudagraph_mode FULL_DECODE_ONLY",
            required=False,
        )


def _numbers(version: str) -> list[int]:
    """The numbers that a version begins with.

    >>> _numbers("25.5.1"), _numbers("24.1.rc2")
    ([25, 5, 1], [24, 1])
    """
    begin = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in begin.group().split(".")] if begin else []


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
