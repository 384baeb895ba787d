"""Jobs (hostkit.agent.jobs) on the hosts of a plan: by Ansible, on this machine without."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from hostkit.base import run as base_run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from omnikit.config.schema import Settings
from omnikit.fleet import bundle, direct_ssh, fleet
from omnikit.plan.types import HostPlan, Plan

TASK = "Do the job"
_LOST = "Broken pipe"  # what Ansible says where ssh ended, with better words, before it read all


@dataclass(frozen=True)
class Done:
    """What became of a job on one host: its result, or the error."""

    result: Optional[dict[str, Any]] = None
    error: Optional[ToolkitError] = None


def run(
    plan: Plan,
    settings: Settings,
    job: str,
    parameters: Mapping[str, dict[str, Any]],
    *,
    at_once: int = 0,
    on_done: Optional[Callable[[str, Done], None]] = None,
) -> dict[str, Done]:
    """Do a job on every host named in parameters, which may hold secrets. Never raises for a host.

    at_once: hosts that work at the same time, 0: all. on_done is called as each host has ended.
    """
    tell = on_done or (lambda host, done: None)
    found: dict[str, Done] = {}
    here = [host for host in plan.hosts if host.name in parameters and host.local]
    for host in here:
        found[host.name] = _through_link(host, settings, job, parameters[host.name])
        tell(host.name, found[host.name])
    away = {name: given for name, given in parameters.items() if name not in found}
    if away:
        found.update(_play(plan, settings, job, away, at_once, tell))
    return {name: found[name] for name in parameters}


def ask(
    plan: Plan,
    settings: Settings,
    job: str,
    parameters: Mapping[str, dict[str, Any]],
    on_done: Optional[Callable[[str, Done], None]] = None,
) -> dict[str, Done]:
    """The same for a job that only looks: all hosts side by side over kept SSH connections, which
    takes a fraction of Ansible's time.
    """
    hosts = [host for host in plan.hosts if host.name in parameters]

    def one(host: HostPlan) -> Done:
        done = _through_link(host, settings, job, parameters[host.name])
        if on_done is not None:
            on_done(host.name, done)
        return done

    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        return dict(zip([host.name for host in hosts], pool.map(one, hosts)))


def _through_link(
    host: HostPlan, settings: Settings, job: str, parameters: Mapping[str, Any]
) -> Done:
    """A job without Ansible, which this machine does not need for itself."""
    try:
        with direct_ssh.link(host, settings) as way:
            return Done(result=way.job(job, parameters))
    except ToolkitError as error:
        return Done(error=error)


def results(done: Mapping[str, Done]) -> dict[str, dict[str, Any]]:
    """Every host's result. Raises one error that names the hosts that failed and why."""
    failed = {host: d.error for host, d in done.items() if d.error is not None}
    if not failed:
        return {host: d.result or {} for host, d in done.items()}
    if len(failed) == len(done) == 1:
        raise next(iter(failed.values()))
    kind = InputError if all(isinstance(e, InputError) for e in failed.values()) else ActionError
    raise kind("\n".join(f"host {host}: {error}" for host, error in failed.items()))


def _play(
    plan: Plan,
    settings: Settings,
    job: str,
    parameters: Mapping[str, dict[str, Any]],
    at_once: int,
    tell: Callable[[str, Done], None],
) -> dict[str, Done]:
    found: dict[str, Done] = {}

    def on_event(event: fleet.Event) -> None:
        done = _outcome(event)
        if done is not None and event["event"] == "unreachable" and _LOST in event["msg"]:
            done = _in_words_of_ssh(plan, settings, event["host"]) or done
        if done is not None:
            found[event["host"]] = done
            tell(event["host"], done)

    variables = {
        "omnikit_hosts": ",".join(parameters),
        "omnikit_job": job,
        "omnikit_code": str(bundle.jobs(plan.environment)),
        "omnikit_at_once": at_once,
        # Base64: nothing in it can look like a template to Ansible.
        "omnikit_parameters": {host: encode(given) for host, given in parameters.items()},
    }
    with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
        given = Path(private) / "variables.json"
        with os.fdopen(os.open(given, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump(variables, file)
        hosts = fleet.hosts_of(plan, settings)
        fleet.play("job.yml", hosts, settings, on_event, variables_file=given)
    for host in parameters:
        if host not in found:
            found[host] = Done(error=ActionError("Ansible said nothing about this host."))
    return found


def _in_words_of_ssh(plan: Plan, settings: Settings, name: str) -> Optional[Done]:
    """Why a host cannot be reached; None: now it can be."""
    host = next(one for one in plan.hosts if one.name == name)
    with direct_ssh.link(host, settings) as way:
        tried = base_run.run(way.argv("true"), env=way.env, check=False)
    if tried.code != direct_ssh.NO_SSH:
        return None
    event = {"event": "unreachable", "host": name, "task": TASK, "msg": tried.err}
    return Done(error=fleet.failure(event))


def encode(parameters: Mapping[str, Any]) -> str:
    """Parameters as the text that a host's agent reads on its standard input."""
    return base64.b64encode(json.dumps(parameters).encode()).decode()


def _outcome(event: fleet.Event) -> Optional[Done]:
    """What an event says about its host; None when the host is not done."""
    if event["event"] == "ok" and event["task"] == TASK:
        try:
            return Done(result=json.loads(event["stdout"].strip().splitlines()[-1]))
        except (ValueError, IndexError):
            return Done(error=ActionError("the host's answer cannot be read: " + event["stdout"]))
    if event["event"] not in ("failed", "unreachable"):
        return None
    outcome = fleet.Outcome(failures=[event])
    try:
        fleet.raise_failures(outcome)
    except ToolkitError as error:
        return Done(error=error)
    return None
