"""The rank tables of an environment: ask the hosts, build, compare, remember."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional, Protocol, Sequence

from hostkit.base.errors import InputError
from hostkit.ranks import ranktable
from hostkit.ranks.check import Instance, Member, check_global, check_local, check_merged, require
from hostkit.ranks.device_facts import Chip, address_problem
from hostkit.ranks.ranktable import Table
from omnikit.config.config import Config
from omnikit.config.layers import control_folder
from omnikit.fleet import fleet
from omnikit.plan.types import Plan
from omnikit.prepare import local_setup
from omnikit.prepare.deployment import Deployment, prepare

# Do the plan, a rank table and what the hosts report now agree? Pure.

HEALTHY = "OK"


@dataclass(frozen=True)
class HostFacts:
    """What one host reports now. chips: None when npu-smi did not answer.

    device_ips: by device id, the address and who says so. problems: what could not be asked.
    """

    addresses: tuple[str, ...]
    device_ips: Mapping[int, tuple[str, str]]
    chips: Optional[tuple[Chip, ...]]
    problems: tuple[str, ...] = ()


def host_facts(data: Mapping[str, Any]) -> HostFacts:
    """Read what device_query.gather made on a host."""
    chips = data["chips"]
    return HostFacts(
        addresses=tuple(data["addresses"]),
        device_ips={
            int(device): (found["address"], found["source"])
            for device, found in data["device_ips"].items()
        },
        chips=None if chips is None else tuple(Chip(**chip) for chip in chips),
        problems=tuple(data["problems"]),
    )


def compare(
    instances: Sequence[Instance], table: Any, source: str, live: Mapping[str, HostFacts]
) -> list[str]:
    """Every disagreement between the plan, the cluster's table and the hosts, as sentences.

    live: facts by host name. A host that reported nothing is a disagreement too.
    """
    problems = check_global(table, source, instances)
    written: dict[str, dict[str, str]] = {}
    for server in ranktable.all_servers(table):
        devices = written.setdefault(server.address, {})
        devices.update({device.device_id: device.address for device in server.devices or ()})
    planned: dict[tuple[str, str], list[int]] = {}
    for instance in instances:
        for member in instance.members:
            planned.setdefault((member.host, member.address), []).extend(member.devices)
    for (host, address), ids in planned.items():
        facts = live.get(host)
        label = f"host {host} ({address})"
        if facts is None:
            problems.append(f"{label}: it reported nothing.")
            continue
        problems += [f"{label}: {text}" for text in facts.problems]
        if facts.addresses and address not in facts.addresses:
            there = ", ".join(a for a in facts.addresses if not address_problem(a)) or "none"
            problems.append(f"{label}: the planned address is not one of its own: {there}.")
        for device in ids:
            problems += _device(
                label, device, written.get(address, {}).get(str(device)), source, facts
            )
    return problems


def _device(
    label: str, device: int, written: Optional[str], source: str, facts: HostFacts
) -> list[str]:
    problems = []
    if facts.chips is not None:
        chip = next((chip for chip in facts.chips if chip.phy_id == device), None)
        if chip is None:
            listed = ",".join(str(chip.phy_id) for chip in facts.chips)
            return [
                f"{label}: device {device}{_card(device, facts.chips)} is planned, but npu-smi "
                f"does not list it; it lists {listed}."
            ]
        if chip.health != HEALTHY:
            problems.append(
                f"{label}: the health of device {device} (card {chip.card}, chip {chip.chip}) is "
                f"{chip.health}, expected {HEALTHY}."
            )
    if device in facts.device_ips and written is not None:
        address, teller = facts.device_ips[device]
        if address != written:
            problems.append(
                f"{label}: device {device} has the address {address} now (says {teller}), "
                f"{source} says {written}."
            )
    elif device not in facts.device_ips and not facts.problems:
        problems.append(f"{label}: device {device} reported no address.")
    return problems


def _card(device: int, chips: Sequence[Chip]) -> str:
    """Which card a missing device is on, told from how the listed ones are numbered."""
    width = max((chip.chip for chip in chips), default=0) + 1
    if any(chip.phy_id != chip.card * width + chip.chip for chip in chips):
        return ""
    return f" (card {device // width}, chip {device % width})"


# The rank tables of a whole environment: instances of a plan, and the files that they make. Pure.
#
# Runs on the control host, in one pass, from the device addresses that the hosts reported.

# By host name: its device addresses by device id.
DeviceIps = Mapping[str, Mapping[int, str]]


class PlannedNode(Protocol):
    """What is asked of a plan's node: the part of an instance that runs on one host."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def instance(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def node_rank(self) -> int: ...
    @property
    def devices(self) -> tuple[int, ...]: ...


def table_instances(nodes: Iterable[PlannedNode]) -> tuple[Instance, ...]:
    """The instances in the order of the global table: prefill by number, then decode.

    Co-located servers need no rank table and are left out.
    """
    found: dict[tuple[int, int], list[PlannedNode]] = {}
    order = {"prefill": 0, "decode": 1}
    for node in nodes:
        if node.role in order:
            found.setdefault((order[node.role], node.instance), []).append(node)
    made = []
    for key in sorted(found):
        parts = sorted(found[key], key=lambda node: node.node_rank)
        members = tuple(Member(node.host, node.address, tuple(node.devices)) for node in parts)
        made.append(Instance(parts[0].name, parts[0].role, members))
    return tuple(made)


