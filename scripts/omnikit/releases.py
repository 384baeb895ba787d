"""Deployments that ended well, kept on the control host: what was deployed, and all its files."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping, Optional

from omnikit import config as configuration
from omnikit import config_report, who
from omnikit.config import Config
from omnikit.deployment import Deployment, control_folder
from omnikit.errors import InputError
from omnikit.hidden import Hidden
from omnikit.log import table
from omnikit.topology import make_plan


@dataclass(frozen=True)
class Release:
    """number counts from 1. about: when, who, image, source, what changed, and a note."""

    number: int
    folder: Path
    about: Mapping[str, Any]


def folder(environment: str) -> Path:
    """Where an environment's releases are."""
    return control_folder(environment) / "releases"


def all_of(environment: str) -> list[Release]:
    """Every release that is kept, the oldest first."""
    found = []
    root = folder(environment)
    for path in root.iterdir() if root.is_dir() else ():
        if path.name.isdigit():
            about = json.loads((path / "about.json").read_text(encoding="utf-8"))
            found.append(Release(int(path.name), path, about))
    return sorted(found, key=lambda release: release.number)


def record(
    deployment: Deployment,
    changes: Mapping[str, str],
    *,
    images: Mapping[str, str],
    source: Mapping[str, Any],
    note: str = "",
) -> Release:
    """Keep a deployment that ended well. images: id by name; source: revision and dirty."""
    environment = deployment.plan.environment
    known = all_of(environment)
    number = known[-1].number + 1 if known else 1
    about = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "owner": who.am_i(),
        "images": dict(images),
        "source": dict(source),
        "changed": dict(changes),
        "note": note,
    }
    place = folder(environment) / str(number)
    beside = place.with_name(f".{number}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True, mode=0o700)
    _write(beside / f"{environment}.yaml", _merged(deployment.config))
    kept = {"proxy_kind": deployment.proxy_kind, "files": deployment.files}
    _write(beside / "files.json", json.dumps(kept))
    _write(beside / "about.json", json.dumps(about, indent=1) + "\n")
    beside.rename(place)
    for old in known[: max(0, len(known) + 1 - deployment.config.settings.deploy.keep_releases)]:
        shutil.rmtree(old.folder)
    return Release(number, place, about)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _merged(config: Config) -> str:
    """The merged settings as a file; a secret that stood in a user's own file is left out."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: shown(v) for k, v in value.items() if not isinstance(v, Hidden)}
        return [shown(item) for item in value] if isinstance(value, list) else value

    return config_report.as_yaml(shown(config.tree.plain()))


def find(environment: str, number: Optional[int]) -> Release:
    """A release by its number; None: the last one before the current. Raises InputError."""
    known = all_of(environment)
    if number is None:
        if len(known) < 2:
            raise InputError(
                f"there is no earlier release of {environment} to go back to.",
                todo="see what there is: invoke releases",
            )
        return known[-2]
    for release in known:
        if release.number == number:
            return release
    numbers = ", ".join(str(release.number) for release in known) or "none"
    raise InputError(f"there is no release {number}, found: {numbers}.", where="--to")


def restored(release: Release, now: Config) -> Deployment:
    """A release as a deployment that can be carried out.

    Passwords of hosts come from the present configuration: releases do not have them.
    """
    stored = configuration.load_merged(release.folder / f"{now.environment}.yaml")
    passwords = {name: host.password for name, host in now.settings.hosts.items()}
    hosts = {
        name: host.model_copy(update={"password": passwords.get(name, host.password)})
        for name, host in stored.settings.hosts.items()
    }
    config = replace(stored, settings=stored.settings.model_copy(update={"hosts": hosts}))
    kept = json.loads((release.folder / "files.json").read_text(encoding="utf-8"))
    return Deployment(
        config,
        make_plan(config),
        control_folder(now.environment),
        kept["files"],
        kept["proxy_kind"],
    )


def as_text(known: list[Release]) -> str:
    """A table, the newest first."""
    rows = []
    for release in reversed(known):
        about = release.about
        source = about["source"].get("revision") or "-"
        changed = ", ".join(f"{what} {name}" for name, what in about["changed"].items())
        rows.append(
            [
                str(release.number),
                about["time"],
                about["owner"].split(":")[0],
                ", ".join(f"{name} ({id_[:12]})" for name, id_ in about["images"].items()) or "-",
                source + (" (dirty)" if about["source"].get("dirty") else ""),
                about["note"] or changed,
            ]
        )
    return table(rows, ["release", "time", "by", "image", "source", "what"])
