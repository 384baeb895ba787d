"""Keys and TLS: settings that something keeps, and that do not speak against each other. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, Mapping

from hostkit.base.errors import ToolkitError

if TYPE_CHECKING:  # launch_proxy needs KEPT_BY and secured on hosts without packages
    from omnikit.config.config import Config
    from omnikit.plan.types import Plan

# The kind of proxy that can ask for keys, has one for the servers, and speaks TLS.
KEPT_BY = "nginx-lua"
_KEY = "VLLM_API_KEY"


def secured(settings: Mapping[str, Any]) -> list[str]:
    """The settings of the section "proxy" that close it, of those that are set."""
    there = [key for key in ("api_keys", "internal_key") if settings.get(key)]
    return there + (["tls.certificate"] if (settings.get("tls") or {}).get("certificate") else [])


def check(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """What nobody would keep, or what is said twice, or by half."""
    given = config.settings.proxy
    for key in secured(given.model_dump()):
        path = ("proxy", *key.split("."))
        if plan.proxy is None and key != "internal_key":
            yield config.error(
                "no proxy is planned that could keep it.",
                *path,
                todo="name the proxy's host: topology.proxy; for one server alone, its own key:"
                " proxy.internal_key",
            )
        elif plan.proxy is not None and given.kind not in ("auto", KEPT_BY):
            yield config.error(
                f"a proxy of kind {given.kind} ({config.origin('proxy', 'kind')}) cannot keep it.",
                *path,
                todo=f"set proxy.kind to {KEPT_BY}, or leave proxy.{key} out",
            )
    if (given.tls.certificate is None) != (given.tls.key is None):
        there, lacks = ("key", "certificate") if given.tls.key else ("certificate", "key")
        yield config.error(
            f"proxy.tls.{lacks} is missing, which belongs to it.",
            *("proxy", "tls", there),
            todo=f"set both: proxy.tls.{lacks} is a PEM file on the proxy's host too",
        )
    for node in plan.nodes if given.internal_key is not None else ():
        words = [word.partition("=")[0].replace("_", "-") for word in node.command]
        if _KEY in {**node.env, **node.secrets} or "--api-key" in words:
            yield config.error(
                f"the servers get this key, but settings of {node.name} give them another"
                f" ({_KEY} or --api-key).",
                *("proxy", "internal_key"),
                todo="remove that one",
            )
            return
