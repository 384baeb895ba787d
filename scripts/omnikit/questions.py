"""Questions to all hosts of a deployment at once, which change nothing there, and their answers.

Over kept SSH connections, without Ansible: its start alone takes longer than all the answers. Each
host is sent its archive, which is what the question is about, and the agent in it answers.
"""

from __future__ import annotations

import base64
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Callable, Optional

from omnikit import direct_ssh, fleet, host_receive, run
from omnikit.deployment import ARCHIVE, Deployment
from omnikit.errors import ActionError
from omnikit.plan_types import HostPlan

_RECEIVE = Path(__file__).with_name("host_receive.py")
_SHIPPED = host_receive.SHIPPED + "\n"


def ask(
    deployment: Deployment,
    verb: str,
    task: str,
    on_event: Optional[Callable[[fleet.Event], None]] = None,
    place: str = "",
) -> fleet.Outcome:
    """The agent's answers, as of a playbook with one task of that name. The deployment is written.

    place: folder of the archive on the hosts, below their work directories.
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


def _one(deployment: Deployment, host: HostPlan, verb: str, place: str) -> fleet.Event:
    """What became of the question on one host, as an event of Ansible's."""
    settings = deployment.config.settings
    archive = base64.b64encode((deployment.folder / host.name / ARCHIVE).read_bytes()).decode()
    there = str(Path(host.work_dir) / place / ARCHIVE)
    words = ["-c", _RECEIVE.read_text(encoding="utf-8"), there, str(len(archive)), "0600", verb]
    if host.settings.connection == "local":
        return _event(host, run.run([sys.executable, *words], stdin=archive, check=False))
    with direct_ssh.link(host, settings) as link:
        try:
            link.open()
        except ActionError as error:
            return _away(host, error)
        argv = link.argv(host.settings.python, *words)
        done = run.run(argv, env=link.env, stdin=archive, check=False)
        if done.code == direct_ssh.NO_SSH:
            link.close()
            return _away(host, direct_ssh.fault(link, done.err))
    return _event(host, done)


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


def _away(host: HostPlan, error: ActionError) -> dict[str, Any]:
    event = {"event": "unreachable", "host": host.name, "changed": False, "rc": None}
    return {**event, "stdout": "", "stderr": "", "msg": error.what, "todo": error.todo}
