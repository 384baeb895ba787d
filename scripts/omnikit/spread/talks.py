"""Jobs on many hosts at the same time, each over a connection that it ends with, and what they say
of how far they are.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import say
from omnikit.config.layers import control_folder
from omnikit.config.schema import Settings
from omnikit.fleet import direct_ssh
from omnikit.fleet.jobs import Done
from omnikit.plan.types import HostPlan, Plan

_SAY_S = 10.0
Hear = Callable[[dict[str, Any]], None]


def this_machine(plan: Plan, name: str) -> HostPlan:
    """This machine, which is no host of the plan: nobody calls it, it calls the others."""
    host = plan.hosts[0]
    settings = host.settings.model_copy(update={"connection": "local", "address": ""})
    work_dir = str(control_folder(plan.environment))
    return replace(host, name=name, address="", settings=settings, work_dir=work_dir)


class Lost(ActionError):
    """The job ended without a word: the host, the job or the connection was killed."""


def follow(
    link: direct_ssh.Link,
    job: str,
    parameters: Mapping[str, Any],
    hear: Hear,
    began: Callable[[run.Talk], None] = lambda talk: None,
) -> dict[str, Any]:
    """Do a job and hand on what it says; its result. Raises Lost, or the job's own error."""
    talk = link.talk(job, parameters)
    began(talk)
    said: list[str] = []
    last: Optional[dict[str, Any]] = None
    try:
        for line in talk.lines():
            try:
                told = json.loads(line)
            except ValueError:
                told = None
            if not isinstance(told, dict):
                said = [*said[-40:], line]
            elif "at" in told:
                hear(told)
            else:
                last = told
    except BaseException:
        talk.end(now=True)
        raise
    code = talk.end()
    if code == 0 and last is not None:
        return last
    text = "\n".join(said).strip()
    if code in (1, 2) and "error: " in text:
        kind = InputError if code == InputError.exit_code else ActionError
        raise kind(text[text.rfind("error: ") + 7 :].strip()[-2000:])
    if link.words and code == direct_ssh.NO_SSH:
        raise direct_ssh.fault(link, text)
    raise Lost(f"it ended with status {code}, {said[-1].strip() if said else 'without a word'}")


def ask(
    sites: Sequence[HostPlan],
    settings: Settings,
    job: str,
    parameters: Mapping[str, Mapping[str, Any]],
    what: str = "",
) -> dict[str, Done]:
    """Do a job on hosts, all at once; a line of progress now and then. Never raises for a host."""
    shares: dict[str, tuple[int, int]] = {}
    lock, told = threading.Lock(), [time.monotonic()]

    def hear(name: str, line: dict[str, Any]) -> None:
        with lock:
            shares[name] = (int(line.get("done", 0)), int(line.get("total", 0)))
            if what and time.monotonic() - told[0] > _SAY_S:
                told[0] = time.monotonic()
                done, total = (sum(one[at] for one in shares.values()) for at in (0, 1))
                say(f"{what}: {100 * done // max(1, total)} % on {len(shares)} hosts")

    def one(link: direct_ssh.Link) -> Done:
        name = link.host.name
        try:
            return Done(follow(link, job, parameters[name], lambda line: hear(name, line)))
        except ToolkitError as error:
            return Done(error=error)

    wanted = [site for site in sites if site.name in parameters]
    with direct_ssh.streams(wanted, settings) as links, ThreadPoolExecutor(len(links) or 1) as pool:
        return dict(zip([site.name for site in wanted], pool.map(one, links)))
