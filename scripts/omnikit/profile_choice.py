"""Which instances are profiled, and the settings with which they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

from omnikit import config as configuration
from omnikit.config import Config
from omnikit.errors import InputError
from omnikit.plan_types import NodePlan, Plan
from omnikit.topology import make_plan
from omnikit.topology_checks import nearest

ALL = "all"


@dataclass(frozen=True)
class Options:
    """What was asked for. role: all, prefill, decode or colocated; instances: only these."""

    role: str = ALL
    instances: Sequence[str] = ()
    steps: Optional[int] = None
    token_threshold: Optional[int] = None

    def assignments(self, names: Sequence[str]) -> list[str]:
        """The settings that say the same."""
        made = [f"profiling.instances=[{', '.join(names)}]"]
        given = {"steps": self.steps, "token_threshold": self.token_threshold}
        return made + [f"profiling.{k}={v}" for k, v in given.items() if v is not None]


def nodes(plan: Plan, options: Options) -> list[NodePlan]:
    """The nodes to be profiled, whole instances. Raises InputError."""
    known = [node.name for node in plan.nodes]
    for name in options.instances:
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                f"there is no instance {name!r}" + (f", is it {near!r}?" if near else "."),
                where="--instance",
                todo=f"one of {', '.join(known)}",
            )
    wanted = {
        (node.role, node.instance)
        for node in plan.nodes
        if (not options.instances or node.name in options.instances)
        and options.role in (ALL, node.role)
    }
    found = [node for node in plan.nodes if (node.role, node.instance) in wanted]
    if not found:
        roles = ", ".join(dict.fromkeys(node.role for node in plan.nodes))
        raise InputError(
            f"no {options.role} instance is among these.",
            where="--role",
            todo=f"environment {plan.environment} has: {roles}",
        )
    return found


def profiled(
    environment: Optional[str],
    files: Sequence[str],
    assignments: Sequence[str],
    now: Config,
    options: Options,
) -> tuple[Config, list[NodePlan]]:
    """The configuration with the profiler of the wanted instances on, and their nodes in its plan.

    environment, files, assignments: as now was loaded with. Instances whose profiler the settings
    switch on keep it.
    """
    chosen = nodes(make_plan(now), options)
    always = list(now.settings.profiling.instances)
    names = list(dict.fromkeys([*always, *(node.name for node in chosen)]))
    made = configuration.load(environment, files, [*assignments, *options.assignments(names)])
    if options.token_threshold is not None and made.settings.profiling.start == "endpoint":
        raise InputError(
            "this engine has no threshold: its recording begins when it is told (profiling.start).",
            where="--token-threshold",
            todo="leave it out; --role prefill and --role decode tell the two apart",
        )
    return made, nodes(make_plan(made), options)
