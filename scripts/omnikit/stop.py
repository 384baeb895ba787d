"""Stopping an environment, also while it is being started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from omnikit import bundle, fleet, host_records, status, who
from omnikit.config import Config
from omnikit.deployment import control_folder
from omnikit.errors import ActionError, InputError
from omnikit.health import wait_until
from omnikit.log import say
from omnikit.topology import make_plan


def stop(config: Config, only: set[str]) -> dict[str, str]:
    """Cancel a deployment under way, then end what runs: what was done to each node."""
    folder = control_folder(config.environment)
    inventory = folder / "inventory.json"
    patience = 4 * config.settings.stop.grace_s
    _check_names(config, only)
    if not only:
        _cancel(folder / "lock", patience)
    if not inventory.exists():
        return {}
    what = f"stop of {', '.join(sorted(only)) or config.environment}"
    with who.audited(config.environment, what), host_records.locked(folder / "lock", what):
        code = folder / "jobs.pyz"
        bundle.write(code, bundle.archive({}, bundle.host_code()))
        outcome = fleet.play(
            "stop_server.yml",
            inventory,
            config.settings,
            variables={
                "omnikit_code": str(code),
                "omnikit_only": ",".join(sorted(only)),
                "omnikit_owner": who.am_i(),
                "omnikit_what": what,
            },
        )
        fleet.raise_failures(outcome)
    done: dict[str, str] = {}
    for data in outcome.json("Stop what was started").values():
        done.update(data["done"])
    return done


def would_stop(config: Config, only: set[str]) -> dict[str, str]:
    """What stop would end. Changes nothing."""
    _check_names(config, only)
    observed = status.observe(config, make_plan(config))
    return {
        name: "stopped"
        for name, node in observed.items()
        if node["state"] in ("starting", "ready", "failed") and (not only or name in only)
    }


def _check_names(config: Config, only: set[str]) -> None:
    plan = make_plan(config)
    known = [node.name for node in plan.nodes] + ([plan.proxy.name] if plan.proxy else [])
    for name in sorted(only - set(known)):
        raise InputError(
            f"there is no instance {name!r}.", where="--instance", todo=f"one of {', '.join(known)}"
        )


def _cancel(lock: Path, patience_s: float) -> None:
    """Ask the holder of the lock, if it lives, to clean up and end; wait for that."""
    holder = host_records.lock_holder(lock)
    if not host_records.alive(holder):
        return
    say(f"cancelling the {holder['what']} under way (pid {holder['pid']})")
    try:
        os.kill(int(holder["pid"]), signal.SIGTERM)
    except PermissionError as error:
        raise ActionError(
            f"the {holder['what']} belongs to {holder['user']}, this user may not end it.",
            todo=f"ask {holder['user']}, or run make stop as root",
        ) from error
    if not wait_until(lambda: not host_records.alive(holder), patience_s, 0.1):
        raise ActionError(
            f"the {holder['what']} (pid {holder['pid']}) did not end within {patience_s:g} s."
        )
