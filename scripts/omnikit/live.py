"""What the hosts of a deployment say before anything is done: what is to do, what forbids it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import AbstractSet, Callable, Optional

from omnikit import fleet, questions
from omnikit.deployment import Deployment
from omnikit.errors import InputError
from omnikit.plan_types import Plan

_TASK = "Compare with what runs"  # also in scripts/fleet/look.yml


@dataclass
class Look:
    """By node name: actions (start, restart, unchanged, remove) and reasons. replaces: nodes that
    serve now and would be ended. images: ids by name. files and hosts: changed files and actions,
    by host. problems: as text.
    """

    actions: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    replaces: list[str] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def changes(self) -> dict[str, str]:
        """What would be done, without what stays."""
        return {name: what for name, what in self.actions.items() if what != "unchanged"}

    def refuse_problems(self) -> None:
        """Raise InputError with everything that stands against it."""
        if self.problems:
            raise InputError("nothing was changed, because:\n  " + "\n  ".join(self.problems))


def look(deployment: Deployment, on_event: Optional[Callable[[fleet.Event], None]] = None) -> Look:
    """Ask every host what it would need. The deployment is written. Raises for a host's failure."""
    outcome = questions.ask(deployment, "look", _TASK, on_event)
    fleet.raise_failures(outcome)
    found = Look()
    for host, data in outcome.json(_TASK).items():
        found.actions.update(data["actions"])
        found.hosts[host] = data["actions"]
        found.reasons.update(data["reasons"])
        found.replaces += data["replaces"]
        found.images.update(data["images"])
        found.files[host] = data["files"]
        found.problems += [f"{host}: {problem}" for problem in data["problems"]]
    return found


def of_steps(found: Look, plan: Plan, steps: AbstractSet[str]) -> Look:
    """Only what the chosen steps would touch (see deploy_steps)."""
    proxy = plan.proxy.name if plan.proxy else None
    if "run_docker" in steps:
        return found

    def kept(name: str) -> bool:
        return ("run_proxy" if name == proxy else "run_server") in steps

    return Look(
        {name: what for name, what in found.actions.items() if kept(name)},
        {name: why for name, why in found.reasons.items() if kept(name)},
        [name for name in found.replaces if kept(name)],
        found.images,
        found.files,
        found.hosts,
        found.problems,
    )
