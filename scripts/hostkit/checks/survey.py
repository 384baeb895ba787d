"""Job "survey": what a host is and has, before there is a plan. It looks, and changes nothing.

What keeps a host from serving is for the checks to say, once there is a plan. This tells what one
can be made of: devices, network, memory, disks, images, weights, ports that are taken.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Optional

from hostkit.base.errors import ToolkitError
from hostkit.checks import model, ports, system
from hostkit.checks.base import MIB, Group, existing, one_line, within
from hostkit.checks.devices import find_tool
from hostkit.containers import engines
from hostkit.nodes import needed, taken_ports
from hostkit.ranks import device_facts

# File systems of disks, and of what is mounted from elsewhere.
_DISKS: tuple[str, ...] = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay")
_DISKS += ("nfs", "nfs4", "lustre", "gpfs", "ceph", "fuse.dpc", "dpc")
_EXPERTS = ".experts."  # in the name of a tensor that is a routed expert's


def survey(parameters: dict[str, Any]) -> dict[str, Any]:
    """What there is. A look that breaks is a sentence in "problems"; the others are made.

    parameters: device_kind, checks.timeout_s, ranktable.npu_smi and .ip, container_engine, and of
    the weights: paths (folders), names (of such folders) and roots (where those may lie).
    """
    group = Group(parameters)
    group.facts["problems"] = []
    looks: tuple[tuple[str, Callable[[Group], Any]], ...] = (
        ("system", _system),
        ("network", _network),
        ("devices", _devices),
        ("images", _images),
        ("disks", _disks),
        ("weights", _weights),
        ("ports", lambda group: sorted(ports.listening())),
        ("ours", lambda group: bool(needed.our_pids(group.given))),
    )
    made: dict[str, Any] = {name: None for name, _ in looks}
    for name, look in looks:
        with _told(group, name):
            made[name] = look(group)
    return {**made, **group.facts, "changed": False}


@contextmanager
def _told(group: Group, of: str) -> Iterator[None]:
    """What breaks a look at one thing is told, and the others are looked at."""
    try:
        yield
    except ToolkitError as error:
        told = {"what": one_line(error.what), "todo": error.todo or ""}
        group.facts["problems"].append({"of": of, **told})
    except (OSError, ValueError) as error:
        group.facts["problems"].append({"of": of, "what": f"{of}: {error}", "todo": ""})


def _system(group: Group) -> dict[str, Any]:
    return {
        "root": os.geteuid() == 0,
        "home": str(Path.home()),
        "memory_mib": system.total_mib(),
        "free_mib": taken_ports.memory_available_mib(),
    }


def _network(group: Group) -> dict[str, Any]:
    ip = group.given["ranktable"]["ip"]
    route = device_facts.default_route(group.ask(ip, "-4", "route", "list", "0/0").out)
    shown = device_facts.interface_addresses(group.ask(ip, "-4", "-o", "addr", "show").out)
    return {
        "default": route.interface if route else None,
        "addresses": [[one.interface, one.address] for one in shown],
    }


def _devices(group: Group) -> Optional[dict[str, Any]]:
    """None where nobody asks for any. Raises ToolkitError."""
    if group.given["device_kind"] != "npu":
        return None
    program = group.given["ranktable"]["npu_smi"]
    found, elsewhere = find_tool(group, program)
    if not found and not elsewhere:
        there = sorted(Path("/dev").glob("davinci[0-9]*"))
        seen = f"{len(there)} device files, but no driver's tools" if there else "no NPU"
        raise ToolkitError(
            f"{seen}: there is no {program}",
            todo="install the NPU driver (Ascend-hdk-…-npu-driver….run --full"
            " --install-for-all), or take a host with NPUs",
        )
    done = group.ask(found or elsewhere, "info")
    info = device_facts.npu_smi_info(f"{done.out}\n{done.err}")
    ours = needed.our_pids(group.given)
    return {
        "npu_smi": found or elsewhere,
        "driver": info.version,
        "chips": [asdict(chip) for chip in info.chips],
        "processes": [asdict(one) for one in info.processes if one.pid not in ours],
    }


def _images(group: Group) -> dict[str, Any]:
    engine = engines.find(group.given["container_engine"], group.timeout_s)
    listed = engine.ask("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    return {"engine": f"{engine.kind} {engine.version()}", "names": sorted(listed.out.split())}


def _disks(group: Group) -> list[list[Any]]:
    """Each disk's mount point, free space, and whether this user can write there; largest first."""
    found: dict[int, list[Any]] = {}
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        place, kind = line.split()[1:3]
        path = Path(place.encode().decode("unicode_escape"))
        containers = kind == "overlay" and path != Path("/")
        if kind not in _DISKS or containers or str(path).startswith(("/boot", "/var/lib/")):
            continue
        with _told(group, str(path)):
            group.answers(path)
            if path.is_dir():
                free = shutil.disk_usage(path).free // MIB
                here = [str(path), free, os.access(path, os.W_OK)]
                found.setdefault(path.stat().st_dev, here)
    work_dir = Path(group.given["work_dir"])
    if work_dir.is_absolute():
        group.answers(work_dir)
        there = existing(work_dir)
        usage = shutil.disk_usage(there).free // MIB
        found[-1] = [str(work_dir), usage, os.access(there, os.W_OK)]
    return sorted(found.values(), key=lambda disk: -disk[1])


def _weights(group: Group) -> dict[str, dict[str, Any]]:
    """The folders that have the model, with what is in them: by path, the wished one first."""
    wanted = [Path(path) for path in group.given["weights"]["paths"]]
    names = set(group.given["weights"]["names"])
    for root in map(Path, group.given["weights"]["roots"]):
        with _told(group, str(root)):
            group.answers(root)
            wanted += _named(root, names)
    found: dict[str, dict[str, Any]] = {}
    for path in dict.fromkeys(wanted):
        with _told(group, str(path)):
            group.answers(path)
            if (path / "config.json").is_file():
                looked = within(group.timeout_s, f"a look at {path}", partial(sizes, path))
                found.setdefault(str(path), looked)
    return found


def _named(root: Path, names: set[str]) -> Iterable[Path]:
    """Folders of these names below a folder, at most three levels down."""
    levels = [root]
    for _ in range(3):
        below: list[Path] = []
        for folder in levels:
            with suppress(OSError):  # what this user may not read is not there for our servers
                below += [one for one in folder.iterdir() if one.is_dir() and not one.is_symlink()]
        yield from (one for one in below if one.name in names)
        levels = [one for one in below if not one.name.startswith(".")][:200]


def sizes(folder: Path) -> dict[str, Any]:
    """Bytes of a model's tensors, and of routed experts among them, as its files' headers say.

    config: what its config.json says. problem: why the figures cannot be trusted.
    """
    config, problem = model.read_json(folder / "config.json")
    total = experts = files = 0
    for path in sorted(folder.glob("*.safetensors")):
        tensors, fault = model.header(path)
        files += 1
        problem = problem or fault
        for name, entry in tensors.items():
            total += entry.end - entry.begin
            experts += (entry.end - entry.begin) if _EXPERTS in name else 0
    index, _ = model.read_json(folder / "model.safetensors.index.json")
    missing = {str(name) for name in (index.get("weight_map") or {}).values()}
    missing = {name for name in missing if not (folder / name).is_file()}
    if not files:
        problem = problem or "it has no *.safetensors"
    elif missing:
        problem = problem or f"{len(missing)} of its files are missing, such as {min(missing)}"
    return {"bytes": total, "experts": experts, "config": config, "problem": problem}
