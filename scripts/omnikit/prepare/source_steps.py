"""The steps of a deployment by name, which are also tags; what sync_code and pip_install would do,
and doing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import AbstractSet, Any, Mapping, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.log import say
from hostkit.copy.tree import shown
from omnikit.config.config import Config
from omnikit.fleet import bundle, jobs
from omnikit.plan import containers
from omnikit.plan.types import HostPlan, Plan
from omnikit.prepare.look import Look
from omnikit.source import sync as source_sync
from omnikit.source.transfer import Source

# In omni-infer's order. Each is also a tag of the exported playbook and a task of its own.
STEPS = ("run_docker", "sync_code", "pip_install", "ranktable", "run_server", "run_proxy")
# Tags that a deployment does not have: what to use instead.
_OTHERS = {
    "stop_server": "invoke stop",
    "fetch_log": "invoke fetch-logs",
    "clean_up": "invoke clean-up",
}


def choose(tags: str = "", skip: str = "") -> frozenset[str]:
    """The steps to do. tags, skip: names separated by commas; no tags means all.

    Raises InputError for a name that is no step.
    """
    wanted = named(tags) or frozenset(STEPS)
    left_out = [name for name in _split(skip) if name not in _OTHERS]
    return wanted - set(_checked(left_out, "--skip-tags"))


def named(tags: str) -> frozenset[str]:
    """The steps that were asked for by name."""
    return frozenset(_checked(_split(tags), "--tags"))


def _split(text: str) -> Sequence[str]:
    return [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]


def _checked(found: Sequence[str], where: str) -> Sequence[str]:
    for name in found:
        if name in _OTHERS:
            raise InputError(
                f"{name} is no part of a deployment.", where=where, todo=f"use: {_OTHERS[name]}"
            )
        if name not in STEPS:
            raise InputError(
                f"there is no step {name!r}.", where=where, todo=f"choose of: {', '.join(STEPS)}"
            )
    return found


@dataclass
class SourceLook:
    """What copying the source would do. lines: by host where something differs; used: hosts where
    that is something that servers use, and why.
    """

    source: Optional[Source] = None
    lines: dict[str, str] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """For a release: what was deployed."""
        if self.source is None:
            return {}
        return {"revision": self.source.revision["describe"], **self.source.revision}


def look(config: Config, plan: Plan, steps: AbstractSet[str], asked: bool) -> SourceLook:
    """Compare the source with the hosts' copies. asked: it was named, so it must be configured.

    Changes nothing. Raises InputError or ActionError.
    """
    if "sync_code" not in steps or not (asked or source_sync.is_wanted(config)):
        return SourceLook()
    source_sync.destination(config, plan)
    patched = source_sync.patch(config, dry_run=True)
    if "would be" in patched:
        say(patched)
    found = SourceLook(source_sync.source(config))
    assert found.source is not None
    for warning in found.source.warnings:
        say(f"note: {warning}")
    request = source_sync.Request(dry_run=True)
    hosts = hosts_of(plan)
    done = source_sync.sync(config, plan, hosts, found.source, request)
    for host, result in jobs.results(done).items():
        if result["action"] == "would change":
            found.lines[host] = source_sync.line(result)
            if result["used"]:
                more = f" and {len(result['used']) - 1} more" if len(result["used"]) > 1 else ""
                found.used[host] = shown(result["used"][0]) + more
    return found


def hosts_of(plan: Plan) -> list[str]:
    """Hosts with servers: the proxy needs no source."""
    with_servers = {node.host for node in plan.nodes}
    return [host.name for host in plan.hosts if host.name in with_servers]


def restarts(found: Look, made: SourceLook, plan: Plan) -> None:
    """Nodes that must be restarted because their source will be another one, added to found."""
    for node in plan.nodes:
        if node.host in made.used and found.actions.get(node.name) == "unchanged":
            found.actions[node.name] = found.hosts[node.host][node.name] = "restart"
            found.reasons[node.name] = f"its source changes: {made.used[node.host]}"
            found.replaces.append(node.name)


def sync(config: Config, plan: Plan, made: SourceLook) -> dict[str, str]:
    """Copy the source to the hosts where it differs: what became of each. Raises for failures."""
    if made.source is None or not made.lines:
        return {}
    done = source_sync.sync(
        config, plan, list(made.lines), made.source, source_sync.Request(owner="")
    )
    return {host: source_sync.line(result) for host, result in jobs.results(done).items()}


def install(config: Config, plan: Plan, hosts: Sequence[str]) -> dict[str, str]:
    """Have the source's packages where servers run: what became of each place. Raises."""
    given = parameters(config, plan, hosts)
    done = jobs.run(plan, config.settings, "pip-install", given)
    found = {}
    for host, result in jobs.results(done).items():
        for place, rows in result["places"].items():
            words = [f"{row['name']} {row['version']} {row['action']}" for row in rows]
            patched = result["patched"][place]["line"]
            words += [patched] if patched else []
            found[f"{place} on {host}"] = ", ".join(words)
    return found


def parameters(config: Config, plan: Plan, hosts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the job pip-install is told, by host. Raises InputError when no folder is set."""
    source, text = config.settings.source, config.settings.paths.code_dir
    if text is None:
        raise config.error(
            "no folder is set, so there is nothing to install from.",
            "paths",
            "code_dir",
            todo="name the source's folder on the hosts: --set paths.code_dir=DIR",
        )
    known = {host.name: host for host in plan.hosts}
    return {
        name: {
            "dir": known[name].path(text),
            "editable": {
                folder: {key: str(value) for key, value in env.items() if value is not None}
                for folder, env in source.editable.items()
            },
            "args": list(source.editable_args),
            "patches": source.patches,
            "set_aside": source.set_edits_aside,
            "http_proxy": config.settings.fleet.http_proxy,
            "work_dir": known[name].work_dir,
            "places": places(config, plan, known[name]),
        }
        for name in hosts
    }


def places(config: Config, plan: Plan, host: HostPlan) -> list[dict[str, Any]]:
    """Every Python of a host that servers run with."""
    specs: Mapping[str, Any] = containers.host_specs(config.settings, plan, host)
    if not specs:
        return [{"python": config.settings.source.python}]
    inside: dict[str, Any] = {"container_python": config.settings.container.python}
    inside["python"] = config.settings.container.python
    if host.local:
        inside["archive"] = str(bundle.jobs(config.environment))
    names = dict.fromkeys(node.container for node in plan.on_host(host.name) if node.container)
    reached = ("engine", "profile")
    return [{**inside, "container": n, **{k: specs[n][k] for k in reached}} for n in names]
