"""What tests need of the machine: the one list of programs, with the packages that bring them.

make test installs from it (install_needs.py). A test that says @pytest.mark.needs("rsync"), or
calls needs("rsync"), is left out where that is not here, which CI counts as failed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Optional

import pytest

from omnikit.engine import install
from omnikit.proxy import spec

fast_test = False  # whether a fast test runs now
PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Tool:
    """apt, dnf: its package on Debian and Ubuntu, on openEuler (if known). fast: in fast tests."""

    apt: str
    dnf: Optional[str] = None
    fast: bool = False


TOOLS = {
    "chromium": Tool("chromium"),
    "containerd": Tool("containerd", fast=True),  # comes with docker.io; named for its service
    "debootstrap": Tool("debootstrap"),
    "docker": Tool("docker.io", "docker", fast=True),
    "docker-registry": Tool("docker-registry"),
    "dockerd": Tool("docker.io", "docker"),
    "git": Tool("git", "git", fast=True),
    "ip": Tool("iproute2", "iproute", fast=True),
    "iptables": Tool("iptables", "iptables"),
    "libnuma": Tool(install.APT_PACKAGE, install.DNF_PACKAGE),
    "lua": Tool("libnginx-mod-http-lua", fast=True),  # nginx's module, as njs
    "mount": Tool("mount", "util-linux", fast=True),
    "nginx": Tool("nginx", "nginx", fast=True),
    "njs": Tool("libnginx-mod-http-js"),  # of the twin of omni-infer's image
    "nsenter": Tool("util-linux", "util-linux"),
    "podman": Tool("podman", "podman"),
    "prometheus": Tool("prometheus"),
    "promtool": Tool("prometheus", fast=True),
    "rsync": Tool("rsync", "rsync", fast=True),
    "setpriv": Tool("util-linux", "util-linux"),
    "ssh": Tool("openssh-client", "openssh-clients", fast=True),
    "sshd": Tool("openssh-server", "openssh-server"),
    "systemd-analyze": Tool("systemd", "systemd"),
    "tc": Tool("iproute2", "iproute-tc"),
    "unshare": Tool("util-linux", "util-linux", fast=True),
    "zsh": Tool("zsh", "zsh"),
}
MODULES = {"lua": spec.LUA_MODULES[-1], "njs": "ngx_http_js_module.so"}


def here(name: str) -> bool:
    """Whether this machine has a tool."""
    if name in MODULES:
        return any((Path(place) / MODULES[name]).is_file() for place in spec.MODULE_PLACES)
    if name == "libnuma":
        return install.has_library()
    return shutil.which(name, path=PLACES) is not None


def needs(*names: str, root: bool = False) -> None:
    """Leave the test out unless these are here, and it runs as root where that is needed."""
    unlisted = [name for name in names if fast_test and not TOOLS[name].fast]
    assert not unlisted, f"a fast test needs {unlisted}: say so in TOOLS"
    missing = ["root"] if root and os.geteuid() != 0 else []
    missing += [name for name in names if not here(name)]
    if missing:
        left_out = pytest.skip.Exception(f"this test needs {', '.join(missing)}")
        left_out.missing = missing  # conftest.py sums up
        raise left_out


def remedy(missing: Iterable[str], command: str) -> list[str]:
    """What brings these, as lines. command: what runs the tests."""
    tools = sorted(set(missing) - {"root"})
    if shutil.which("apt-get"):
        names = sorted({TOOLS[name].apt for name in tools})
        more = f" (it installs {', '.join(names)})" if names else ""
        return [f"as root: {command}{more}"]
    names = sorted({str(TOOLS[name].dnf) for name in tools if TOOLS[name].dnf})
    lines = [f"as root: dnf install {' '.join(names)}"] if names else []
    unknown = [name for name in tools if not TOOLS[name].dnf]
    if unknown:
        lines.append(f"by hand, no package is known here: {', '.join(unknown)}")
    return [*lines, f"then, as root: {command}"]
