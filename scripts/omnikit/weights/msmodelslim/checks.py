"""What msmodelslim needs, looked at all at once before hours of work. Reads, changes nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from hostkit.base import run
from hostkit.base.errors import InputError, ManyErrors, ToolkitError
from hostkit.base.log import table
from hostkit.base.values import whole
from hostkit.ranks import device_facts
from omnikit.engine.progress import Progress, Say
from omnikit.weights.checkpoint import headers
from omnikit.weights.msmodelslim import edits
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.tool import Tool

_TORCH = "2.1.0"
BRANCH = "8.0.RC1_ZS2.0_20251230"
_SIGN_EVERY_S = 10.0
_CANN = "https://www.hiascend.com/developer/download/community/result?module=pt+cann"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. todo: how to mend it."""

    name: str
    ok: bool
    found: str
    needed: str = ""
    todo: str = ""
    warning: bool = False

    @property
    def cell(self) -> str:
        """How it came out, for a table."""
        return ("WARN" if self.warning else "ok") if self.ok else "FAILED"


@dataclass(frozen=True)
class Looked:
    """All checks, and the environment that the tool is to have."""

    checks: tuple[Check, ...]
    environment: Mapping[str, str]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that must be mended first."""
        return tuple(check for check in self.checks if not check.ok)


def look(tool: Tool, source: Path, out: Path, say: Say) -> Looked:
    """All that must hold before a conversion of source into out."""
    progress = Progress(say, _SIGN_EVERY_S, name="msmodelslim")
    progress.step(
        f"checking what it needs; {tool.script.name} --help loads torch, which takes time"
    )
    with progress.watched():
        return _look(tool, source, out)


def _look(tool: Tool, source: Path, out: Path) -> Looked:
    own = [_source(source), _edits(source), _disk(tool, source, out), _script(tool)]
    cann: dict[str, str] = {}
    try:
        cann = msmodelslim_tool.sourced(tool)
        own.append(Check("CANN environment", True, str(tool.set_env)))
    except ToolkitError as error:
        own.append(_failed("CANN environment", error, f"source {tool.set_env}", _install_cann()))
    environment = msmodelslim_tool.environment(tool, cann)
    own += _cann(tool, environment)
    own.append(_devices(tool, environment))
    packages = _packages(tool, environment)
    own += packages
    own.append(_flags(tool, environment, all(one.ok for one in [*packages, own[3]])))
    return Looked(tuple(own), environment)


def overview(checks: tuple[Check, ...]) -> str:
    """The checks for people, as a table."""
    rows = [[one.cell, one.name, one.found] for one in checks]
    return table(rows, ["", "check", "found"])


def text(checks: tuple[Check, ...]) -> str:
    """The same, and what to do about each that failed."""
    lines = [overview(checks)]
    for one in checks:
        if not one.ok:
            lines.append(f"{one.name}: found {one.found}, needed {one.needed}\n  {one.todo}")
    return "\n".join(lines)


def refuse(checks: tuple[Check, ...]) -> None:
    """Raise InputError with all that failed, if anything did."""
    errors: list[ToolkitError] = [
        InputError(f"found {one.found}, needed {one.needed}.", where=one.name, todo=one.todo)
        for one in checks
        if not one.ok
    ]
    if errors:
        raise ManyErrors(errors)


def _failed(name: str, error: ToolkitError, needed: str, todo: str) -> Check:
    return Check(name, False, error.what.rstrip("."), needed, todo)


def _source(source: Path) -> Check:
    problems = headers.problems(source)
    count, size = headers.written(source) if source.is_dir() else (0, 0)
    return Check(
        *("source", not problems),
        "; ".join(problems) or f"{count} weight files, {size / 2**30:.1f} GiB",
        "a whole checkpoint",
        "fetch what is missing or damaged again: invoke download-weights --source=modelscope"
        f" --repository=deepseek-ai/DeepSeek-R1 --target={source} --verify",
    )


def _edits(source: Path) -> Check:
    try:
        changes = edits.plan(source, edits.before())
    except InputError as error:
        errors = error.errors if isinstance(error, ManyErrors) else [error]
        found = "; ".join(f"{one.where}: {one.what.rstrip('.')}" for one in errors)
        todo = f"invoke prepare-checkpoint --dir={source} --dry-run"
        return Check("edits", False, found, "files as published, or as we edit them", todo)
    done = sum(bool(change.done) for change in changes)
    if done and not os.access(source, os.W_OK):
        mount = f"findmnt -T {source}; copy the small files, link the weights: cp -rs {source} DIR"
        found = f"{done} files to edit, but {source} cannot be written"
        return Check("edits", False, found, "a source that can be edited", mount)
    return Check("edits", True, f"{done} files to edit" if done else "done before")


def _disk(tool: Tool, source: Path, out: Path) -> Check:
    there = out
    while not there.exists():
        there = there.parent
    size = headers.written(source)[1] if source.is_dir() else 0
    need = int(size * tool.free_ratio)
    free = shutil.disk_usage(there).free
    partial = out.with_name(f"{out.name}.incomplete")
    if partial.is_dir():  # it will be removed first
        free += headers.written(partial)[1]
    writable = os.access(there, os.W_OK)
    return Check(
        *("disk space", free >= need and writable),
        f"{free / 2**30:.1f} GiB free in {there}" + ("" if writable else ", not writable"),
        f"{need / 2**30:.1f} GiB (weights.msmodelslim.free_ratio x the source)",
        f"free some, or choose another --target; what is large: du -xh {there} | sort -h | tail",
    )


def _script(tool: Tool) -> Check:
    here = tool.script.is_file()
    return Check(
        *("msmodelslim", here),
        str(tool.script) if here else f"no file {tool.script}",
        "its checkout (weights.msmodelslim.dir)",
        f"git clone --depth 1 -b {BRANCH} https://gitee.com/ascend/msit.git, then"
        " bash install.sh in its folder msmodelslim, and --set weights.msmodelslim.dir=FOLDER",
    )


def _install_cann() -> str:
    return (
        "bash Ascend-cann-toolkit_8.1.RC1_linux-$(uname -m).run --install --quiet; from"
        f" {_CANN}; elsewhere: --set weights.msmodelslim.set_env=FILE"
    )


def _cann(tool: Tool, environment: Mapping[str, str]) -> list[Check]:
    home = Path(environment.get("ASCEND_TOOLKIT_HOME", tool.set_env.parent / "latest"))
    toolkit = [_version(path) for path in home.glob("*-linux/ascend_toolkit_install.info")]
    kernels = [_version(home / "opp_kernel" / "version.info")]
    kernels += [_version(path) for path in home.glob("*-linux/ascend_ops_install.info")]
    return [
        Check(
            *("CANN toolkit", any(toolkit)),
            next(filter(None, toolkit), f"none in {home}"),
            "the CANN toolkit, 8.1.RC1 in the install guide",
            _install_cann(),
        ),
        Check(
            *("CANN kernels", any(kernels)),
            next(filter(None, kernels), f"none in {home}"),
            "the kernels of the toolkit's version and of this machine's NPUs",
            f"bash Atlas-A3-cann-kernels_8.1.RC1_linux-$(uname -m).run --install --quiet; from"
            f" {_CANN}",
        ),
    ]


def _version(path: Path) -> str:
    """CANN's version in one of its info files; version_dir is what people call it."""
    if not path.is_file():
        return ""
    pairs = (line.partition("=") for line in path.read_text("utf-8", "replace").splitlines())
    values = {key.strip().lower(): value.strip() for key, _, value in pairs}
    return values.get("version_dir") or values.get("version") or "of unknown version"


