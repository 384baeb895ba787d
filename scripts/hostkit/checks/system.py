"""Checks of a host's system: Linux, Python, memory, limits, kernel settings."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import sys
import time
from typing import Optional

from hostkit.base.errors import ToolkitError
from hostkit.checks.base import MIB, Group, one_line, read_pairs
from hostkit.nodes import taken_ports

_ARCHITECTURES = ("aarch64", "x86_64")
_OLDEST, _NEWEST = (3, 9), (3, 11)
_WANTED_PYTHON = "3.9 to 3.11"
# Asks an interpreter for its version and its vLLM, without importing that.
_ABOUT = """
import importlib.metadata as m, json, sys
found = [d.version for d in m.distributions(name="vllm")]
print(json.dumps({"python": sys.version.split()[0], "vllm": found[0] if found else None}))
"""


def look(group: Group) -> None:
    """All checks of the system."""
    group.facts["clock"] = time.time()
    _linux(group)
    _python(group)
    if group.given.get("venv_python"):
        _engine_python(group, group.given["venv_python"])
    _proxy_cores(group)
    _memory(group)
    if group.in_containers:
        _container_shm(group)
    else:
        _shm(group)
        _open_files(group)
    for name, least in group.limits["kernel"].items():
        _kernel(group, name, least)


def _linux(group: Group) -> None:
    system = platform.uname()
    name = (read_pairs(group.path("/etc/os-release")) or {}).get("pretty_name", system.system)
    group.facts.update(os=name, kernel=system.release, arch=system.machine)
    group.add(
        *("system.os", "Linux", system.system == "Linux"),
        found=f"{name}, {system.system} {system.release}",
        needed="Linux",
        todo="take a host with Linux",
    )
    group.add(
        *("system.arch", "processor architecture", system.machine in _ARCHITECTURES),
        found=system.machine,
        needed=" or ".join(_ARCHITECTURES),
        todo="take another host: there are no packages of the engine for this architecture",
    )


def _python(group: Group) -> None:
    """The Python that runs this: what ships needs a certain age, the engine's wheels have a limit.

    The limit counts where the engine runs with this Python, and has no container or venv.
    """
    version = sys.version_info[:2]
    engines = not group.in_containers and not group.given.get("engine_apart")
    group.facts["python"] = sys.version.split()[0]
    group.add(
        *(
            "system.python",
            "Python of the host",
            version >= _OLDEST and (version <= _NEWEST or not engines),
        ),
        found=f"{group.facts['python']} ({sys.executable})",
        needed=_WANTED_PYTHON if engines else "3.9 or newer",
        todo="install one (dnf install python3.11, or apt-get install python3.11) and set"
        f" hosts.{group.given['host']}.python",
    )


def _engine_python(group: Group, python: str) -> None:
    title = "Python of the engine"
    todo = "invoke install-engine, or set engine.venv"
    try:
        done = group.ask(python, "-c", _ABOUT)
        about = json.loads(done.out) if done.code == 0 else None
    except (ToolkitError, ValueError) as error:
        group.add(
            *("system.engine", title, False),
            found=one_line(str(getattr(error, "what", error))),
            needed=f"{python}, {_WANTED_PYTHON}, with vLLM",
            todo=todo,
        )
        return
    version = (
        tuple(int(number) for number in re.findall(r"\d+", about["python"])[:2]) if about else ()
    )
    group.add(
        "system.engine",
        title,
        about is not None and _OLDEST <= version <= _NEWEST and about["vllm"] is not None,
        found=f"Python {about['python']}, {_vllm(about['vllm'])}" if about else one_line(done.tail),
        needed=f"{_WANTED_PYTHON}, with vLLM, at {python}",
        todo=todo,
    )


def _vllm(version: Optional[str]) -> str:
    return f"vLLM {version}" if version else "no vLLM"


def _proxy_cores(group: Group) -> None:
    wanted = group.given.get("proxy_cores", 0)
    if wanted:
        there = os.cpu_count() or 0
        group.add(
            *("system.proxy_cores", "cores of the proxy", wanted <= there),
            found=f"{there} cores",
            needed=f"at least {wanted} (proxy.start_core, proxy.worker_processes)",
            todo="set proxy.start_core to a lower one, or to null: workers are not bound",
            required=False,  # nginx leaves a worker unbound whose core is not there
        )


def _memory(group: Group) -> None:
    wanted, left = group.limits["memory_free_mib"], taken_ports.memory_available_mib()
    if left is None:
        group.unknown("system.memory", "memory", "/proc/meminfo cannot be read")
        return
    group.add(
        *("system.memory", "memory", left >= wanted),
        found=f"{left} MiB available",
        needed=_at_least(wanted, "checks.memory_free_mib"),
        todo="ps -eo pid,rss,args --sort=-rss | head shows who has it",
    )


def _at_least(wanted: float, setting: str) -> str:
    return f"at least {wanted} MiB ({setting})" if wanted else ""


def _shm(group: Group) -> None:
    wanted = group.limits["shm_mib"]
    try:
        disk = os.statvfs(group.path("/dev/shm"))
    except OSError as error:
        group.add(
            *("system.shm", "shared memory (/dev/shm)", False),
            found=f"/dev/shm: {error.strerror}",
            needed="a tmpfs at /dev/shm",
            todo="mount -t tmpfs tmpfs /dev/shm",
        )
        return
    size, free = (disk.f_frsize * n // MIB for n in (disk.f_blocks, disk.f_bavail))
    group.add(
        *("system.shm", "shared memory (/dev/shm)", size >= wanted),
        found=f"{size} MiB, {free} MiB of it free",
        needed=_at_least(wanted, "checks.shm_mib"),
        todo=f"mount -o remount,size={wanted}m /dev/shm",
    )


def _container_shm(group: Group) -> None:
    """Shared memory is memory: a container that may fill more than there is ends by SIGBUS."""
    given = group.given.get("shm_size")
    wanted, memory = size_mib(given or ""), total_mib()
    if wanted is None or memory is None:
        return
    group.add(
        *("system.shm", "shared memory of containers", wanted <= memory),
        found=f"container.shm_size is {given}, the host has {memory} MiB of memory",
        needed="no more than the host's memory",
        todo=f"set container.shm_size to {memory // 2}m or less",
        required=False,
    )


_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": MIB, "g": 1 << 30, "t": 1 << 40}


def size_mib(text: str) -> Optional[int]:
    """A size as Docker takes it, in MiB; None when it is none.

    >>> size_mib("500g"), size_mib("64m"), size_mib("")
    (512000, 64, None)
    """
    match = re.fullmatch(r"(\d+)([bkmgt]?)b?", text.strip().lower())
    return int(match.group(1)) * _UNITS[match.group(2)] // MIB if match else None


def total_mib() -> Optional[int]:
    """All memory of this machine; None: not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    except (OSError, ValueError):
        return None


def _open_files(group: Group) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = group.limits["open_files"]
    endless = soft == resource.RLIM_INFINITY
    grow = f"ulimit -n {wanted}"
    if hard != resource.RLIM_INFINITY and hard < wanted:
        file = "/etc/security/limits.d/90-omnikit.conf"
        grow = f"echo '* - nofile {wanted}' > {file}; it holds from the next log-in on"
    group.add(
        *("system.open_files", "limit of open files", endless or soft >= wanted),
        found="none" if endless else f"{soft}, may be raised to {_limit(hard)}",
        needed=f"{wanted} (checks.open_files)" if wanted else "",
        todo=grow,
        required=False,
    )


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else str(value)


def _kernel(group: Group, name: str, least: int) -> None:
    title = f"kernel setting {name}"
    path = group.path("/proc/sys") / name.replace(".", "/")
    try:
        value = int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        group.unknown(f"kernel.{name}", title, f"this kernel has no number at {path}")
        return
    group.add(
        *(f"kernel.{name}", title, value >= least),
        found=str(value),
        needed=f"at least {least} (checks.kernel)",
        todo=f"sysctl -w {name}={least};"
        f" to keep it: echo '{name} = {least}' >> /etc/sysctl.d/90-omnikit.conf",
        required=False,
    )
