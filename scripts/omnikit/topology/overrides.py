"""Values that follow from the plan must not be replaced by others. Pure.

The files of engine, release and model fill ranks, sizes, addresses and ports from the plan. A wrong
one of them ends in a crash of one server of many, in a hang, or in wrong answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.config.config import Config
from omnikit.plan.arguments import env_text, fill, references
from omnikit.topology.members import Member
from omnikit.yaml.located import Node

# Facts that come from the topology alone. Of others (paths, the interface, the model's name) a user
# may know better.
_RANKS = {"dp_rank", "offset_rank", "local_rank", "node_rank", "kv_rank", "server_offset"}
_RANKS |= {"external_dp_rank"}
_SIZES = {"dp_size", "tp_size", "kv_parallel_size", "prefill_count", "decode_count"}
_SIZES |= {"external_dp_size", "instance_devices"}
_BOTH = {"prefill_dp_size", "prefill_tp_size", "decode_dp_size", "decode_tp_size"}
_DEVICES = {"devices", "server_devices"}
_ROLES = {"role", "kv_role", "engine_id", "ranktable_dir", "rank_table"}
_ADDRESSES = {"master_ip", "host_ip", "decode_ips", "instance_ips"}
_PORTS = {"master_port", "zmq_port", "hccl_base", "api_port", "kv_port", "kv_base", "ray_port"}
_TOPOLOGY = _RANKS | _SIZES | _BOTH | _DEVICES | _ROLES | _ADDRESSES | _PORTS
# Without one of its own an engine takes a default that suits a host with one instance.
_MAY_BE_NONE = {"hccl_base"}


def replaced_by(told: Node, shipped: Node) -> list[Any]:
    """What settings of a server were before others took their place; not what was removed."""
    found = []
    for path, node in shipped.leaves():
        now = told.find(path)
        if now is not None and now.value is not None and now.plain() != node.plain():
            found.append(node.plain())
    return found


@dataclass(frozen=True)
class Override:
    """A value that was replaced. shipped and told: as they stand, with ${plan.NAME} in them."""

    path: tuple[str, ...]
    shipped: Node
    told: Optional[Node]
    place: str


class Overrides:
    """Finds them, once for all members whose settings are equal."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[tuple[str, int, str], list[Override]] = {}

    def check(
        self, m: Member, facts: Mapping[str, Any], servers: Sequence[Mapping[str, Any]]
    ) -> Iterator[InputError]:
        """An error for each value of a member's servers that is not the planned one."""
        if m.key not in self._known:
            self._known[m.key] = list(self._find(m))
        for override in self._known[m.key]:
            for own in servers:
                known = {**facts, **own}
                planned = env_text(fill(override.shipped.plain(), known))
                told = override.told and fill(override.told.plain(), known)
                if told is not None and env_text(told) == planned:
                    continue
                name = override.path[-1]
                says = f"{name} {env_text(told)}" if told is not None else f"no {name}"
                yield InputError(
                    f"{own['server_name'] if len(servers) > 1 else m.name} is told {says}, the plan"
                    f" has {planned}.",
                    where=override.place,
                    todo=f"remove it: {override.shipped.origin} has {override.shipped.value}",
                )
                break  # the others of the node are wrong in the same way

    def _find(self, m: Member) -> Iterator[Override]:
        shipped = self._config.shipped_server(m.role, m.index)
        if shipped is None:
            return
        for section in ("env", "args"):
            for path, node in (shipped.child(section) or Node({}, shipped.origin)).leaves():
                facts = references(node.plain())
                if facts.isdisjoint(_TOPOLOGY):
                    continue
                told = m.settings.find((section, *path))
                if told is not None and told.plain() == node.plain():
                    continue
                if told is None or told.value is None:
                    if not facts.isdisjoint(_MAY_BE_NONE):
                        continue
                    told = None
                place = str(m.settings.at((section, *path)).origin)
                yield Override((section, *path), node, told, place)