def _devices(tool: Tool, environment: Mapping[str, str]) -> Check:
    needed, todo = "NPUs whose health is OK", "npu-smi info; restart the host if one stays ill"
    try:
        words = [tool.npu_smi, "info"]
        done = run.run(words, env=environment, timeout=tool.timeout_s, check=False)
        info = device_facts.npu_smi_info(f"{done.out}\n{done.err}")
    except ToolkitError as error:
        install = "install the NPU driver, or set ranktable.npu_smi; then: npu-smi info"
        return _failed("NPUs", error, needed, install)
    visible = environment.get("ASCEND_RT_VISIBLE_DEVICES", "")
    ids = {whole(word.strip()) for word in visible.split(",")} - {None}
    chips = [chip for chip in info.chips if not ids or chip.phy_id in ids]
    ill = [f"{chip.phy_id} ({chip.health})" for chip in chips if chip.health != "OK"]
    used = {(one.card, one.chip) for one in info.processes}
    busy = sum((chip.card, chip.chip) in used for chip in chips)
    found = f"{len(chips)} devices, driver {info.version}"
    found += f", not OK: {', '.join(ill)}" if ill else ""
    found += f"; {busy} in use by other processes" if busy else ""
    return Check("NPUs", bool(chips) and not ill, found, needed, todo, warning=bool(busy))


