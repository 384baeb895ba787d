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

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from omnikit import proxy
from omnikit.engine.install import without_index
from omnikit.fleet import apt
from omnikit.proxy import spec

Report = Callable[[str], None]
# What the proxy needs of Lua: 0.10.14 brought socket:receiveany, the library comes in a package of
# its own. nginx -t would not run it.
NEEDED = (
    'assert(ngx.config.ngx_lua_version >= 10014, "its Lua module is older than 0.10.14") '
    'require "ngx.balancer" os.exit(0)'
)
ROUTER_LOCK = Path(__file__).parents[3] / "configs/engines/router-requirements.txt"
LOOK_S = 20.0
KINDS = ("auto", "nginx-lua", "vllm-router", *proxy.OLD_NAMES)


@dataclass(frozen=True)
class Nginx:
    """An nginx and the folder with its Lua module."""

    path: str
    modules_dir: str


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
    """nginx with Lua, as far as a look at the file system tells. Arguments: what is configured."""
    on_path = [found] if (found := shutil.which("nginx")) else []
    programs = [nginx] if nginx else [*spec.NGINX_PLACES, spec.SOURCE_BUILD_NGINX, *on_path]
    folders = [modules_dir] if modules_dir else spec.MODULE_PLACES
    for program in programs:
        if os.access(program, os.X_OK) and not Path(program).is_dir():
            for folder in folders:
                if all((Path(folder) / name).is_file() for name in spec.LUA_MODULES):
                    return Nginx(program, str(folder))
    return None


def fault(found: Nginx) -> str | None:
    """What nginx says against its Lua modules (built for another nginx, say), or None."""
    with tempfile.TemporaryDirectory() as folder:
        loads = "".join(f'load_module "{found.modules_dir}/{m}";\n' for m in spec.LUA_MODULES)
        conf = f"pid nginx.pid;\n{loads}events {{}}\nhttp {{ init_by_lua_block {{ {NEEDED} }} }}\n"
        (Path(folder) / "nginx.conf").write_text(conf, encoding="utf-8")
        words = [found.path, "-e", "stderr", "-p", f"{folder}/", "-c", "nginx.conf"]
        result = run.run(words, check=False, timeout=LOOK_S)
    return result.tail if result.code else None


def find_router(venv: Path) -> str | None:
    """vllm-router of the pinned version in its virtual environment."""
    program = venv / spec.ROUTER_PROGRAM
    info = spec.ROUTER_REQUIREMENT.replace("-", "_").replace("==", "-") + ".dist-info"
    there = os.access(program, os.X_OK) and any(venv.glob(f"lib/python*/site-packages/{info}"))
    return str(program) if there else None


def install(
    kind: str, venv: Path | None, *, dry_run: bool, lock_timeout_s: int, report: Report
) -> Outcome:
    """Make this machine able to run a proxy of this kind; auto takes nginx where it can be had."""
    kind = proxy.OLD_NAMES.get(kind, kind)
    if kind == "vllm-router":
        return _router(venv, "it was asked for", dry_run=dry_run, report=report)
    found = find()
    against = fault(found) if found else None
    if found and not against:
        return _nginx(found, "unchanged", "nginx with Lua is here")
    if against:
        obstacle: str | None = f"nginx here does not load Lua: {against}"
    else:
        obstacle = apt.obstacle(dry_run=dry_run, report=report)
    if obstacle is None and dry_run:
        return Outcome("nginx-lua", "would install", f"packages: {' '.join(apt.NAMES)}")
    if obstacle is None:
        try:
            apt.install(apt.NAMES, lock_timeout_s=lock_timeout_s, report=report)
        except ActionError as error:
            # Lists of packages outlive the way to the packages themselves.
            if kind == "nginx-lua":
                raise
            why = "; ".join(["nginx with Lua cannot be had", *error.what.splitlines()[:2]])
            return _router(venv, why, dry_run=dry_run, report=report)
        found = find()
        against = fault(found) if found else "nginx or its Lua module is in no known place"
        if found is None or against:
            raise ActionError(
                f"the packages were installed, but: {against}",
                todo="set proxy.nginx and proxy.modules_dir, or proxy.kind to vllm-router",
            )
        return _nginx(found, "installed", f"packages: {' '.join(apt.NAMES)}")
    if kind == "nginx-lua":
        raise InputError(
            f"nginx with Lua is not here and cannot be installed: {obstacle}.",
            where="proxy.kind",
            todo=f"as root: apt-get install {' '.join(apt.NAMES)}; or --kind auto",
        )
    return _router(
        venv, f"nginx with Lua cannot be had: {obstacle}", dry_run=dry_run, report=report
    )


def _nginx(found: Nginx, action: str, why: str) -> Outcome:
    return Outcome("nginx-lua", action, why, nginx=found.path, modules_dir=found.modules_dir)


def _router(venv: Path | None, why: str, *, dry_run: bool, report: Report) -> Outcome:
    if venv is None:
        raise InputError(
            f"vllm-router needs a virtual environment ({why}).",
            where="--venv",
            todo="name a folder for it: --venv DIR",
        )
    there = find_router(venv)
    program = str(venv / spec.ROUTER_PROGRAM)
    if there or dry_run:
        action = "unchanged" if there else "would install"
        return Outcome("vllm-router", action, why, router=program)
    report(f"installing {spec.ROUTER_REQUIREMENT} (about 60 MB) into {venv}: {why}")
    run.run([sys.executable, "-m", "venv", venv])
    last: list[str] = []

    def on_line(line: str) -> None:
        last.append(line)
        if line.startswith(("Collecting", "Installing")):
            report(f"  {line}")

    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--require-hashes", "--only-binary=:all:", "-r", str(ROUTER_LOCK)]
    if run.stream(pip, on_line, env=without_index()) != 0 or not find_router(venv):
        raise ActionError(
            "pip could not install vllm-router:\n" + "\n".join(last[-8:]),
            todo="check that a Python package index can be reached (pip config list)",
        )
    return Outcome("vllm-router", "installed", why, router=program)