@dataclass(frozen=True)
class Tables:
    """All tables of an environment. local: per member of each instance, in plan order.

    own: per instance, the table that its engine reads (RANK_TABLE_FILE_PATH).
    """

    instances: tuple[Instance, ...]
    local: tuple[tuple[Table, ...], ...]
    own: tuple[Table, ...]
    cluster: Table


def planned(planned: Sequence[Instance], device_ips: DeviceIps) -> Tables:
    """All tables, validated against the plan. Raises InputError with every problem found."""
    local = tuple(
        tuple(
            ranktable.local_table(m.address, m.devices, device_ips.get(m.host, {}))
            for m in instance.members
        )
        for instance in planned
    )
    own = tuple(t[0] if len(t) == 1 else ranktable.merge_local(t) for t in local)
    roles = [instance.role for instance in planned]
    cluster = ranktable.global_table(
        [table for table, role in zip(own, roles) if role == "prefill"],
        [table for table, role in zip(own, roles) if role == "decode"],
    )
    tables = Tables(tuple(planned), local, own, cluster)
    require(_problems(tables), "invoke check-ranktable compares the plan with the hosts")
    return tables


def _problems(tables: Tables) -> list[str]:
    problems = check_global(tables.cluster, ranktable.MERGED_GLOBAL, tables.instances)
    if problems:  # the others would repeat the same
        return problems
    for instance, local, own in zip(tables.instances, tables.local, tables.own):
        for member, table in zip(instance.members, local):
            name = ranktable.local_name(member.address, member.devices)
            problems += check_local(table, name, member)
        if len(local) > 1:
            source = f"{ranktable.MERGED_LOCAL} of {instance.name}"
            problems += check_merged(own, source, instance.members)
    return problems


def planned_files(tables: Tables, global_dir: str) -> dict[str, dict[str, str]]:
    """The files of each host, by path below its rank table folder.

    global_dir: the folder of the cluster's table there.
    """
    made: dict[str, dict[str, Table]] = {}
    merged: dict[str, str] = {}
    for instance, local, own in zip(tables.instances, tables.local, tables.own):
        for member, table in zip(instance.members, local):
            there = made.setdefault(member.host, {})
            ranktable.add_local(there, table, member.devices)
            if len(local) == 1:
                continue
            if merged.setdefault(member.host, instance.name) != instance.name:
                raise InputError(
                    f"{merged[member.host]} and {instance.name} both run on several hosts and meet "
                    f"on this one; both tables would be {ranktable.MERGED_LOCAL}.",
                    where=f"host {member.host}",
                    todo="give one of the two other hosts",
                )
            there[ranktable.MERGED_LOCAL] = own
    for there in made.values():
        there[f"{global_dir}/{ranktable.MERGED_GLOBAL}"] = tables.cluster
    texts: dict[int, str] = {}  # by identity: many hosts share the large tables
    for there in made.values():
        for table in there.values():
            if id(table) not in texts:
                texts[id(table)] = ranktable.dumps(table)
    return {
        host: {path: texts[id(table)] for path, table in there.items()}
        for host, there in made.items()
    }


Facts = Mapping[str, Any]
# Where a host's tables lie below its ranktable folder: the cluster's in a folder of its own.
GLOBAL = "global"


def needed(config: Config, plan: Plan) -> bool:
    """Whether the plan's servers read rank tables at all."""
    return config.settings.engine.rank_tables and plan.disaggregated


def gather(config: Config, plan: Plan) -> dict[str, Any]:
    """What every host says about its accelerators and addresses now, by host name."""
    found = local_setup.look(config, plan)
    deployment = prepare(config, found.inputs, found.proxy, {}, plan)
    # Only host.json matters for the question: the archive is not the one that is deployed.
    return _ask(_beside(deployment))


def _beside(deployment: Deployment) -> Deployment:
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
    made = planned(table_instances(plan.nodes), device_ips(gathered))
    files = planned_files(made, GLOBAL)
    return {host: dict(own) for host, own in files.items()}


def disagreements(
    plan: Plan, table_text: str, source: str, gathered: Mapping[str, Facts]
) -> list[str]:
    """Where the plan, a cluster table and what the hosts report now do not agree."""
    instances: tuple[Instance, ...] = table_instances(plan.nodes)
    try:
        table = json.loads(table_text)
    except ValueError as error:
        raise InputError(f"the rank table is not JSON: {error}.", where=source) from error
    live = {host: host_facts(facts) for host, facts in gathered.items()}
    return list(compare(instances, table, source, live))


def ensure(config: Config, plan: Plan) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Ask, build, check against the hosts, keep: the tables and what became of each file.

    Raises InputError when the plan and the hosts do not agree: nothing was changed then.
    """
    gathered = gather(config, plan)
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
    done = {}
    for host, files in tables.items():
        for name, text in files.items():
            path = folder(environment) / host / name
            saved = ranktable.save_all(path.parent, {path.name: text}, dry_run=False)
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
