"""The PD proxy: one interface, several kinds of software behind it. Data in, text out.

A proxy hands each generation request to a prefill server first and then, with the KV hand-over
that came back, to a decode server. Without prefill servers it is a plain balancer.
The caller creates run_dir and log_dir, writes files() into run_dir and starts command() there, in
the foreground and in a process group of its own. SIGTERM to that group ends every kind at once;
nginx also knows SIGQUIT (to the recorded process): it finishes the requests in flight first.
"""

from __future__ import annotations

from omnikit.errors import InputError
from omnikit.proxy import njs, omni, router
from omnikit.proxy.spec import Kind, ProxySpec

__all__ = [
    "KINDS",
    "Kind",
    "ProxySpec",
    "check_command",
    "command",
    "files",
    "health_path",
    "reload_command",
]

# A kind is added here and nowhere else.
KINDS: dict[str, Kind] = {
    "nginx-njs": njs.KIND,
    "vllm-router": router.KIND,
    "omni-nginx": omni.KIND,
}


def _kind(spec: ProxySpec) -> Kind:
    try:
        return KINDS[spec.kind]
    except KeyError:
        raise InputError(
            f"no proxy of kind {spec.kind!r} is known here; known are {', '.join(sorted(KINDS))}.",
            where="proxy.kind",
            todo="set proxy.kind to one of these",
        ) from None


def files(spec: ProxySpec, source: str) -> dict[str, str]:
    """File name below run_dir -> finished text. source: what the files' first line names."""
    return _kind(spec).files(spec, source)


def command(spec: ProxySpec) -> list[str]:
    """The foreground process."""
    return _kind(spec).command(spec)


def reload_command(spec: ProxySpec) -> list[str] | None:
    """Makes the running proxy take new files over without losing requests; None: cannot."""
    return _kind(spec).reload_command(spec)


def check_command(spec: ProxySpec) -> list[str] | None:
    """Fails, with a message, when the written files are not accepted; None: no such check."""
    return _kind(spec).check_command(spec)


def health_path(spec: ProxySpec) -> str:
    """A path to which the proxy itself, not a server behind it, answers 200."""
    return _kind(spec).health_path
