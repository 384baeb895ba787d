"""A configuration made ready to act on: its plan, rendered files, archives and inventory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from omnikit import bundle, fleet, host_file, layers
from omnikit.config import Config
from omnikit.plan_types import Plan
from omnikit.topology import make_plan

# The archive's name on the hosts.
ARCHIVE = "incoming.pyz"


@dataclass(frozen=True)
class Deployment:
    """config, plan and what was rendered from them. folder: build/<environment>-control."""

    config: Config
    plan: Plan
    folder: Path
    files: Mapping[str, Mapping[str, str]]
    proxy_kind: Optional[str]

    @property
    def inventory(self) -> Path:
        """Where the Ansible inventory is written."""
        return self.folder / "inventory.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes this environment."""
        return self.folder / "lock"

    def write(self) -> None:
        """Write rendered files, archives and inventory below the control folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        code = bundle.host_code()
        archives = {}
        for host, files in self.files.items():
            archives[host] = self.folder / host / ARCHIVE
            bundle.write(archives[host], bundle.archive(files, code))
        text = json.dumps(fleet.inventory(self.plan, self.config.settings, archives), indent=1)
        bundle.write(self.inventory, text.encode() + b"\n")


def control_folder(environment: str) -> Path:
    """Where the control host keeps what concerns an environment."""
    return layers.PROJECT / "build" / "control" / environment


def prepare(
    config: Config,
    inputs: Mapping[str, str],
    proxy_found: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, str]],
) -> Deployment:
    """Plan and render. Pure but for reading templates; see host_file.host_files for inputs.

    tables: rank tables by host name; none where there are no accelerators.
    """
    plan = make_plan(config)
    files = {
        host.name: host_file.host_files(
            plan, host, config.settings, inputs, proxy_found, tables.get(host.name, {})
        )
        for host in plan.hosts
    }
    kind = str(proxy_found["kind"]) if plan.proxy and proxy_found else None
    return Deployment(config, plan, control_folder(config.environment), files, kind)
