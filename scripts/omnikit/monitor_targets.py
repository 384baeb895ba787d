"""What Prometheus reads of an environment: every API server, and the proxy where it can. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omnikit.plan_types import Plan, reachable
from omnikit.schema import Settings

SERVERS, PROXY = "servers", "proxy"
# Kinds whose own port answers /metrics; "auto" is nginx-njs wherever that can be had.
_WITH_METRICS = ("auto", "nginx-njs")


@dataclass(frozen=True)
class Target:
    """One address to read, and the labels that its series get. kind: SERVERS or PROXY."""

    kind: str
    address: str
    labels: dict[str, str]


def targets(plan: Plan, settings: Settings, exporter: Optional[str]) -> list[Target]:
    """All of an environment. exporter: host:port that speaks for the proxy instead of itself."""
    found = []
    for node in plan.nodes:
        for server in node.servers:
            labels = _labels(plan, node.role, server.name, node.host)
            found.append(Target(SERVERS, _address(node.address, server.api_port), labels))
    proxy = plan.proxy
    if proxy is not None:
        own = settings.proxy.metrics and settings.proxy.kind in _WITH_METRICS
        there = _address(reachable(proxy.listen_host, proxy.address), proxy.port)
        address = exporter or (there if own else None)
        if address is not None:
            labels = _labels(plan, "proxy", proxy.name, proxy.host)
            found.append(Target(PROXY, address, labels))
    return found


def _labels(plan: Plan, role: str, name: str, host: str) -> dict[str, str]:
    return {"environment": plan.environment, "role": role, "instance": name, "host": host}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def prometheus(
    environment: str, found: list[Target], settings: Settings, rules: str
) -> dict[str, Any]:
    """prometheus.yml as data. rules: the rule file's name beside it.

    Jobs carry the environment's name: those of several fit into one configuration.
    """
    interval = f"{settings.monitoring.scrape_interval_s}s"
    jobs = []
    for kind in (SERVERS, PROXY):
        groups = [{"targets": [t.address], "labels": t.labels} for t in found if t.kind == kind]
        name = f"omnikit-{environment}-{kind}"
        if groups:
            jobs.append({"job_name": name, "metrics_path": "/metrics", "static_configs": groups})
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [rules],
        "scrape_configs": jobs,
    }
