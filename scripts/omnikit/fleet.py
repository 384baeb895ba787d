"""Work on the hosts, through Ansible: inventory from a plan, one playbook per verb, its events."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from omnikit import run, ssh_options
from omnikit.config import read_secret
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.layers import PROJECT
from omnikit.plan_types import Plan
from omnikit.schema import Settings

PLAYBOOKS = PROJECT / "scripts" / "fleet"
Event = dict[str, Any]


@dataclass
class Outcome:
    """What a playbook run brought: each task's last result per host, and the failures."""

    code: int = 0
    results: dict[str, dict[str, Event]] = field(default_factory=dict)
    failures: list[Event] = field(default_factory=list)
    recap: dict[str, dict[str, int]] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)

    def json(self, task: str) -> dict[str, Any]:
        """The JSON that the host script printed in a task, per host."""
        found = {}
        for host, event in self.results.get(task, {}).items():
            try:
                found[host] = json.loads(event["stdout"])
            except ValueError:
                continue
        return found


def inventory(plan: Plan, settings: Settings, archives: Mapping[str, Path]) -> dict[str, Any]:
    """An Ansible inventory (JSON is YAML): connection, interpreter and work directory per host."""
    hosts = {}
    for host in plan.hosts:
        entry: dict[str, Any] = {
            "ansible_host": host.address,
            "omnikit_work_dir": host.work_dir,
        }
        if host.name in archives:
            entry["omnikit_archive"] = str(archives[host.name])
        if host.settings.connection == "local":
            entry["ansible_connection"] = "local"
            entry["ansible_python_interpreter"] = sys.executable
        else:
            entry["ansible_python_interpreter"] = host.settings.python
            entry.update(ssh_options.ansible_variables(host.name, host.settings, settings))
        hosts[host.name] = entry
    proxy: dict[str, Any] = {plan.proxy.host: {}} if plan.proxy else {}
    return {"all": {"hosts": hosts, "children": {"omnikit_proxy": {"hosts": proxy}}}}


def _passwords(settings: Settings) -> dict[str, str]:
    """The hosts' passwords as variables for Ansible: on no command line and in no file."""
    return {
        ssh_options.password_variable(settings, name): read_secret(
            host.password, f"hosts.{name}.password"
        )
        for name, host in settings.hosts.items()
        if host.password and host.connection == "ssh"
    }


def play(
    playbook: str,
    inventory_file: Path,
    settings: Settings,
    on_event: Optional[Callable[[Event], None]] = None,
    variables: Optional[Mapping[str, str]] = None,
    variables_file: Optional[Path] = None,
    tags: Sequence[str] = (),
) -> Outcome:
    """Run a playbook of scripts/fleet and collect its events; on_event sees each as it comes.

    variables_file: more variables, which may be secret, so they are not on the command line.
    """
    outcome = Outcome()

    def on_line(line: str) -> None:
        try:
            event: Event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            if line.strip():
                outcome.other.append(line)
            return
        if kind in ("ok", "failed", "unreachable"):
            outcome.results.setdefault(event["task"], {})[event["host"]] = event
        if kind in ("failed", "unreachable"):
            outcome.failures.append(event)
        if kind == "recap":
            outcome.recap = event["hosts"]
        if on_event is not None:
            on_event(event)

    argv: list[str] = [
        sys.executable,
        "-m",
        "ansible",
        "playbook",
        "-i",
        str(inventory_file),
        "--forks",
        str(settings.fleet.forks),
        "--timeout",
        str(round(settings.fleet.connect_timeout_s)),
    ]
    if variables:
        argv += ["--extra-vars", json.dumps(dict(variables))]
    if tags:
        argv += ["--tags", ",".join(tags)]
    if variables_file:
        argv += ["--extra-vars", f"@{variables_file}"]
    argv.append(str(PLAYBOOKS / playbook))
    env = {"ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
    env.update(_passwords(settings))
    outcome.code = run.stream(argv, on_line, env=env)
    if outcome.code != 0 and not outcome.failures:
        said = "\n".join(outcome.other[-8:])
        raise ActionError(f"ansible-playbook ended with status {outcome.code}:\n{said}")
    return outcome


def raise_failures(outcome: Outcome) -> None:
    """Turn a failed playbook run into an error that names every failing host and its cause."""
    errors = [failure(event) for event in outcome.failures]
    if len(errors) == 1:
        raise errors[0]
    if not errors:
        return
    kind = InputError if all(isinstance(one, InputError) for one in errors) else ActionError
    raise kind("\n".join(str(one) for one in errors))


def failure(event: Event) -> ToolkitError:
    """What failed on one host, as an error."""
    where = f"host {event['host']}, step {event['task']!r}"
    if event["event"] == "unreachable":
        said, ours = event["msg"].strip(), event.get("todo")
        return ActionError(
            said if ours else f"the host cannot be reached: {said}",
            where=where,
            todo=ours or "try it by hand: ssh " + str(event["host"]),
        )
    said = (event["stderr"] or event["stdout"] or event["msg"]).strip()
    if said.startswith("error: "):
        said = said[len("error: ") :]
    kind = InputError if event.get("rc") == 2 else ActionError
    return kind(said[-2000:], where=where)
