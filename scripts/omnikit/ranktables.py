"""The rank tables of an environment: ask the hosts, build, compare, remember."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from omnikit import fleet, ranktable_compare, ranktable_plan
from omnikit.config import Config
from omnikit.deployment import Deployment, control_folder, prepare
from omnikit.errors import InputError
from omnikit.plan_types import Plan
from omnikit.ranktable_check import Instance

Facts = Mapping[str, Any]
# Where a host's tables lie below its ranktable folder: the cluster's in a folder of its own.
GLOBAL = "global"


def needed(config: Config, plan: Plan) -> bool:
    """Whether the plan's servers read rank tables at all."""
    return config.settings.engine.device_kind == "npu" and plan.disaggregated


def gather(config: Config) -> dict[str, Any]:
    """What every host says about its accelerators and addresses now, by host name."""
    deployment = prepare(config, {}, {"kind": "nginx-njs"}, {})
    # Only host.json matters for the question: the archive is not the one that is deployed.
    return _ask(_beside(deployment))


def _beside(deployment: Deployment) -> Deployment:
    from dataclasses import replace

    return replace(deployment, folder=deployment.folder / "facts")


def _ask(deployment: Deployment) -> dict[str, Any]:
    deployment.write()
    outcome = fleet.play("gather.yml", deployment.inventory, deployment.config.settings)
    fleet.raise_failures(outcome)
    return outcome.json("Ask for the accelerators")


def device_ips(gathered: Mapping[str, Facts]) -> dict[str, dict[int, str]]:
    """Device addresses by host and device. Raises InputError with every host's problems."""
    problems = [f"{host}: {text}" for host, f in gathered.items() for text in f["problems"]]
    if problems:
        raise InputError("the hosts' accelerators cannot be asked:\n  " + "\n  ".join(problems))
    return {
        host: {int(device): found["address"] for device, found in facts["device_ips"].items()}
        for host, facts in gathered.items()
    }


def build(plan: Plan, gathered: Mapping[str, Facts]) -> dict[str, dict[str, str]]:
    """All tables by host and path below ranktable/, validated against the plan."""
    made = ranktable_plan.build(ranktable_plan.instances(plan.nodes), device_ips(gathered))
    files = ranktable_plan.files(made, GLOBAL)
    return {host: dict(own) for host, own in files.items()}


def disagreements(
    plan: Plan, table_text: str, source: str, gathered: Mapping[str, Facts]
) -> list[str]:
    """Where the plan, a cluster table and what the hosts report now do not agree."""
    instances: tuple[Instance, ...] = ranktable_plan.instances(plan.nodes)
    try:
        table = json.loads(table_text)
    except ValueError as error:
        raise InputError(f"the rank table is not JSON: {error}.", where=source) from error
    live = {host: ranktable_compare.host_facts(facts) for host, facts in gathered.items()}
    return list(ranktable_compare.compare(instances, table, source, live))


def ensure(config: Config, plan: Plan) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Ask, build, check against the hosts, keep: the tables and what became of each file.

    Raises InputError when the plan and the hosts do not agree: nothing was changed then.
    """
    gathered = gather(config)
    tables = build(plan, gathered)
    problems = disagreements(plan, cluster_text(tables), "the new rank table", gathered)
    if problems:
        raise InputError("the plan and the hosts do not agree:\n  " + "\n  ".join(problems))
    return tables, write(plan.environment, tables)


def cluster_text(tables: Mapping[str, Mapping[str, str]]) -> str:
    """The cluster's table: the same text on every host."""
    return next(
        text for own in tables.values() for name, text in own.items() if name.startswith(GLOBAL)
    )


def folder(environment: str) -> Path:
    """Where the control host keeps an environment's tables, one folder per host."""
    return control_folder(environment) / "ranktables"


def write(environment: str, tables: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Keep the tables on the control host: created, rewritten or unchanged, by path."""
    from omnikit import ranktable_files

    done = {}
    for host, files in tables.items():
        for name, text in files.items():
            path = folder(environment) / host / name
            saved = ranktable_files.save_all(path.parent, {path.name: text}, dry_run=False)
            done[f"{host}/{name}"] = saved[path.name]
    return done


def remembered(environment: str) -> dict[str, dict[str, str]]:
    """The tables that were built last, by host; empty when there are none."""
    root = folder(environment)
    found: dict[str, dict[str, str]] = {}
    for path in sorted(root.rglob("*.json")) if root.is_dir() else ():
        host, *rest = path.relative_to(root).parts
        found.setdefault(host, {})["/".join(rest)] = path.read_text(encoding="utf-8")
    return found
