"""An image's archive to hosts without internet: checked, shipped, loaded, checked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from omnikit import bundle, fleet, host_image, host_image_archive, host_image_look, jobs, run
from omnikit.config import Config
from omnikit.deployment import control_folder
from omnikit.errors import ActionError, InputError
from omnikit.host_image_name import parse
from omnikit.image_pull import shown_engine, tell
from omnikit.log import say
from omnikit.plan_types import Plan

TASK = "Ship the archive"


def loading(config: Config, archive: Path, image: Optional[str]) -> dict[str, Any]:
    """What the job "load" is told. Checks the archive first. Raises InputError.

    image: which of the archive's images is meant; None: the only one.
    """
    archive = archive.absolute()
    sha256 = host_image_archive.expected(archive)
    host_image_archive.verify(archive, sha256)
    content = host_image_archive.content(archive)
    if image is None and len(content.tags) == 1:
        image = content.tags[0]
    if image is None or not host_image_look.is_called(content.tags, image):
        shown = ", ".join(content.tags) or "images without a name"
        raise InputError(
            f"the archive does not hold {image or 'one named image'}, found: {shown}.",
            where=str(archive),
            todo="name the one that is meant, or export it: scripts/pull_image.sh"
            f" {image or 'REPOSITORY:TAG'} --export FILE",
        )
    if parse(image).digest:
        raise InputError(f"{image}: an archive keeps no digest.", todo="name the image by its tag")
    return {
        "image": image,
        "engine": config.settings.container.engine,
        "archive": str(archive),
        "sha256": sha256,
        "ids": list(content.ids),
        "free_mib": config.settings.image.free_mib,
    }


def commands(config: Config, given: Mapping[str, Any]) -> list[str]:
    """What loading may run on each host, as lines to show."""
    engine = shown_engine(config)
    look = engine.argv("image", "inspect", "--", given["image"])
    load = host_image.load_argv(engine, Path(given["archive"]))
    return [run.show(look), run.show(load)]


def load(
    config: Config, plan: Plan, hosts: Sequence[str], given: dict[str, Any]
) -> dict[str, jobs.Done]:
    """Ship the archive to the hosts that have not its image, and load it there."""
    settings, at_once = config.settings, config.settings.image.at_once
    archive = Path(given["archive"])
    remote = {h.name: h for h in plan.hosts if h.settings.connection != "local"}
    folder = {name: f"{host.work_dir}/jobs" for name, host in remote.items()}
    size = archive.stat().st_size

    def look(host: str) -> dict[str, Any]:
        if host not in remote:
            return {**given, "only_look": True}
        return {**given, "only_look": True, "folder": folder[host], "size": size}

    done = jobs.run(plan, settings, "load", {host: look(host) for host in hosts}, on_done=tell)
    missing = [host for host in hosts if (done[host].result or {}).get("action") == "missing"]
    away = [host for host in missing if host in remote]
    if away:
        say(f"shipping {archive.name} ({size >> 20} MiB) to {len(away)} hosts, {at_once} at a time")
        done.update(_ship(config, plan, away, archive))
    there = {
        host: {**given, "archive": f"{folder[host]}/{archive.name}", "remove": True}
        if host in remote
        else given
        for host in missing
        if done[host].error is None
    }
    if there:
        found = jobs.run(plan, settings, "load", there, at_once=at_once, on_done=tell)
        done.update(found)
    return {host: done[host] for host in hosts}


def _ship(config: Config, plan: Plan, hosts: Sequence[str], archive: Path) -> dict[str, jobs.Done]:
    """Copy the archive to hosts; only those that failed are in what is returned."""
    folder = control_folder(plan.environment)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    inventory = folder / "inventory-image.json"
    text = json.dumps(fleet.inventory(plan, config.settings, {}), indent=1) + "\n"
    bundle.write(inventory, text.encode())
    shipped: set[str] = set()

    def on_event(event: fleet.Event) -> None:
        if event["event"] == "ok" and event["task"] == TASK:
            shipped.add(event["host"])
            say(f"host {event['host']}: the archive has arrived")

    variables = {
        "omnikit_hosts": ",".join(hosts),
        "omnikit_image_archive": str(archive),
        "omnikit_at_once": str(config.settings.image.at_once),
    }
    outcome = fleet.play("ship_image.yml", inventory, config.settings, on_event, variables)
    failed: dict[str, jobs.Done] = {}
    for host in hosts:
        if host in shipped:
            continue
        mine = [event for event in outcome.failures if event["host"] == host]
        said = mine[0]["msg"].strip() if mine else "Ansible said nothing about this host."
        failed[host] = jobs.Done(error=ActionError(f"the archive could not be shipped: {said}"))
        tell(host, failed[host])
    return failed
