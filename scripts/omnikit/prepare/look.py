"""What the hosts of a deployment say before anything is done: what is to do, what forbids it."""

from __future__ import annotations

import base64
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import AbstractSet, Any, Callable, Optional

from hostkit.agent import receive
from hostkit.base import run
from hostkit.base.errors import InputError
from omnikit.fleet import direct_ssh, fleet
from omnikit.plan.types import HostPlan, Plan
from omnikit.prepare.deployment import ARCHIVE, Deployment

# Questions to all hosts of a deployment at once, which change nothing there, and their answers.
#
# Over kept SSH connections, without Ansible: its start alone takes longer than all the answers.
# Each host is sent its archive, which is what the question is about, and the agent in it answers.

_RECEIVE = Path(receive.__file__)
_SHIPPED = receive.SHIPPED + "\n"


def ask(
    deployment: Deployment,
    verb: str,
    task: str,
    on_event: Optional[Callable[[fleet.Event], None]] = None,
    place: str = "",
) -> fleet.Outcome:
    """The agent's answers, as of a playbook with one task of that name. The deployment is written.

    place: folder of the archive on the hosts, below their work directories; "": see asked.
    """
    outcome = fleet.Outcome()
    tell = on_event or (lambda event: None)
    tell({"event": "task", "task": task, "time": time.time()})
    hosts = deployment.plan.hosts
    at_once = max(1, min(len(hosts), deployment.config.settings.fleet.forks))
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        asked = [pool.submit(_one, deployment, host, verb, place) for host in hosts]
        for answer in as_completed(asked):
            event = {"task": task, "msg": "", **answer.result(), "time": time.time()}
            outcome.results.setdefault(task, {})[event["host"]] = event
            if event["event"] != "ok":
                outcome.failures.append(event)
            tell(event)
    return outcome


def asked(deployment: Deployment, host: HostPlan) -> str:
    """Where a host keeps the archive that it is asked about. Named after what is in it: many may
    ask at the same time, and only who holds the lock makes theirs the present deployment.
    """
    data = (deployment.folder / host.name / ARCHIVE).read_bytes()
    return str(
        Path(host.work_dir) / "archives" / "asked" / f"{hashlib.sha256(data).hexdigest()[:32]}.pyz"
    )


def _one(deployment: Deployment, host: HostPlan, verb: str, place: str) -> fleet.Event:
    """What became of the question on one host, as an event of Ansible's."""
    settings = deployment.config.settings
    archive = base64.b64encode((deployment.folder / host.name / ARCHIVE).read_bytes()).decode()
    there = str(Path(host.work_dir) / place / ARCHIVE) if place else asked(deployment, host)
    words = ["-c", _RECEIVE.read_text(encoding="utf-8"), there, str(len(archive)), "0600", verb]
    with direct_ssh.link(host, settings) as link:
        try:
            return _event(host, link.ask(link.python, *words, stdin=archive))
        except direct_ssh.Unreachable as error:
            event = {"event": "unreachable", "host": host.name, "changed": False, "rc": None}
            return {**event, "stdout": "", "stderr": "", "msg": error.what, "todo": error.todo}


def _event(host: HostPlan, done: run.Result) -> dict[str, Any]:
    new = done.out.startswith(_SHIPPED)
    return {
        "event": "ok" if done.code == 0 else "failed",
        "host": host.name,
        "changed": new,
        "rc": done.code,
        "stdout": done.out[len(_SHIPPED) :] if new else done.out,
        "stderr": done.err,
    }


_TASK = "Compare with what runs"  # also in scripts/fleet/look.yml


@dataclass
class Look:
    """By node name: actions (start, restart, unchanged, remove) and reasons. replaces: nodes that
    serve now and would be ended; fixed: why a proxy cannot be replaced while it serves. images: ids
    by name; about_images: what they say of themselves. files and hosts: changed files and actions,
    by host; stale: files that are not as they would be deployed now, and seen: lock, place, archive
    and more (see omnikit.runs), by host too. good: all hosts have this as what was proved. problems
    and notes (what forbids nothing): as text. lack_weights: hosts where the model is missing.
    """

    actions: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    replaces: list[str] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    about_images: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lack_weights: list[str] = field(default_factory=list)
    stale: dict[str, list[str]] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    good: bool = True

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
    outcome = ask(deployment, "look", _TASK, on_event)
    try:
        fleet.raise_failures(outcome)
    except InputError as error:
        if _placed(deployment, error.what) == error.what:
            raise
        raise InputError(_placed(deployment, error.what), where=error.where) from error
    found = Look()
    archives = {host.name: asked(deployment, host) for host in deployment.plan.hosts}
    for host, data in outcome.json(_TASK).items():
        found.actions.update(data["actions"])
        found.hosts[host] = data["actions"]
        found.reasons.update(data["reasons"])
        found.replaces += data["replaces"]
        found.fixed.update(data["fixed"])
        found.images.update({name: one["id"] for name, one in data["images"].items()})
        found.about_images.update(data["images"])
        found.files[host] = data["files"]
        found.problems += [f"{host}: {_placed(deployment, p)}" for p in data["problems"]]
        found.lack_weights += [host] if data["lacks_weights"] else []
        found.notes += [f"{host}: {note}" for note in data["notes"]]
        found.stale.update({host: data["stale"]} if data["stale"] else {})
        found.good = found.good and data["good"]
        seen = {name: data[name] for name in ("lock", "changes", "place")}
        found.seen[host] = {**seen, "archive": archives[host]}
    return found


def _placed(deployment: Deployment, problem: str) -> str:
    """A problem with where its setting was made, when it names one of the paths."""
    name = problem.partition(": ")[0].split(".")
    if name[0] != "paths" or len(name) != 2:
        return problem
    return f"{deployment.config.origin(*name)}: {problem}"


def of_steps(found: Look, plan: Plan, steps: AbstractSet[str]) -> Look:
    """Only what the chosen steps would touch (see omnikit.prepare.source_steps)."""
    proxy = plan.proxy.name if plan.proxy else None
    if "run_docker" in steps:
        return found

    def kept(name: str) -> bool:
        return ("run_proxy" if name == proxy else "run_server") in steps

    return replace(
        found,
        actions={name: what for name, what in found.actions.items() if kept(name)},
        reasons={name: why for name, why in found.reasons.items() if kept(name)},
        replaces=[name for name in found.replaces if kept(name)],
    )
