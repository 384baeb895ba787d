"""Stopping an environment, also while it is being started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from hostkit.base import records as base_records
from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from omnikit.config.config import Config
from omnikit.config.layers import control_folder
from omnikit.deploy import status
from omnikit.fleet import bundle, fleet
from omnikit.plan.types import Plan
from omnikit.runs import run
from omnikit.topology.topology import make_plan


def stop(config: Config, only: set[str]) -> dict[str, str]:
    """Cancel a deployment under way, then end what runs: what was done to each node.

    Raises InputError where somebody else changes a host: then nothing is ended.
    """
    folder = control_folder(config.environment)
    plan = _checked(config, only)
    if not only:
        _cancel(folder / "lock", 4 * config.settings.stop.grace_s)
    if not (folder / "inventory.json").exists():
        return {}
    what = f"stop of {', '.join(sorted(only)) or config.environment}"
    with run.changing(config, what):
        seen, away = run.ask(plan.hosts, config.settings)  # one that is off keeps no other running
        there = [
            host for host in plan.hosts if host.name not in away and seen[host.name]["started"]
        ]
        with run.hold(config, what, seen, there, frees=True) as held:
            done = _end(config, plan, only, held)
            held.results = {name: "ok" if done.get(name) else None for name in held.results}
        if not only:  # nothing runs: there is nothing to bring back
            run.nothing_unproved(config.environment)
    return {name: how for of_host in done.values() for name, how in of_host.items()}


def _end(config: Config, plan: Plan, only: set[str], held: run.Run) -> dict[str, dict[str, str]]:
    """By host, what was done there."""
    variables = {
        **held.variables,
        "omnikit_held": ",".join(held.results),  # not those that are no more planned
        "omnikit_code": str(bundle.jobs(config.environment)),
        "omnikit_only": ",".join(sorted(only)),
    }
    # Not the inventory of the last look, which may have been at another work directory.
    inventory = fleet.hosts_of(plan, config.settings)
    outcome = fleet.play("stop_server.yml", inventory, config.settings, variables=variables)
    fleet.raise_failures(outcome)
    found = outcome.json("Stop what was started")
    return {host: data["done"] for host, data in found.items()}


def would_stop(config: Config, only: set[str]) -> dict[str, str]:
    """What stop would end. Changes nothing."""
    observed = status.observe(config, _checked(config, only))
    return {
        name: "stopped"
        for name, node in observed.items()
        if node["state"] in ("starting", "ready", "failed") and (not only or name in only)
    }


def _checked(config: Config, only: set[str]) -> Plan:
    """The plan, which has all of these instances."""
    plan = make_plan(config)
    known = [node.name for node in plan.nodes] + ([plan.proxy.name] if plan.proxy else [])
    for name in sorted(only - set(known)):
        raise InputError(
            f"there is no instance {name!r}.", where="--instance", todo=f"one of {', '.join(known)}"
        )
    return plan


def _cancel(lock: Path, patience_s: float) -> None:
    """Ask the holder of the lock, if it lives, to clean up and end; wait for that."""
    holder = base_records.lock_holder(lock)
    if not base_records.alive(holder):
        return
    say(f"cancelling the {holder['what']} under way (pid {holder['pid']})")
    try:
        os.kill(int(holder["pid"]), signal.SIGTERM)
    except PermissionError as error:
        raise ActionError(
            f"the {holder['what']} belongs to {holder['user']}, this user may not end it.",
            todo=f"ask {holder['user']}, or run make stop as root",
        ) from error
    if not wait_until(lambda: not base_records.alive(holder), patience_s, 0.1):
        raise ActionError(
            f"the {holder['what']} (pid {holder['pid']}) did not end within {patience_s:g} s."
        )
