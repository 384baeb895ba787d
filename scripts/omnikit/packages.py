"""Installs nginx and njs from Debian's or Ubuntu's packages without starting a service.

The distribution's packages start nginx on port 80 and enable it for every boot. Both are held
back here, but only for an nginx that this run brought: one that was there is somebody's.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Callable, Iterator

from omnikit import run

Report = Callable[[str], None]
NAMES = ("nginx", "libnginx-mod-http-js")
POLICY = Path("/usr/sbin/policy-rc.d")  # Debian: asked before a package starts a service
MARK = "# written by the deployment toolkit while it installs nginx; may be removed"
FORBIDDEN = 101  # Debian: the exit status of a policy that says no
ENV = {"DEBIAN_FRONTEND": "noninteractive"}
APT = ("apt-get", "install", "-y", "--no-install-recommends", "--no-remove", "--no-upgrade")


def _ours(policy: Path) -> bool:
    return MARK in policy.read_text(encoding="utf-8", errors="replace")


def obstacle(*, dry_run: bool, report: Report, policy: Path | None = None) -> str | None:
    """Why the packages cannot be installed here, or None when they can."""
    policy = policy or POLICY
    if shutil.which("apt-get") is None:
        return "this system has no apt-get"
    if os.geteuid() != 0:
        return "installing packages needs root"
    if policy.exists() and not _ours(policy):
        asked = run.run([policy, "nginx", "start"], check=False).code
        if asked != FORBIDDEN:
            return f"{policy} lets packages start services, and nginx would take port 80"
    simulate = [*APT, "--simulate", *NAMES]
    result = run.run(simulate, env=ENV, check=False)
    if result.code and not dry_run:
        report("fetching the lists of packages (apt-get update)")
        run.run(["apt-get", "update"], env=ENV, check=False)
        result = run.run(simulate, env=ENV, check=False)
    return f"apt-get finds no {' and '.join(NAMES)} here" if result.code else None


def install(*, lock_timeout_s: int, report: Report, policy: Path | None = None) -> None:
    """Install both packages; nothing is started, and a new nginx is not enabled either."""
    policy = policy or POLICY
    state = ["dpkg-query", "-W", "-f", "${db:Status-Status}", "nginx-common"]
    brought = run.run(state, check=False).out.strip() != "installed"
    report(f"installing system packages: {' '.join(NAMES)} (the nginx service is not started)")
    with services_held(policy):
        words = [*APT, "-o", f"DPkg::Lock::Timeout={lock_timeout_s}", *NAMES]
        run.run(words, env=ENV)
    if brought:
        if shutil.which("systemctl"):
            run.run(["systemctl", "disable", "nginx.service"], check=False)
        elif shutil.which("update-rc.d"):
            run.run(["update-rc.d", "nginx", "disable"], check=False)


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
