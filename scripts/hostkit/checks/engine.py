"""Checks of a host's container engine: reachable, new enough, image, space, mounts, other users."""

from __future__ import annotations

import json
import re
from typing import Any, Optional

from hostkit.base.errors import ToolkitError
from hostkit.base.log import some
from hostkit.checks.base import Group, one_line
from hostkit.containers import containers, engines, image_look
from hostkit.containers.engines import Engine, differ
from hostkit.nodes import setup_look
from hostkit.versions import inside, judge

_TITLE = "container engine"


def look(group: Group) -> None:
    """All checks of the engine; nothing where the servers run without containers."""
    if not group.in_containers:
        return
    _mounts(group)
    engine = _engine(group)
    if engine is not None:
        _image(group, engine)
        if group.given["device_kind"] == "npu":
            _holders(group, engine)


def _engine(group: Group) -> Optional[Engine]:
    kind, least = group.given["container_engine"], group.limits["container_engine"]
    needed = f"Docker {least} or newer (checks.container_engine), or Podman"
    try:
        engine = engines.find(kind, group.timeout_s)
        version = engine.version()
    except ToolkitError as error:
        group.error("engine.version", _TITLE, error, needed=needed, todo="systemctl restart docker")
        return None
    group.facts["engine"] = f"{engine.kind} {version}"
    group.add(
        *("engine.version", _TITLE, engine.kind == "podman" or is_at_least(version, least)),
        found=f"{engine.kind} {version}",
        needed=needed,
        todo="update it: dnf update docker, or apt-get install docker.io",
    )
    _platform(group, engine)
    return engine


def _platform(group: Group, engine: Engine) -> None:
    """Images are for what the engine runs: named where that is not the host's or the set one."""
    own, given, found = engines.own(), group.given.get("image_platform"), engine.platform()
    for needed, whose, todo in (
        (own, "the host's own", "use an engine of this host: docker context ls; echo $DOCKER_HOST"),
        (given, "image.platform", "leave image.platform at null: each host gets what is for it"),
    ):
        if needed and differ(found, needed):
            group.add(
                *("engine.arch", "architecture of the container engine", False),
                found=f"{found} ({engine.kind})",
                needed=f"{needed} ({whose})",
                todo=todo,
            )


def is_at_least(version: str, least: str) -> bool:
    """Whether a version is another one or newer.

    >>> is_at_least("20.10.24+dfsg1", "20.10"), is_at_least("18.09.0", "20.10")
    (True, False)
    """
    found, wanted = ([int(n) for n in re.findall(r"\d+", v)] for v in (version, least))
    return found[: len(wanted)] >= wanted


def _image(group: Group, engine: Engine) -> None:
    image = group.given.get("image")
    if image is None:
        return
    built = group.given["image_built"]
    try:
        found = image_look.find(engine, image)
    except ToolkitError as error:
        group.error("engine.image", "container image", error, needed=image)
        return
    if found is not None:
        group.facts["image_id"] = found.id
    will_be = "not here; the toolkit builds it" if built else "not here"
    group.add(
        *("engine.image", "container image", found is not None or built),
        found=f"{found.id[:12]}, {found.size // image_look.MIB} MiB" if found else will_be,
        needed=image,
        todo="invoke pull-image",
    )
    if found is None:
        _space(group, engine)
        _release(group, None, runs=False)
        return
    runs = engine.platform()
    if differ(found.platform, runs):
        group.add(
            *("engine.image_arch", "architecture of the image", False),
            found=found.platform,
            needed=f"{runs}, which {engine.kind} runs here",
            todo="invoke pull-image, which takes the right one where the registry has it; or name"
            " one that is built for it: container.image",
        )
    else:
        _environment(group, group.given["containers"])
    _release(group, found, runs=not differ(found.platform, runs))


def _release(group: Group, image: Optional[image_look.Found], *, runs: bool) -> None:
    """Whether the image is older than omni-infer's release: by what is in it, if it can be seen.

    runs: whether a container of it can be started here.
    """
    wanted, name, title = group.given["release"], "engine.release", "image of the release"
    if wanted is None:
        return
    content = itself = (judge.UNKNOWN, "it cannot be looked into here")
    if image is not None:
        itself = judge.by_itself(wanted, image.labels, image.created)
    if runs:
        try:
            spec, names = group.given["containers"][0], list(wanted["packages"])
            has = inside.of_image(spec, wanted["python"], names)
            content = judge.by_content(wanted, has)
        except ToolkitError as error:
            content = (judge.UNKNOWN, f"it cannot be looked into ({one_line(error.what)})")
    by_name = judge.by_name(wanted, group.given["image"])
    word, said = judge.together(itself, content, by_name)
    needed = f"omni-infer {wanted['name']} ({wanted['date']}) or newer"
    if word == judge.UNKNOWN:
        group.unknown(name, title, f"not known: {said}", needed=needed, todo=wanted["todo"])
        return
    over = word == judge.OLDER and wanted["laid_over"]
    group.add(
        *(name, title, over or word == judge.FITS),
        found=f"{said}; the source of the release is laid over it" if over else said,
        needed=needed,
        todo=wanted["todo"],
        required=word == judge.OLDER and not wanted["accepted"],
    )


