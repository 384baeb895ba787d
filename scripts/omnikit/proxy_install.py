"""Finds the proxy's software on this machine, and installs what is missing.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from omnikit import packages, run
from omnikit.errors import ActionError, InputError
from omnikit.proxy import places

Report = Callable[[str], None]
KINDS = ("auto", "nginx-njs", "vllm-router")


@dataclass(frozen=True)
class Nginx:
    """An nginx and the njs module for it."""

    path: str
    module: str

    @property
    def modules_dir(self) -> str:
        return str(Path(self.module).parent)


@dataclass(frozen=True)
class Outcome:
    """Which kind of proxy this machine runs. action: unchanged, installed or would install."""

    kind: str
    action: str
    why: str
    nginx: Optional[str] = None
    modules_dir: Optional[str] = None
    router: Optional[str] = None


def find(nginx: str | None = None, modules_dir: str | None = None) -> Nginx | None:
    """nginx with njs, as far as a look at the file system tells. Arguments: what is configured."""
    on_path = [found] if (found := shutil.which("nginx")) else []
    programs = [nginx] if nginx else [*places.NGINX_PLACES, places.SOURCE_BUILD_NGINX, *on_path]
    folders = [modules_dir] if modules_dir else places.MODULE_PLACES
    modules = [Path(folder) / places.JS_MODULE for folder in folders]
    for program in programs:
        if os.access(program, os.X_OK) and not Path(program).is_dir():
            for module in modules:
                if module.is_file():
                    return Nginx(program, str(module))
    return None


def fault(found: Nginx) -> str | None:
    """What nginx says against loading the module (built for another nginx, say), or None."""
    with tempfile.TemporaryDirectory() as folder:
        conf = f'pid nginx.pid;\nload_module "{found.module}";\nevents {{}}\n'
        (Path(folder) / "nginx.conf").write_text(conf, encoding="utf-8")
        words = [found.path, "-e", "stderr", "-p", f"{folder}/", "-c", "nginx.conf", "-t", "-q"]
        result = run.run(words, check=False)
    return result.tail if result.code else None


def find_router(venv: Path) -> str | None:
    """vllm-router of the pinned version in its virtual environment."""
    program = venv / places.ROUTER_PROGRAM
    info = places.ROUTER_REQUIREMENT.replace("-", "_").replace("==", "-") + ".dist-info"
    there = os.access(program, os.X_OK) and any(venv.glob(f"lib/python*/site-packages/{info}"))
    return str(program) if there else None


def install(
    kind: str, venv: Path | None, *, dry_run: bool, lock_timeout_s: int, report: Report
) -> Outcome:
    """Make this machine able to run a proxy of this kind; auto takes nginx where it can be had."""
    if kind == "vllm-router":
        return _router(venv, "it was asked for", dry_run=dry_run, report=report)
    found = find()
    against = fault(found) if found else None
    if found and not against:
        return _nginx(found, "unchanged", "nginx with njs is here")
    if against:
        obstacle: str | None = f"nginx here does not load njs: {against}"
    else:
        obstacle = packages.obstacle(dry_run=dry_run, report=report)
    if obstacle is None and dry_run:
        return Outcome("nginx-njs", "would install", f"packages: {' '.join(packages.NAMES)}")
    if obstacle is None:
        packages.install(lock_timeout_s=lock_timeout_s, report=report)
        found = find()
        against = fault(found) if found else "nginx or its njs module is in no known place"
        if found is None or against:
            raise ActionError(
                f"the packages were installed, but: {against}",
                todo="set proxy.nginx and proxy.modules_dir, or proxy.kind to vllm-router",
            )
        return _nginx(found, "installed", f"packages: {' '.join(packages.NAMES)}")
    if kind == "nginx-njs":
        raise InputError(
            f"nginx with njs is not here and cannot be installed: {obstacle}.",
            where="proxy.kind",
            todo=f"as root: apt-get install {' '.join(packages.NAMES)}; or --kind auto",
        )
    return _router(
        venv, f"nginx with njs cannot be had: {obstacle}", dry_run=dry_run, report=report
    )


def _nginx(found: Nginx, action: str, why: str) -> Outcome:
    return Outcome("nginx-njs", action, why, nginx=found.path, modules_dir=found.modules_dir)


def _router(venv: Path | None, why: str, *, dry_run: bool, report: Report) -> Outcome:
    if venv is None:
        raise InputError(
            f"vllm-router needs a virtual environment ({why}).",
            where="--venv",
            todo="name a folder for it: --venv DIR",
        )
    there = find_router(venv)
    program = str(venv / places.ROUTER_PROGRAM)
    if there or dry_run:
        action = "unchanged" if there else "would install"
        return Outcome("vllm-router", action, why, router=program)
    report(f"installing {places.ROUTER_REQUIREMENT} (about 60 MB) into {venv}: {why}")
    run.run([sys.executable, "-m", "venv", venv])
    last: list[str] = []

    def on_line(line: str) -> None:
        last.append(line)
        if line.startswith(("Collecting", "Installing")):
            report(f"  {line}")

    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
    if run.stream([*pip, places.ROUTER_REQUIREMENT], on_line) != 0 or not find_router(venv):
        raise ActionError(
            "pip could not install vllm-router:\n" + "\n".join(last[-8:]),
            todo="check that a Python package index can be reached (pip config list)",
        )
    return Outcome("vllm-router", "installed", why, router=program)
