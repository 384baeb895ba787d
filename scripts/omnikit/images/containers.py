"""Containers of an environment's hosts, or one by name on this machine: start, stop, remove."""

from __future__ import annotations

import re
from typing import Any, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.base.log import say
from hostkit.containers import containers as containers_containers
from hostkit.containers import engines
from omnikit.config.config import Config
from omnikit.fleet import jobs
from omnikit.plan import containers as plan_containers
from omnikit.topology.topology import make_plan
from omnikit.yaml import redact

BY_HAND = "by-hand"
# Whose settings a container by hand has: the install guide's server, on this machine.
GUIDE_ENVIRONMENT = "qwen2.5"
_IMAGE = r"[A-Za-z0-9][A-Za-z0-9._:/@-]*"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]+"
Result = dict[str, Any]


def by_hand(config: Config, image: str, name: str) -> plan_containers.Spec:
    """What start_container.py IMAGE NAME makes: the settings' container under that name.

    Raises InputError when one of them is nothing that an engine could take.
    """
    for what, text, pattern in (("IMAGE", image, _IMAGE), ("NAME", name, _NAME)):
        if not re.fullmatch(pattern, text):
            raise InputError(
                f"{text!r} cannot be the {what.lower()} of a container.",
                where=what,
                todo="write REPOSITORY:TAG or an image's id, and a name of letters, digits, - _ .",
            )
    return plan_containers.spec(config.settings, name=name, owner=BY_HAND, image=image, folders=())


def specs(config: Config, hosts: Sequence[str]) -> dict[str, dict[str, plan_containers.Spec]]:
    """The planned containers by host and name. Raises InputError when there are none."""
    plan = make_plan(config)
    for host in hosts:
        if host not in {planned.name for planned in plan.hosts}:
            raise InputError(f"there is no host {host!r} in {plan.environment}.", where="--host")
    if config.settings.runtime != "docker":
        raise config.error(
            "the servers of this environment do not run in containers.",
            "runtime",
            todo="give IMAGE and NAME, or --set runtime=docker",
        )
    if not config.settings.container.image:
        raise config.error("no image is set.", "container", "image", todo="name one")
    return {
        host.name: plan_containers.host_specs(config.settings, plan, host)
        for host in plan.hosts
        if not hosts or host.name in hosts
    }


def do_planned(
    config: Config, job: str, hosts: Sequence[str], *, replace: bool = False
) -> list[Result]:
    """A job (container, stop-container, remove-container) on all planned containers."""
    wanted = specs(config, hosts)
    plan = make_plan(config)
    found: list[Result] = []
    for round_ in range(max(len(own) for own in wanted.values())):
        parameters = {
            host: {"spec": list(own.values())[round_], "replace": replace}
            for host, own in wanted.items()
            if round_ < len(own)
        }
        done = jobs.run(plan, config.settings, job, parameters)
        found += [{"host": host, **result} for host, result in jobs.results(done).items()]
    return found


def as_text(found: Sequence[Result]) -> str:
    """One line per container: what was done, and why it was made anew."""
    return "\n".join(
        f"{result.get('host', 'this machine')}: {result['name']} {result['action']}"
        + "".join(f"\n  {difference}" for difference in result.get("differences", ()))
        for result in found
    )


def commands(specs_by_host: dict[str, dict[str, plan_containers.Spec]]) -> list[str]:
    """Every command that starting would run where nothing is there, as lines."""
    return [
        f"{host}: {command(spec)}" for host, own in specs_by_host.items() for spec in own.values()
    ]


def command(spec: plan_containers.Spec) -> str:
    """The command that makes a container, as a line that can be pasted, without secrets."""
    program = "podman" if spec["engine"] == "podman" else "docker"
    return run.show(redact.words([program, *containers_containers.create_words(spec)]))


def what_differs(spec: plan_containers.Spec, replace: bool) -> Optional[str]:
    """For a dry run on this machine: what would be done, None when Docker cannot be asked."""
    try:
        engines.find(spec["engine"])
        found = containers_containers.look(spec, replace)
    except InputError as error:
        say(f"this machine was not looked at: {error}")
        return None
    return "; ".join([found.action, *found.differences])
