"""Hosts as they are: asked over SSH before there is a plan, and which of them can serve nothing.

Nothing of ours stays on a host: what is shipped lies in a folder that goes again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Optional

from hostkit.base.errors import ToolkitError
from hostkit.base.log import some
from omnikit.config.config import Config
from omnikit.config.schema import Host, Settings
from omnikit.fleet import direct_ssh
from omnikit.plan.types import HostPlan

Facts = dict[str, Any]
_FOLDER = ".omnikit-init"  # in the home of who logs in
_ROOTS = ("/data", "/mnt", "/models", "/home", "/opt")  # where weights may lie besides


@dataclass(frozen=True)
class Fault:
    """Why a host cannot serve, and what would help. keys: that is to be let in."""

    what: str
    todo: str = ""
    keys: bool = False


def survey(config: Config) -> tuple[dict[str, Facts], dict[str, Fault]]:
    """What each host has; those that cannot be asked or can serve nothing, with the reason."""
    settings = config.settings
    asked = _parameters(settings)

    def one(name: str) -> Facts | Fault:
        own = settings.hosts[name]
        host = HostPlan(name, own.address, own, _FOLDER, _FOLDER, 0)
        try:
            with direct_ssh.link(host, settings) as way:
                try:
                    facts = way.job("survey", asked)
                finally:
                    if way.words:
                        way.ask("rm", "-rf", "--", _FOLDER)
        except ToolkitError as error:
            todo = error.todo or ""
            return Fault(error.what.rstrip("."), todo, keys="setup-keys" in todo)
        return unfit(settings, own, facts) or facts

    with ThreadPoolExecutor(max_workers=min(settings.fleet.forks, len(settings.hosts))) as pool:
        found = dict(zip(settings.hosts, pool.map(one, settings.hosts)))
    faults = {name: got for name, got in found.items() if isinstance(got, Fault)}
    return {name: got for name, got in found.items() if not isinstance(got, Fault)}, faults


def _parameters(settings: Settings) -> dict[str, Any]:
    repository = settings.weights.download.repository or ""
    names = {PurePosixPath(settings.model.path).name, repository.rpartition("/")[2]}
    return {
        "device_kind": settings.engine.device_kind,
        "checks": settings.checks.model_dump(),
        "ranktable": settings.ranktable.model_dump(),
        "container_engine": settings.container.engine,
        "work_dir": settings.paths.work_dir,
        "weights": {
            "paths": [settings.model.path],
            "names": sorted(names - {""}),
            "roots": list(_ROOTS),
        },
    }


def unfit(settings: Settings, host: Host, facts: Facts) -> Optional[Fault]:
    """Why a host of which this is known can serve nothing as it is."""
    broken = {one["of"]: one for one in facts["problems"]}
    for part in ("system", "devices", *(["images"] if settings.runtime == "docker" else [])):
        if part in broken:
            return Fault(broken[part]["what"].rstrip("."), broken[part]["todo"])
    sick = [chip for chip in (facts["devices"] or {}).get("chips", ()) if chip["health"] != "OK"]
    if sick:
        chips = some([f"device {chip['phy_id']} is {chip['health']}" for chip in sick])
        first = f"-i {sick[0]['card']} -c {sick[0]['chip']}"
        return Fault(
            f"{chips}, expected OK",
            f"npu-smi info -t health {first}; npu-smi set -t reset {first}, when nothing uses it",
        )
    own = [one for _, one in (facts["network"] or {"addresses": ()})["addresses"]]
    if own and host.address not in own and not host.local:
        there = some([one for one in own if not one.startswith("127.")])
        return Fault(
            f"{host.address} is not its own address; it has {there}: the other hosts would not"
            " find it",
            "give the address by which the hosts reach each other (--hosts), and a way there"
            " (--jump)",
        )
    return None
