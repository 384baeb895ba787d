"""Deployments that ended well, kept on the control host: what was deployed, and all its files."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping, Optional

from hostkit.base.errors import InputError
from hostkit.base.log import say, table
from hostkit.base.values import whole
from hostkit.files import regular
from omnikit.config import config as config_config
from omnikit.config import report
from omnikit.config.config import Config
from omnikit.config.layers import control_folder
from omnikit.fleet import identity
from omnikit.plan.types import Plan
from omnikit.prepare.deployment import Deployment
from omnikit.topology.topology import make_plan

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
    numbers = (whole(path.name) for path in _folders(root))
    for number in sorted(number for number in numbers if number is not None):
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
    about = regular.parsed(place / "about.json")
    if not isinstance(about, dict):
        raise ValueError("it is no object")
    for names, kind, called in ((_TEXTS, str, "a text"), (_MAPS, dict, "an object")):
        for name in names:
            if not isinstance(about.get(name), kind):
                raise ValueError(f"its {name!r} is missing, or not {called}")
    texts = [*about["images"].values(), *about["changed"].values()]
    if not all(isinstance(text, str) for text in [*texts, about["source"].get("revision") or ""]):
        raise ValueError("an image, a revision or a change in it is not a text")
    for name in (f"{environment}.yaml", "files.json"):
        if not (place / name).is_file():
            raise ValueError(f"{name} beside it is missing")
    return about


@dataclass(frozen=True)
class Staged:
    """A deployment on its way to a release. images: id by name; source: revision and dirty."""

    deployment: Deployment
    changed: Mapping[str, str]
    images: Mapping[str, str]
    source: Mapping[str, Any]
    note: str = ""

    def write(self, place: Path) -> None:
        """Write it down beside the releases, whole."""
        about = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "owner": identity.am_i(),
            "images": dict(self.images),
            "source": dict(self.source),
            "changed": dict(self.changed),
            "note": self.note,
        }
        beside = place.with_name(f".{place.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True, mode=0o700)
        environment = self.deployment.plan.environment
        config = report.without_secrets(self.deployment.config)
        _write(beside / f"{environment}.yaml", config)
        kept = {"proxy_kind": self.deployment.proxy_kind, "files": self.deployment.files}
        _write(beside / "files.json", json.dumps(kept))
        _write(beside / "about.json", json.dumps(about, indent=1) + "\n")
        beside.rename(place)

    def is_present(self) -> bool:
        """Whether the last release is the same: image, source and files."""
        present = last(self.deployment.plan.environment)
        if present is None or not deployed_last(self.deployment):
            return False
        about = present.about
        return (about["images"], about["source"]) == (dict(self.images), dict(self.source))


def deployed_last(deployment: Deployment) -> bool:
    """Whether the last release has the same files."""
    present = last(deployment.plan.environment)
    try:
        kept = regular.parsed(present.folder / "files.json") if present else {}
        files = {host: dict(files) for host, files in deployment.files.items()}
        return bool(kept["files"] == files and kept["proxy_kind"] == deployment.proxy_kind)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def last(environment: str) -> Optional[Release]:
    """The release that was proved last; None where there is none, or it is damaged."""
    known, faults = _all(environment)
    if not known or max(faults, default=0) > known[-1].number:
        return None
    return known[-1]


def keep(config: Config, staged: Path) -> None:
    """What was proved becomes the last release; nothing, where it is one already."""
    if not staged.is_dir():
        return
    known, faults = _all(config.environment)
    number = max([0, *(release.number for release in known), *faults]) + 1
    root = folder(config.environment)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged.rename(root / str(number))
    _prune(config.environment, known, config.settings.deploy.keep_releases - 1)


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


def with_passwords(stored: Config, now: Config) -> Config:
    """Settings that were kept, with the present passwords of hosts: what is kept has none."""
    passwords = {name: host.password for name, host in now.settings.hosts.items()}
    hosts = {
        name: host.model_copy(update={"password": passwords.get(name, host.password)})
        for name, host in stored.settings.hosts.items()
    }
    return replace(stored, settings=stored.settings.model_copy(update={"hosts": hosts}))


def restored(release: Release, now: Config, planned: Optional[Plan] = None) -> Deployment:
    """A release as a deployment that can be carried out. planned: the plan of now, where there is
    one already.
    """
    stored = config_config.load_merged(release.folder / f"{now.environment}.yaml")
    config = with_passwords(stored, now)
    file = release.folder / "files.json"
    try:
        kept = regular.parsed(file)
        files, proxy_kind = kept["files"], kept["proxy_kind"]
        texts = [text for one in files.values() for text in one.values()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("what should be a text is none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"release {release.number} is damaged: {error}.",
            where=str(file),
            todo="go back to another one: invoke releases, then invoke rollback --to NUMBER",
        ) from error
    plan = _with_secrets(make_plan(config), planned or make_plan(now))
    return Deployment(config, plan, control_folder(config.environment), files, proxy_kind)


def _with_secrets(plan: Plan, now: Plan) -> Plan:
    """Secrets that a user's own file had come from there: releases do not have them."""
    known = {node.name: node.secrets for node in now.nodes}
    nodes = [replace(n, secrets={**known.get(n.name, {}), **n.secrets}) for n in plan.nodes]
    return replace(plan, nodes=tuple(nodes))


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