def _packages(tool: Tool, environment: Mapping[str, str]) -> list[Check]:
    try:
        facts = msmodelslim_tool.python_facts(tool, environment)
    except ToolkitError as error:
        todo = "--set weights.msmodelslim.python=PROGRAM, one with torch-npu and transformers"
        return [_failed("Python", error, "the Python that has the packages", todo)]
    found: dict[str, Any] = facts["packages"]
    version = tuple(facts["python"])
    pip = f"{tool.python} -m pip install"
    torch, npu = found["torch"], found["torch-npu"]
    return [
        Check(
            *("Python", (3, 9) <= version[:2] <= (3, 11)),
            f"{'.'.join(map(str, version))}, {facts['path']}",
            "3.9 to 3.11",
            "--set weights.msmodelslim.python=PROGRAM",
        ),
        Check(
            *("transformers", found["transformers"] == tool.transformers),
            found["transformers"] or "none",
            f"{tool.transformers} (weights.msmodelslim.transformers)",
            f"{pip} transformers=={tool.transformers}",
        ),
        Check(
            *("accelerate", bool(found["accelerate"])),
            found["accelerate"] or "none",
            "any",
            f"{pip} accelerate",
        ),
        Check(
            *("torch-npu", bool(torch and npu) and _base(torch) == _base(npu)),
            f"torch-npu {npu or 'none'}, torch {torch or 'none'}",
            f"both, of the same version, {_TORCH} in the install guide",
            f"{pip} 'torch-npu=={_base(torch or _TORCH)}.*'"
            + ("" if torch else f" torch=={_TORCH}"),
        ),
    ]


def _base(version: str) -> str:
    """2.1.0 of 2.1.0+cpu and of 2.1.0.post10."""
    return ".".join(version.partition("+")[0].split(".")[:3])


def _flags(tool: Tool, environment: Mapping[str, str], can_start: bool) -> Check:
    needed = " ".join(["--model_path", "--save_path", *tool.flags])
    todo = (
        f"take msit's branch {BRANCH} (others have no --cloud_vllm, and other values of"
        " --quant_mtp), or set weights.msmodelslim.flags to what this one knows"
    )
    if not can_start:
        return Check("flags", False, "not asked: it cannot start", needed, "mend the above first")
    try:
        told = msmodelslim_tool.help_text(tool, environment)
    except ToolkitError as error:
        return _failed("flags", error, f"{tool.script.name} --help that works", "mend its error")
    places = ["--model_path", "x", "--save_path", "x"]
    problems = msmodelslim_tool.flag_problems(told, [*places, *tool.flags])
    return Check("flags", not problems, "; ".join(problems) or "all known", needed, todo)
