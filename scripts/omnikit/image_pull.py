"""The image on many hosts: pulled by each, or exported here for hosts without internet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import config as configuration
from omnikit import host_image, host_image_login, host_image_pull, jobs, run
from omnikit.config import Config
from omnikit.errors import InputError
from omnikit.host_engine import Engine
from omnikit.host_image_name import parse
from omnikit.log import say
from omnikit.plan_types import Plan

HERE = "this machine"


def wanted(config: Config, image: Optional[str]) -> str:
    """The image that is meant: the one given, else container.image. Raises InputError."""
    if image:
        _check(image)
        return image
    if config.settings.container.image is None:
        raise config.error(
            "no image is set.",
            "container",
            "image",
            todo="name one: scripts/pull_image.sh REPOSITORY:TAG, or set container.image",
        )
    return config.settings.container.image


def _check(image: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from omnikit.setting_types import ImageName

    try:
        TypeAdapter(ImageName).validate_python(image)
    except ValidationError as error:
        raise InputError(
            f"{image!r} is not an image's name: expected REPOSITORY:TAG or"
            " REPOSITORY@sha256:DIGEST."
        ) from error


def parameters(config: Config, image: str, *, secret: bool = True) -> dict[str, Any]:
    """What the job "pull" is told. secret: with the registry's log-in."""
    settings = config.settings.image
    credentials = None
    if settings.credentials is not None:
        where = str(config.origin("image", "credentials"))
        credentials = configuration.read_secret(settings.credentials, where)
        user, _ = host_image_login.split(credentials)
        credentials = credentials if secret else f"{user}:"
    return {
        "image": image,
        "engine": config.settings.container.engine,
        "mirrors": list(settings.mirrors),
        "credentials": credentials,
        "attempts": settings.attempts,
        "delay_s": settings.delay_s,
        "free_mib": settings.free_mib,
    }


def chosen(plan: Plan, names: Sequence[str]) -> list[str]:
    """The hosts of a plan that are meant; all when none is named. Raises InputError."""
    known = [host.name for host in plan.hosts]
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no host {name!r}, found: {', '.join(known)}.", where="--host"
            )
    return [name for name in known if name in names] if names else known


def commands(config: Config, image: str, archive: Optional[Path] = None) -> list[str]:
    """What a pull (and export) may run on each host, as lines to show."""
    engine, given = shown_engine(config), parameters(config, image, secret=False)
    words = host_image_pull.plan_argvs(engine, given)
    if archive is not None:
        words.append(host_image.save_argv(engine, image, archive))
    return [run.show(argv) for argv in words]


def shown_engine(config: Config) -> Engine:
    """The engine as --dry-run shows it: which one a host has, it says itself later."""
    kind = config.settings.container.engine
    kind = "docker" if kind == "auto" else kind
    return Engine(kind, kind)


def pull(config: Config, plan: Plan, hosts: Sequence[str], image: str) -> dict[str, jobs.Done]:
    """Pull on hosts, at most image.at_once at a time, with a line for each as it ends."""
    given = parameters(config, image)
    at_once = config.settings.image.at_once
    say(f"pulling {image} on {len(hosts)} hosts, {at_once} at a time")
    return jobs.run(
        plan,
        config.settings,
        "pull",
        dict.fromkeys(hosts, given),
        at_once=at_once,
        on_done=tell,
    )


def export(config: Config, image: str, archive: Path) -> dict[str, Any]:
    """Pull here if needed, and write the archive."""
    if parse(image).digest:
        raise InputError(
            f"{image}: an archive keeps no digest, the image would arrive without a name.",
            todo="export it by its tag; what arrives is checked by the archive's own SHA-256",
        )
    given = {"image": image, "engine": config.settings.container.engine}
    host_image.pull(parameters(config, image))
    return host_image.save({**given, "archive": str(archive.absolute())})


def tell(host: str, done: jobs.Done) -> None:
    """A line for a host that has ended."""
    if done.error is not None:
        say(f"host {host}: failed: {done.error.what.splitlines()[0]}")
    elif done.result is not None:
        say(f"host {host}: {line(done.result)}")


def line(result: dict[str, Any]) -> str:
    """A result as a line for people."""
    if result["action"] == "missing":
        return f"{result['image']} is not there"
    text = f"{result['action']} {result['image']} ({result['id'][:12]})"
    if result["action"] in ("pulled", "loaded"):
        text += f" from {result['from']}"
    if "archive" in result:
        text += f", archive {result['archive']}"
    return f"{text}; {result['note']}" if "note" in result else text