def _environment(group: Group, specs: list[containers.Spec]) -> None:
    """What the image's profile sets up, in a container as the servers will have it."""
    wanted = [spec for spec in specs if spec["profile"]]
    if not wanted:
        return
    name, title = "engine.environment", "environment in containers"
    profile = max((spec["profile"] for spec in wanted), key=lambda one: bool(one["library"]))
    needed = f"{profile['file']} (container.profile) in the image"
    if profile["library"]:
        needed += f", after which {profile['library']} loads (container.profile_library)"
    devices = [device.split(":")[0] for device in group.given["container_devices"]]
    sources = [mount.split(":")[0] for mount in group.given["mounts"]]
    missing = [one for one in (*devices, *sources) if not group.path(one).exists()]
    if missing:
        group.unknown(name, title, f"a container cannot have {some(missing)}", needed=needed)
        return
    try:
        against = setup_look.problems(wanted)
    except ToolkitError as error:
        group.error(name, title, error, needed=needed)
        return
    for one in against:
        if not one.asked:
            group.unknown(name, title, one_line(one.what), needed=needed)
            return
    group.add(
        *(name, title, not against),
        found="; ".join(one_line(one.what) for one in against) or "it is set up",
        needed=needed,
        todo=against[0].todo if against else "",
    )


def _space(group: Group, engine: Engine) -> None:
    title, wanted = "space for the image", group.given["image_free_mib"]
    try:
        folder = image_look.folder(engine)
    except ToolkitError as error:
        group.error("engine.space", title, error, needed=f"{wanted} MiB (image.free_mib)")
        return
    if folder is None:
        group.unknown("engine.space", title, "the engine keeps its images on another machine")
        return
    free = image_look.free_mib(folder)
    group.add(
        *("engine.space", title, free >= wanted),
        found=f"{free} MiB free at {folder}",
        needed=f"at least {wanted} MiB (image.free_mib)",
        todo=f"{engine.kind} system df; {engine.kind} image prune; or move data-root to a larger"
        " disk (/etc/docker/daemon.json)",
    )


def _mounts(group: Group) -> None:
    """Docker makes an empty folder of a missing source: npu-smi as a folder runs nowhere."""
    sources = [mount.split(":")[0] for mount in group.given["mounts"]]
    missing = [source for source in sources if not group.path(source).exists()]
    if not sources:
        return
    systems = [source for source in missing if source.startswith(_OF_THE_SYSTEM)]
    own = [source for source in missing if source not in systems]
    group.add(
        *("engine.mounts", "what containers mount", not missing),
        found=f"missing: {some(missing)}" if missing else f"all {len(sources)} are there",
        needed="the host's side of each of container.mounts",
        todo="; ".join(
            [
                *(["install the NPU driver and its tools, which bring them"] if systems else []),
                *([f"mkdir -p {' '.join(own)}"] if own else []),
                "or change container.mounts",
            ]
        ),
    )


_OF_THE_SYSTEM = ("/usr/", "/etc/", "/dev/")


def _holders(group: Group, engine: Engine) -> None:
    """Containers of others with the planned devices: inside, npu-smi then says -8005 or -8020."""
    title = "devices not held by other containers"
    try:
        ids = engine.ask("ps", "--quiet", "--no-trunc").out.split()
        there = json.loads(engine.ask("container", "inspect", *ids).out) if ids else []
    except (ToolkitError, ValueError) as error:
        group.unknown("engine.devices", title, str(getattr(error, "what", error)))
        return
    planned, held, sees_all = set(group.given["devices"]), [], []
    for one in there:
        if containers.OWNER in (one["Config"].get("Labels") or {}):
            continue  # ours: its servers have records, and deploy sees to it
        name = str(one["Name"]).lstrip("/")
        devices = devices_of(one) & planned
        if devices:
            held.append(f"{name} has {some(['davinci' + str(d) for d in sorted(devices)], 3)}")
        elif one["HostConfig"].get("Privileged"):
            sees_all.append(name)
    todo = (
        f"see what runs in it: {engine.kind} top NAME; if it is not needed: {engine.kind} stop NAME"
    )
    group.add(
        *("engine.devices", title, not (held or sees_all)),
        found="; ".join(held + [f"{name} is privileged and may use any" for name in sees_all])
        or "no other running container has them",
        needed="planned devices in no other container",
        todo=todo,
        required=bool(held),
    )


_DAVINCI = re.compile(r"(?:^|/)davinci(\d+)$")


def devices_of(container: dict[str, Any]) -> set[int]:
    """The devices that a container was given: by --device, or through Ascend's own runtime."""
    found = set()
    for device in container["HostConfig"].get("Devices") or ():
        match = _DAVINCI.search(device["PathOnHost"])
        if match:
            found.add(int(match.group(1)))
    for word in container["Config"].get("Env") or ():
        name, _, value = word.partition("=")
        if name == "ASCEND_VISIBLE_DEVICES":
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", value):
                found.update(range(int(first), int(last or first) + 1))
    return found
