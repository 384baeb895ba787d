"""The image on many hosts: pulled by each, or exported here and shipped to those without net."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from hostkit.containers import engines, image_archive, image_look, image_pull, images
from hostkit.containers.engines import Engine
from hostkit.containers.image_look import parse
from omnikit.config import config as config_config
from omnikit.config.config import Config
from omnikit.fleet import direct_ssh, fleet, jobs
from omnikit.plan.types import Plan

# Which platform an image is to be for: the setting, else what the hosts that will run it say.

_UNAME = "uname -m"
_ASKED = f"linux/$({_UNAME})"  # engines take uname's word for an architecture, too
_TODO = "name it: --set image.platform=linux/arm64 (or linux/amd64)"


class Silent(InputError):
    """No host could be asked what its images must be for."""


def of_hosts(config: Config, plan: Plan, hosts: Sequence[str]) -> str:
    """The one platform of these hosts; all are asked unless it is set.

    Raises InputError when they differ, and Silent when none can be asked.
    """
    if config.settings.image.platform:
        return engines.normal(config.settings.image.platform)
    given = {"engine": config.settings.container.engine}
    done = jobs.run(plan, config.settings, "platform", dict.fromkeys(hosts, given))
    found: dict[str, list[str]] = {}
    for host, one in done.items():
        if one.result is not None:
            found.setdefault(one.result["platform"], []).append(host)
    silent = [f"{host}: {one.error}" for host, one in done.items() if one.error is not None]
    if not found:
        said = "\n  ".join(silent)
        raise Silent(
            f"none of the hosts can say what platform the image must be for.\n  {said}", todo=_TODO
        )
    if len(found) > 1:
        shown = "; ".join(f"{one} on {', '.join(names)}" for one, names in sorted(found.items()))
        raise InputError(
            f"the hosts need images for different platforms: {shown}.",
            todo=f"make one image for each, under different names; {_TODO}",
        )
    if silent:
        say(f"not asked for their platform: {'; '.join(line.splitlines()[0] for line in silent)}")
    return next(iter(found))


def shown(config: Config, plan: Optional[Plan] = None) -> str:
    """What a command to be read has as the platform. plan: where its hosts decide, and not the
    machine that the command is for.
    """
    if config.settings.image.platform:
        return engines.normal(config.settings.image.platform)
    away = [host for host in plan.hosts if not host.local] if plan else []
    if not away:
        return _ASKED
    ssh = ["ssh", *direct_ssh.words(away[0].settings, config.settings)]
    return f"linux/$({run.show([*ssh, direct_ssh.target(away[0].settings)])} {_UNAME})"


def show(argv: run.Words, platform: str) -> str:
    """A command as a line that can be pasted, where the shell puts in what platform asks for."""
    asked = platform.partition("/")[2]
    if "$" not in asked:
        return run.show(argv)
    words = (str(word) for word in argv)
    return " ".join(f'"{word}"' if asked in word else shlex.quote(word) for word in words)


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
            todo="name one: scripts/pull_image.py REPOSITORY:TAG, or set container.image",
        )
    return config.settings.container.image


def _check(image: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from omnikit.yaml.setting_types import ImageName

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
        credentials = config_config.read_secret(settings.credentials, where)
        user, _ = image_pull.split(credentials)
        credentials = credentials if secret else f"{user}:"
    return {
        "image": image,
        "engine": config.settings.container.engine,
        "platform": settings.platform,
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


def commands(
    config: Config, image: str, archive: Optional[Path] = None, plan: Optional[Plan] = None
) -> list[str]:
    """What a pull (and export) may run on each host, as lines to show.

    plan: of an export, whose hosts say what platform it is for.
    """
    engine, platform = shown_engine(config), shown(config, plan)
    given = {**parameters(config, image, secret=False), "platform": platform}
    words = image_pull.plan_argvs(engine, given)
    if archive is not None:
        words.append(images.save_argv(engine, image, archive))
    return [show(argv, platform) for argv in words]


def pull_commands(config: Config, image: str) -> list[str]:
    """The pulls alone, one for each registry that may be asked, as lines to show."""
    engine, platform = shown_engine(config), shown(config)
    return [
        show(image_pull.pull_argv(engine, source, platform), platform)
        for source in image_pull.sources(image, config.settings.image.mirrors)
    ]


def shown_engine(config: Config) -> Engine:
    """The engine as --dry-run shows it: which one a host has, it says itself later."""
    kind = config.settings.container.engine
    kind = "docker" if kind == "auto" else kind
    return Engine(kind, kind)


def pull(
    config: Config,
    plan: Plan,
    hosts: Sequence[str],
    image: str,
    if_missing: bool = False,
    *,
    others: bool = False,
) -> dict[str, jobs.Done]:
    """Pull on hosts, at most image.at_once at a time, with a line for each as it ends.

    if_missing: a tag that is there is not compared with the registry's, and nothing said of it.
    others: a host has the image, so that a registry that does not answer is not waited for.
    """
    given = {**parameters(config, image), "if_missing": if_missing}
    if others:
        given.update(attempts=1, answer_s=config.settings.image.answer_s)
    at_once = config.settings.image.at_once
    if not if_missing:
        say(f"pulling {image} on {len(hosts)} hosts, {at_once} at a time")
    return jobs.run(
        plan,
        config.settings,
        "pull",
        dict.fromkeys(hosts, given),
        at_once=at_once,
        on_done=None if if_missing else tell,
    )


def export(
    config: Config, image: str, archive: Path, plan: Optional[Plan] = None
) -> dict[str, Any]:
    """Pull here if needed, and write the archive: for the hosts of a plan, or for this machine."""
    if parse(image).digest:
        raise InputError(
            f"{image}: an archive keeps no digest, the image would arrive without a name.",
            todo="export it by its tag; what arrives is checked by the archive's own SHA-256",
        )
    given = here(config, image)
    if plan is not None:
        given["platform"] = of_hosts(config, plan, chosen(plan, ()))
    images.pull(given)
    return images.save({**given, "archive": str(archive.absolute())})


def here(config: Config, image: str) -> dict[str, Any]:
    """What the job "pull" is told for an image that somebody wants on this machine.

    It is not to run here where a platform is set: that may be another.
    """
    return {**parameters(config, image), "elsewhere": True}


def tell(host: str, done: jobs.Done) -> None:
    """A line for a host that has ended."""
    if done.error is not None:
        lines = done.error.what.splitlines()  # progress comes first
        said = next((line for line in lines if line.startswith("error: ")), lines[0])
        say(f"host {host}: failed: {said.removeprefix('error: ')}")
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
        text += f" for {result['platform']}, archive {result['archive']}"
    return f"{text}; {result['note']}" if "note" in result else text


# An image's archive to hosts without internet: checked, shipped, loaded, checked again.

TASK = "Ship the archive"


def loading(
    config: Config, archive: Path, image: Optional[str], *, whole: bool = True
) -> dict[str, Any]:
    """What the job "load" is told. Checks the archive first. Raises InputError.

    image: which of the archive's images is meant; None: the only one. whole: read all of it; the
    hosts that load it do so too.
    """
    archive = archive.absolute()
    sha256 = image_archive.expected(archive)
    if whole:
        image_archive.verify(archive, sha256)
    content = image_archive.content(archive)
    if image is None and len(content.tags) == 1:
        image = content.tags[0]
    if image is None or not image_look.is_called(content.tags, image):
        shown = ", ".join(content.tags) or "images without a name"
        raise InputError(
            f"the archive does not hold {image or 'one named image'}, found: {shown}.",
            where=str(archive),
            todo="name the one that is meant, or export it: scripts/pull_image.py"
            f" {image or 'REPOSITORY:TAG'} --export FILE",
        )
    if parse(image).digest:
        raise InputError(f"{image}: an archive keeps no digest.", todo="name the image by its tag")
    named = [one for one in content.images if image_look.is_called(one.tags, image)]
    platforms = list(dict.fromkeys(one.platform for one in named if one.platform))
    wanted = config.settings.image.platform
    image_archive.check_platform(archive, image, platforms, wanted or "")
    return {
        "image": image,
        "engine": config.settings.container.engine,
        "platform": wanted,
        "platforms": platforms,
        "archive": str(archive),
        "sha256": sha256,
        "ids": list(content.ids),
        "free_mib": config.settings.image.free_mib,
    }


def load_commands(config: Config, given: Mapping[str, Any]) -> list[str]:
    """What loading may run on each host, as lines to show."""
    engine = shown_engine(config)
    look = engine.argv("image", "inspect", "--", given["image"])
    load = images.load_argv(engine, Path(given["archive"]))
    return [run.show(look), run.show(load)]


def load(
    config: Config, plan: Plan, hosts: Sequence[str], given: dict[str, Any]
) -> dict[str, jobs.Done]:
    """Ship the archive to the hosts that have not its image, and load it there."""
    settings, at_once = config.settings, config.settings.image.at_once
    archive = Path(given["archive"])
    remote = {h.name: h for h in plan.hosts if not h.local}
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
    inventory = fleet.hosts_of(plan, config.settings)
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
