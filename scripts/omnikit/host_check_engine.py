"""Checks of a host's container engine: reachable, new enough, image, space, mounts, other users.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import re
from typing import Any, Optional

from omnikit import host_container, host_engine, host_image_look
from omnikit.errors import ToolkitError
from omnikit.host_check_base import Group, some
from omnikit.host_engine import Engine

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
        engine = host_engine.find(kind, group.timeout_s)
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
    return engine


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
        found = host_image_look.find(engine, image)
    except ToolkitError as error:
        group.error("engine.image", "container image", error, needed=image)
        return
    if found is not None:
        group.facts["image_id"] = found.id
    will_be = "not here; the toolkit builds it" if built else "not here"
    group.add(
        *("engine.image", "container image", found is not None or built),
        found=f"{found.id[:12]}, {found.size // host_image_look.MIB} MiB" if found else will_be,
        needed=image,
        todo="invoke pull-image",
    )
    if found is None:
        _space(group, engine)


def _space(group: Group, engine: Engine) -> None:
    title, wanted = "space for the image", group.given["image_free_mib"]
    try:
        folder = host_image_look.folder(engine)
    except ToolkitError as error:
        group.error("engine.space", title, error, needed=f"{wanted} MiB (image.free_mib)")
        return
    if folder is None:
        group.unknown("engine.space", title, "the engine keeps its images on another machine")
        return
    free = host_image_look.free_mib(folder)
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
        if host_container.OWNER in (one["Config"].get("Labels") or {}):
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
