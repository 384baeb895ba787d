"""The PD proxy: one interface, several kinds of software behind it. Data in, text out.

Called by prepare, checks and the proxy's scripts. May call fleet, topology and below.
"""

from __future__ import annotations

from typing import Any, Mapping

from hostkit.base.errors import InputError
from omnikit.plan.access import KEPT_BY, secured
from omnikit.proxy import lua, omni, router
from omnikit.proxy.spec import OMNI_KINDS, Kind, ProxySpec

__all__ = [
    "KINDS",
    "OLD_NAMES",
    "Kind",
    "ProxySpec",
    "check_command",
    "command",
    "cores",
    "files",
    "health_path",
    "metrics_path",
    "programs",
    "reload_command",
]

# A kind is added here and nowhere else.
KINDS: dict[str, Kind] = {
    "nginx-lua": lua.KIND,
    "vllm-router": router.KIND,
    "omni-nginx": omni.KIND,
    "omni-proxy": omni.OMNI_PROXY,
}
# Names of earlier versions, in configurations and records that are still there.
OLD_NAMES = {"nginx-njs": "nginx-lua"}


def _kind(spec: ProxySpec) -> Kind:
    try:
        return KINDS[OLD_NAMES.get(spec.kind, spec.kind)]
    except KeyError:
        raise InputError(
            f"no proxy of kind {spec.kind!r} is known here; known are {', '.join(sorted(KINDS))}.",
            where="proxy.kind",
            todo="set proxy.kind to one of these",
        ) from None


def files(spec: ProxySpec, source: str) -> dict[str, str]:
    """File name below run_dir -> finished text. source: what the files' first line names."""
    for key in () if OLD_NAMES.get(spec.kind, spec.kind) == KEPT_BY else secured(spec.settings):
        raise InputError(
            f"a proxy of kind {spec.kind} cannot keep it.",
            where=f"proxy.{key}",
            todo=f"set proxy.kind to {KEPT_BY}, or leave proxy.{key} out",
        )
    return _kind(spec).files(spec, source)


def command(spec: ProxySpec) -> list[str]:
    """The foreground process."""
    return _kind(spec).command(spec)


def programs(spec: ProxySpec) -> list[str]:
    """Where the program of command() may be on the machine that runs it; the first one there is it.

    Paths, or names that are looked for in PATH.
    """
    if spec.settings.get("nginx") is None and _kind(spec).programs:
        return list(_kind(spec).programs)
    return [command(spec)[0]]


def cores(kind: str, settings: Mapping[str, Any]) -> int:
    """The host's cores that workers are bound to, counted with those below; 0: they are not."""
    first = settings.get("start_core")
    if kind not in OMNI_KINDS or first is None:
        return 0
    return int(first) + int(settings["worker_processes"])


def reload_command(spec: ProxySpec) -> list[str] | None:
    """Makes the running proxy take new files over without losing requests; None: cannot."""
    return _kind(spec).reload_command(spec)


def check_command(spec: ProxySpec) -> list[str] | None:
    """Fails, with a message, when the written files are not accepted; None: no such check."""
    return _kind(spec).check_command(spec)


def health_path(spec: ProxySpec) -> str:
    """A path to which the proxy itself, not a server behind it, answers 200."""
    return _kind(spec).health_path


def metrics_path(kind: str) -> str | None:
    """Where a proxy of this kind tells Prometheus of itself; None: nowhere.

    "auto" is nginx-lua wherever that can be had.
    """
    return KINDS["nginx-lua" if kind == "auto" else kind].metrics_path
