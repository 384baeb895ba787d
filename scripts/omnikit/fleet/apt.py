"""Installs Debian's or Ubuntu's packages, nginx and Lua above all, without starting a service.

The distribution's packages start nginx on port 80 and enable it for every boot. Both are held
back here, but only for what this run brought: what was there is somebody's.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Callable, Collection, Iterator, Sequence

from hostkit.base import run

Report = Callable[[str], None]
NAMES = ("nginx", "libnginx-mod-http-lua")
POLICY = Path("/usr/sbin/policy-rc.d")  # Debian: asked before a package starts a service
MARK = "# written by the deployment toolkit while it installs packages; may be removed"
LOCK_TIMEOUT_S = 120  # how long another apt-get may take
FORBIDDEN = 101  # Debian: the exit status of a policy that says no
_UNIT = re.compile(r"(?:/usr)?/lib/systemd/system/([^/@]+\.(?:service|socket|timer))")
WANTED = Path("/etc/systemd/system")  # what it starts at boot
_SCRIPT = re.compile(r"/etc/init\.d/([^/]+)")
APT = ("apt-get", "install", "-y", "--no-install-recommends", "--no-remove", "--no-upgrade")


def _ours(policy: Path) -> bool:
    return MARK in policy.read_text(encoding="utf-8", errors="replace")


def _env() -> dict[str, str]:
    """For apt-get: dpkg wants programs of sbin, which root of a plain "su" has not on the PATH."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return {"DEBIAN_FRONTEND": "noninteractive", "PATH": path}


def forbidden(policy: Path | None = None) -> str | None:
    """Why nothing can be installed here, or None where it can."""
    policy = policy or POLICY
    if shutil.which("apt-get") is None:
        return "this system has no apt-get"
    if os.geteuid() != 0:
        return "installing packages needs root"
    if policy.exists() and not _ours(policy):
        asked = run.run([policy, "nginx", "start"], check=False).code
        if asked != FORBIDDEN:
            return f"{policy} lets packages start services, and nginx would take port 80"
    return None


def obstacle(*, dry_run: bool, report: Report, policy: Path | None = None) -> str | None:
    """Why nginx and Lua cannot be installed here, or None when they can."""
    if against := forbidden(policy):
        return against
    found = available(NAMES, report=None if dry_run else report)
    return None if found == NAMES else f"apt-get finds no {' and '.join(NAMES)} here"


def available(names: Sequence[str], *, report: Report | None) -> tuple[str, ...]:
    """All of these packages, if they can be installed together, or else those that can be alone.

    report: says that the lists of packages are fetched first, where they are wanting; None: they
    are not fetched.
    """

    def can(*words: str) -> bool:
        return run.run([*APT, "--simulate", *words], env=_env(), check=False).code == 0

    if can(*names):
        return tuple(names)
    if report is not None:
        report("fetching the lists of packages (apt-get update)")
        run.run(["apt-get", "update"], env=_env(), check=False)
        if can(*names):
            return tuple(names)
    return tuple(name for name in names if can(name))


def install(
    names: Sequence[str],
    *,
    lock_timeout_s: int = LOCK_TIMEOUT_S,
    report: Report,
    policy: Path | None = None,
) -> None:
    """Install these packages. No service is started, and none that they bring starts at boot."""
    before = _installed()
    words = [*APT, "-o", f"DPkg::Lock::Timeout={lock_timeout_s}", *names]
    report(f"installing system packages (no service is started): {run.show(words)}")
    with services_held(policy or POLICY):
        run.run(words, env=_env())
    after = _installed()
    asked = {after[name] for name in names if name in after}
    _disable_services({name for name in after if name not in before and after[name] in asked})


def _installed() -> dict[str, str]:
    """Every installed package with the source that it is made from (nginx-common: nginx)."""
    form = "${db:Status-Status} ${Package} ${source:Package}\n"
    lines = run.run(["dpkg-query", "-W", "-f", form], check=False).out.splitlines()
    return dict(line.split()[1:] for line in lines if line.startswith("installed "))


def _disable_services(packages: Collection[str]) -> None:
    """What these packages bring does not start at boot."""
    if not packages:
        return
    files = run.run(["dpkg-query", "-L", *sorted(packages)], check=False).out.splitlines()
    units = sorted({match[1] for path in files if (match := _UNIT.fullmatch(path))})
    scripts = sorted({match[1] for path in files if (match := _SCRIPT.fullmatch(path))})
    commands = [["update-rc.d", name, "disable"] for name in scripts]
    if shutil.which("systemctl"):
        commands += [["systemctl", "disable", *units]] if units else []
    else:  # systemd may come later, and the packages have made its links
        for link in (link for name in units for link in WANTED.glob(f"*.wants/{name}")):
            link.unlink()
    for words in commands:
        if shutil.which(words[0]):
            run.run(words, check=False)


@contextlib.contextmanager
def services_held(policy: Path) -> Iterator[None]:
    """While this lasts, no package starts a service. A policy that is there stays as it is."""
    if policy.exists() and not _ours(policy):
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # A plain SIGTERM would leave the policy behind, and no package could start a service any more.
    before = signal.signal(signal.SIGTERM, leave)
    beside = policy.with_name(f"{policy.name}.new")
    try:
        beside.write_text(f"#!/bin/sh\n{MARK}\nexit {FORBIDDEN}\n", encoding="utf-8")
        beside.chmod(0o755)
        beside.replace(policy)
        yield
    finally:
        for left in (beside, policy):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()
        signal.signal(signal.SIGTERM, before)
