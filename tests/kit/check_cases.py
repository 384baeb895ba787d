"""Parameters of a host's checks for the tests, and a tree of system files like an A3 host's."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Callable

from hostkit.base.records import identity, write_record
from hostkit.checks.base import Group

FACTS = Path(__file__).parents[1] / "facts" / "npu"
FAKE = Path(__file__).parents[1] / "fake_npu"
MANAGERS = ("/dev/davinci_manager", "/dev/hisi_hdc", "/dev/devmm_svm")


def parameters(folder: Path, **more: Any) -> dict[str, Any]:
    """What the control host sends for a host without NPUs; with NPUs: see npu_parameters."""
    return {
        "host": "p0",
        "work_dir": str(folder / "work"),
        "device_kind": "none",
        "devices": [],
        "runtime": "process",
        "disaggregated": False,
        "ports": [],
        "interface": None,
        "address": "127.0.0.1",
        "peers": [],
        "paths": {"model": None, "log": str(folder / "logs"), "code": str(folder / "work")},
        "quantization": [],
        "model_generated": False,
        "image": None,
        "image_built": False,
        "release": None,
        "container_engine": "docker",
        "container_devices": [],
        "mounts": [],
        "containers": [],
        "image_free_mib": 1,
        "venv_python": None,
        "checks": limits(),
        "ranktable": tools(),
        **more,
    }


def limits(**more: Any) -> dict[str, Any]:
    """The section checks of the settings, asking for nothing special."""
    return {
        "timeout_s": 20,
        "driver_version": None,
        "driver_oldest": None,
        "hbm_mib": None,
        "hbm_used_mib": 8192,
        "memory_free_mib": 0,
        "shm_mib": 0,
        "free_mib": {"model": 0, "log": 0, "code": 0},
        "write_mib_s": 0,
        "clock_skew_s": 2,
        "container_engine": "20.10",
        "open_files": 0,
        "kernel": {},
        "peers_at_once": 16,
        **more,
    }


def tools(**more: Any) -> dict[str, Any]:
    """The section ranktable of the settings, with the stand-ins of the tools."""
    return {
        "source": "auto",
        "hccn_tool": str(FAKE / "hccn_tool"),
        "hccn_conf": "/etc/hccn.conf",
        "device_address": "ip",
        "device_ping": "ping",
        "npu_smi": str(FAKE / "npu-smi"),
        "ip": str(FAKE / "ip"),
        "timeout_s": 20,
        "interval_s": 0.01,
        **more,
    }


def npu_parameters(folder: Path, **more: Any) -> dict[str, Any]:
    """A healthy A3 host with 16 devices, its files below folder/root."""
    root = folder / "root"
    if not root.exists():
        make_root(root)
    return parameters(
        folder,
        **{
            "device_kind": "npu",
            "devices": list(range(16)),
            "container_devices": list(MANAGERS),
            "disaggregated": True,
            "root": str(root),
            **more,
        },
    )


def make_root(root: Path) -> None:
    """The files of an A3 host that the checks look for. Plain files stand for device files."""
    for device in [*(f"/dev/davinci{number}" for number in range(16)), *MANAGERS]:
        put(root, device, "")
    make_driver(root)


def make_driver(root: Path) -> None:
    """What the installers of driver, firmware and CANN leave on a host."""
    (root / "usr/local/dcmi").mkdir(parents=True)
    ascend = "/usr/local/Ascend"
    put(root, "/etc/ascend_install.info", _fact("ascend_install.info"))
    put(root, f"{ascend}/driver/version.info", _fact("driver-version.info"))
    put(root, f"{ascend}/firmware/version.info", _fact("firmware-version.info"))
    toolkit = f"{ascend}/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info"
    put(root, toolkit, _fact("ascend_toolkit_install.info"))


def put(root: Path, path: str, text: str) -> Path:
    """Write a file of the tree."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def _fact(name: str) -> str:
    return (FACTS / name).read_text()


def recorded(folder: Path, pid: int) -> None:
    """Have the host of these parameters record a process as the server of its node p0."""
    who = identity(pid)
    server = {"process": who, "state": "ready", "started_at": 0.0, "exit": None}
    record = {"node": "p0", "role": "prefill", "phase": "ready", "supervisor": who}
    write_record(folder / "work" / "state", {**record, "servers": [server]})


def look(function: Callable[[Group], None], given: dict[str, Any]) -> Group:
    """Run one group of checks."""
    group = Group(given)
    function(group)
    return group


def one(group: Group, name: str) -> dict[str, Any]:
    """The only entry of an id."""
    found = [entry for entry in group.checks if entry["id"] == name]
    assert len(found) == 1, [entry["id"] for entry in group.checks]
    return found[0]


def ids(group: Group) -> list[str]:
    """The ids of all entries, in order."""
    return [entry["id"] for entry in group.checks]


def states(group: Group) -> dict[str, str]:
    """The state of every entry by id."""
    return {entry["id"]: entry["state"] for entry in group.checks}


def listener() -> socket.socket:
    """A socket that listens on some port of the loopback."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made
