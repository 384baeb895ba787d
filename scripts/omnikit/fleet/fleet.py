"""Work on the hosts, through Ansible: inventory from a plan, one playbook per verb, its events."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.writing import write_private
from omnikit.config.layers import PROJECT, control_folder
from omnikit.config.schema import Settings
from omnikit.fleet import direct_ssh
from omnikit.plan.types import Plan

# Entries of an inventory that are further names of machines which it has already.
OTHER_NAMES = "omnikit_other_names"
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
        if host.local:
            entry["ansible_connection"] = "local"
            entry["ansible_python_interpreter"] = sys.executable
        else:
            entry["ansible_python_interpreter"] = host.settings.python
            entry.update(direct_ssh.ansible_variables(host.settings, settings))
        hosts[host.name] = entry
    proxy: dict[str, Any] = {plan.proxy.host: {}} if plan.proxy else {}
    children: dict[str, Any] = {"omnikit_proxy": {"hosts": proxy}, OTHER_NAMES: {"hosts": {}}}
    return {"all": {"hosts": hosts, "children": children}}


def write_inventory(
    path: Path, plan: Plan, settings: Settings, archives: Mapping[str, Path]
) -> None:
    """The inventory as a file for this user alone."""
    text = json.dumps(inventory(plan, settings, archives), indent=1) + "\n"
    write_private(path, text.encode())


def hosts_of(plan: Plan, settings: Settings) -> Path:
    """An inventory of the plan's hosts that nothing is deployed with: for jobs and files."""
    path = control_folder(plan.environment) / "inventory-jobs.json"
    write_inventory(path, plan, settings, {})
    return path


def _ssh_arguments() -> str:
    """Ansible's arguments for ssh, with which ssh asks for passwords where a host has one."""
    of_file = configparser.ConfigParser(interpolation=None)
    of_file.read(PLAYBOOKS / "ansible.cfg", encoding="utf-8")
    given = os.environ.get("ANSIBLE_SSH_ARGS") or of_file["ssh_connection"]["ssh_args"]
    return f"{given} {shlex.join(direct_ssh.OPTIONS)}"


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
    env = {
        "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
        # A user's own would win over the file, and we would read nothing.
        "ANSIBLE_CALLBACK_PLUGINS": str(PLAYBOOKS / "callback_plugins"),
        "ANSIBLE_STDOUT_CALLBACK": "omnikit_events",
        "LC_ALL": "C.UTF-8",  # Ansible starts with no other encoding
        "PYTHONUNBUFFERED": "1",
    }
    passwords = direct_ssh.passwords(settings.hosts)
    if passwords:
        env["ANSIBLE_SSH_ARGS"] = _ssh_arguments()
    with direct_ssh.answering(passwords) as answers:
        outcome.code = run.stream(argv, on_line, env={**env, **answers})
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
            todo=ours or "invoke check-env, which says why and how to log in by hand",
        )
    said = (event["stderr"] or event["stdout"] or event["msg"]).strip()
    if said.startswith("error: "):
        said = said[len("error: ") :]
    if re.search(r"python\S*: (command )?not found|python\S*: No such file", said):
        return InputError(
            said[-2000:],
            where=where,
            todo="the host needs Python 3.9 or newer: apt-get install python3, or dnf install"
            f" python3; where it has one at another place: hosts.{event['host']}.python",
        )
    kind = InputError if event.get("rc") == 2 else ActionError
    return kind(said[-2000:], where=where)
