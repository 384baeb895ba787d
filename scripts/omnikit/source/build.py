"""omni-infer and vLLM from source, on this machine or on hosts: parameters, steps, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import say, table
from hostkit.source import build_run, build_state, clone, git, source_jobs
from hostkit.source import packages as source_packages
from omnikit.config.config import Config
from omnikit.fleet import bundle, jobs
from omnikit.images import pull
from omnikit.plan import containers
from omnikit.plan.types import Plan
from omnikit.topology.topology import resolve_path

HERE = pull.HERE
# Each step: the job that does it, and the function that does it on this machine.
_JOBS: Mapping[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "fetch": ("source", source_jobs.fetch),
    "build": ("build", source_jobs.build),
    "install": ("install", source_packages.install),
    "check": ("packages", source_packages.check),
}
STEPS = tuple(_JOBS)
Parameters = dict[str, dict[str, Any]]
Dones = Mapping[str, jobs.Done]


def parameters(
    config: Config,
    plan: Optional[Plan],
    hosts: Sequence[str],
    steps: Sequence[str],
    *,
    folder: Optional[str] = None,
    container: Optional[str] = None,
) -> Parameters:
    """What the jobs are told, by host; all steps' together. plan: None for this machine alone."""
    source = config.settings.source
    for name in ("omniinfer", "vllm"):
        _check_source(config, name)
    local = _local(plan)
    given: dict[str, Any] = {
        "omniinfer": _one(config, "omniinfer"),
        "vllm": _one(config, "vllm"),
        "attempts": source.attempts,
        "delay_s": config.settings.source.delay_s,
        "stall_s": config.settings.source.stall_s,
        "free_mib": source.free_mib,
        "http_proxy": config.settings.fleet.http_proxy,
        "build": list(source.build),
        "patches": source.patches,
        "python": source.python,
        "packages": list(source.packages),
        "optional": list(source.optional),
        "container": container,
        "engine": config.settings.container.engine,
        "container_python": config.settings.container.python,
        "profile": containers.profile(config.settings),
    }
    needs_folder = list(steps) != ["check"]
    made: Parameters = {}
    for host in hosts:
        here = (plan is None or host in local) and not container
        made[host] = {**given, "dir": _folder(config, folder, here) if needs_folder else ""}
    return made


def _local(plan: Optional[Plan]) -> set[str]:
    """The hosts of a plan that are this machine."""
    hosts = plan.hosts if plan is not None else ()
    return {host.name for host in hosts if host.settings.connection == "local"}


def _one(config: Config, name: str) -> dict[str, Any]:
    source = config.settings.source
    return {key: getattr(source, f"{name}_{key}") for key in ("urls", "ref", "commit")}


def _check_source(config: Config, name: str) -> None:
    given = _one(config, name)
    try:
        key = f"{name}_urls"
        for url in given["urls"]:
            git.check_url(url)
        key = f"{name}_ref"
        git.check_ref(given["ref"])
    except InputError as error:
        raise config.error(error.what, "source", key, todo=error.todo) from error


def _folder(config: Config, given: Optional[str], local: bool) -> str:
    """The source's folder. Raises InputError when none is set, or it must be absolute."""
    paths = config.settings.paths
    if given is not None:
        folder = Path(given).expanduser().absolute() if local else Path(given)
        if not folder.is_absolute():
            raise InputError(
                f"expected an absolute path on a host or in a container, found {given!r}.",
                where="--dir",
            )
        return str(folder)
    text = (paths.local_code_dir if local else None) or paths.code_dir
    if not text:
        raise config.error(
            "no folder is set for the source of omni-infer.",
            "paths",
            "code_dir",
            todo="name one: --dir DIR, or set paths.code_dir",
        )
    return resolve_path(text, local)


def do(config: Config, plan: Optional[Plan], step: str, given: Parameters) -> Dones:
    """One step, on this machine alone (plan: None) or on hosts. Never raises for a host."""
    job, act = _JOBS[step]
    for host in given:
        if given[host]["container"] and (plan is None or host in _local(plan)):
            given = {
                **given,
                host: {**given[host], "archive": str(bundle.jobs(config.environment))},
            }
    if plan is None:
        try:
            return {HERE: jobs.Done(result=act(given[HERE]))}
        except ToolkitError as error:
            return {HERE: jobs.Done(error=error)}
    say(f"{step} on {len(given)} hosts")
    # Servers of sources, like registries, are not asked by all hosts at once.
    at_once = config.settings.source.at_once if step == "fetch" else 0
    return jobs.run(plan, config.settings, job, given, at_once=at_once, on_done=_tell)


