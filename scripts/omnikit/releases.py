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
from omnikit.log import say, table
from omnikit.topology import make_plan

# What about.json has.
_TEXTS, _MAPS = ("time", "owner", "note"), ("images", "source", "changed")


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
    """Every release that is kept whole, the oldest first. Others: see damaged."""
    return _all(environment)[0]


def damaged(environment: str) -> list[str]:
    """What is wrong with releases that are not whole: a prune was cut, or a disk was full."""
    return [f"release {number}: {fault}" for number, fault in _all(environment)[1].items()]


def _all(environment: str) -> tuple[list[Release], dict[int, str]]:
    """Those that are whole, and what is wrong with the others, by number."""
    root = folder(environment)
    found, faults = [], {}
    numbers = [int(path.name) for path in _folders(root) if path.name.isdigit()]
    for number in sorted(numbers):
        try:
            about = _about(root / str(number), environment)
            found.append(Release(number, root / str(number), about))
        except (OSError, ValueError, RecursionError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            faults[number] = f"{root / str(number) / 'about.json'}: {said}"
    return found, faults


def _folders(root: Path) -> list[Path]:
    return list(root.iterdir()) if root.is_dir() else []


def _about(place: Path, environment: str) -> dict[str, Any]:
    """What a release says of itself. Raises OSError, ValueError for one that is not whole."""
    about = json.loads((place / "about.json").read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise ValueError("it is no object")
    for names, kind, called in ((_TEXTS, str, "a text"), (_MAPS, dict, "an object")):
        for name in names:
            if not isinstance(about.get(name), kind):
                raise ValueError(f"its {name!r} is missing, or not {called}")
    for name in (f"{environment}.yaml", "files.json"):
        if not (place / name).is_file():
            raise ValueError(f"{name} beside it is missing")
    return about


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
    known, faults = _all(environment)
    number = max([0, *(release.number for release in known), *faults]) + 1
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
    _prune(environment, known, deployment.config.settings.deploy.keep_releases - 1)
    return Release(number, place, about)


def _prune(environment: str, known: list[Release], keep: int) -> None:
    """Remove all but the last so many of them. A folder loses its number before its files, so
    that one which is half removed is none; what an earlier prune left goes as well.
    """
    root = folder(environment)
    for release in known[: max(0, len(known) - keep)]:
        release.folder.rename(root / f".{release.number}.old")
    for left in root.glob(".*.old"):
        shutil.rmtree(left)


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
    known, faults = _all(environment)
    if number is None:
        return _earlier(environment, known, faults)
    for release in known:
        if release.number == number:
            return release
    if number in faults:
        raise InputError(
            f"release {number} is damaged: {faults[number]}.",
            where="--to",
            todo="go back to another one: invoke releases",
        )
    numbers = ", ".join(str(release.number) for release in known) or "none"
    raise InputError(f"there is no release {number}, found: {numbers}.", where="--to")


def _earlier(environment: str, known: list[Release], faults: Mapping[int, str]) -> Release:
    """The last before the present one, which is the last even where it is damaged."""
    present = max([0, *(release.number for release in known), *faults])
    before = [release for release in known if release.number < present]
    for number, fault in faults.items():
        say(f"left out: release {number}: {fault}")
    if not before:
        raise InputError(
            f"there is no earlier release of {environment} to go back to.",
            todo="see what there is: invoke releases",
        )
    return before[-1]


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
    file = release.folder / "files.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        files, proxy_kind = kept["files"], kept["proxy_kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"release {release.number} is damaged: {error}.",
            where=str(file),
            todo="go back to another one: invoke releases, then invoke rollback --to NUMBER",
        ) from error
    folder_ = control_folder(now.environment)
    return Deployment(config, make_plan(config), folder_, files, proxy_kind)


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
