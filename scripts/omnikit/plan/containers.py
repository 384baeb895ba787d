"""What each node's container is made of, from settings and plan. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Iterable, Optional, Sequence

from hostkit.containers.profile import Profile
from omnikit.config.schema import Settings
from omnikit.plan.types import HostPlan, NodePlan, Plan

Spec = dict[str, Any]


def container_name(settings: Settings, environment: str, role: str, node: str) -> str:
    """A node's container, "" where it runs on the host itself."""
    runtime = settings.proxy.runtime if role == "proxy" else None
    if settings.runtime != "docker" or runtime == "process":
        return ""
    prefix = getattr(settings.container.prefix, role) or f"omnikit_{environment}"
    return f"{prefix}_{node}"


def profile(settings: Settings, *, check: bool = True) -> Optional[Profile]:
    """What sets up the environment in containers; None: nothing. check: try its library too."""
    container = settings.container
    if container.profile is None:
        return None
    library = container.profile_library if check else None
    return {"file": container.profile, "library": library, "python": container.python}


def spec(settings: Settings, *, name: str, owner: str, image: str, folders: Iterable[str]) -> Spec:
    """What hostkit.containers.containers works with. folders are mounted where they are."""
    container = settings.container
    env = {key: str(value) for key, value in container.env.items() if value is not None}
    return {
        "name": name,
        "engine": container.engine,
        "grace_s": container.grace_s,
        "profile": profile(settings),
        "owner": owner,
        "image": image,
        "shm_size": container.shm_size,
        "network": container.network,
        "privileged": container.privileged,
        "user": container.user,
        "workdir": container.workdir,
        "entrypoint": container.entrypoint,
        "interactive": container.interactive,
        "init": container.init,
        "devices": list(container.devices),
        "mounts": with_folders(container.mounts, folders),
        "env": env,
        "args": list(container.args),
    }


def with_folders(mounts: Sequence[str], folders: Iterable[str]) -> list[str]:
    """Mounts, and each folder at its own path unless a mount shows it there already.

    >>> with_folders(["/data:/data"], ["/data/logs", "/srv/x"])
    ['/data:/data', '/srv/x:/srv/x']
    """
    made = list(mounts)
    for folder in folders:
        path = PurePosixPath(folder)
        shown = [mount.split(":") for mount in made]
        roots = {PurePosixPath(parts[0]) for parts in shown if parts[0] == parts[1]}
        if not roots & {path, *path.parents}:
            made.append(f"{folder}:{folder}")
    return made


def host_specs(settings: Settings, plan: Plan, host: HostPlan) -> dict[str, Spec]:
    """The containers of one host by name; none with runtime process."""
    if settings.runtime != "docker":
        return {}
    nodes = [(node.container, _own_folders(settings, node)) for node in plan.on_host(host.name)]
    if plan.proxy is not None and plan.proxy.host == host.name and plan.proxy.container:
        nodes.append((plan.proxy.container, [plan.proxy.log_dir]))
    found = {}
    for name, own in nodes:
        folders = [host.work_dir, *own, str(PurePosixPath(host.temp_dir).parent)]
        folders.append(plan.model_path)
        if settings.paths.code_dir and settings.paths.local_code_dir:
            folders.append(settings.paths.code_dir)
        found[name] = spec(
            settings,
            name=name,
            owner=plan.environment,
            image=settings.container.image or "",
            folders=folders,
        )
        if not settings.container.user:  # whom the image does not know: caches go where only we are
            found[name]["env"] = {"HOME": f"{host.work_dir}/run", **found[name]["env"]}
    if plan.proxy is not None and plan.proxy.container in found:
        # Its host perhaps has no accelerators, and so no driver that the library could load.
        found[plan.proxy.container]["profile"] = profile(settings, check=False)
    return found


def _own_folders(settings: Settings, node: NodePlan) -> list[str]:
    """Where a node writes for people outside of its container: logs, and traces of its profiler."""
    if settings.profiling.dir is None:  # below work_dir, which is mounted
        return [node.log_dir]
    return [node.log_dir, str(PurePosixPath(node.profile_dir).parent)]