def _tell(host: str, done: jobs.Done) -> None:
    what = f"failed: {done.error.what.splitlines()[0]}" if done.error is not None else "done"
    say(f"host {host}: {what}")


def report(step: str, done: Dones) -> str:
    """What a step brought on the hosts that did it, as text."""
    found = {host: one.result for host, one in done.items() if one.result is not None}
    if step == "check":
        return _packages(found) if found else ""
    lines = {"fetch": _fetched, "build": _built, "install": _installed}[step]
    return "\n".join(f"{host}: {line}" for host, result in found.items() for line in lines(result))


def _fetched(result: dict[str, Any]) -> list[str]:
    lines = []
    for name, one in result["sources"].items():
        text = f"{name} {one['action']}: {one['ref']} ({one['commit'][:12]}) in {one['folder']}"
        lines.append(f"{text}; {one['note']}" if "note" in one else text)
    return lines


def _built(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['action']}: {one['file']}" for one in result["wheels"]]
    return [*lines, f"note: {result['note']}"] if "note" in result else lines


def _installed(result: dict[str, Any]) -> list[str]:
    lines = []
    for one in result["packages"]:
        text = f"{one['name']} {one['action']}"
        text += f": {one['version']}" if one["version"] else ""
        lines.append(f"{text} (was {one['before']})" if _replaced(one) else text)
    return lines


def _replaced(one: dict[str, Any]) -> bool:
    return one["action"] != "unchanged" and bool(one["before"])


def _packages(found: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for host, result in found.items():
        for one in result["packages"]:
            importable = {True: "yes", False: "no", None: "-"}[one["importable"]]
            version = one["version"] or ("missing" if one["needed"] else "none (optional)")
            rows.append([host, one["name"], version, importable, one["location"] or "-"])
    return table(rows, ["host", "package", "version", "importable", "location"])


def check_found(done: Dones) -> None:
    """Raise ActionError when a package is missing or broken, or versions differ between hosts."""
    found = {host: one.result for host, one in done.items() if one.result is not None}
    problems = [
        f"{host}: {name} is missing or cannot be imported in {result['python']}."
        for host, result in found.items()
        for name in result["wrong"]
    ]
    todo = "install them: scripts/build_from_source.sh --only install"
    versions: dict[str, dict[str, list[str]]] = {}
    for host, result in found.items():
        for one in result["packages"]:
            versions.setdefault(one["name"], {}).setdefault(one["version"] or "none", []).append(
                host
            )
    for name, by_version in versions.items():
        if len(by_version) > 1:
            said = "; ".join(f"{v} on {', '.join(hosts)}" for v, hosts in by_version.items())
            problems.append(f"{name} is not the same on all hosts: {said}.")
    if problems:
        raise ActionError("\n".join(problems), todo=todo)


def commands(step: str, given: dict[str, Any]) -> list[str]:
    """What a step may run, as lines, for --dry-run: all that it would where nothing is there."""
    engine = "podman" if given["engine"] == "podman" else "docker"
    container, profile = given["container"], given["profile"]
    inside = ["exec", container] if container else []
    if container and profile:  # shorter than what is run, and as good for who pastes it
        inside += ["bash", "-c", f'. {run.show([profile["file"]])}; exec "$@"', "bash"]
    before = run.show([engine, *inside]) + " " if inside else ""
    code, python = Path(given["dir"]), given["python"]
    if step == "fetch":
        argvs = [argv for one in source_jobs.wanted(given) for argv in clone.plan_argvs(one)]
        return [before + run.show(argv) for argv in argvs]
    if step == "build":
        words = run.show(build_run.argv(given))
        if inside:
            there = [engine, "exec", "-w", code, *inside[1:]]
            return [f"{run.show(there)} {words}"]
        return [f"cd {run.show([code])} && {words}"]
    packages = given["packages"]
    if step == "install":
        dist = run.show([code / build_state.DIST])
        wheels = " ".join(f"{dist}/{name}-*.whl" for name in packages)
        install = run.show(source_packages.install_argv(python, []))
        return [
            f"{before}{install} --dry-run {wheels}",
            before + run.show(source_packages.uninstall_argv(python, packages)),
            f"{before}{install} {wheels}",
        ]
    look = source_packages.look_argv(python, packages)
    look[2] = "import importlib.metadata, ..."
    return [before + run.show(look)]
