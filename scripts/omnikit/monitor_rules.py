"""When somebody must be told: alert rules for Prometheus. Pure."""

from __future__ import annotations

from typing import Any, Iterator

from omnikit import monitor_queries as q
from omnikit.schema import Settings

Rule = dict[str, Any]


def rules(
    environment: str, settings: Settings, *, proxy: bool, disaggregated: bool, counted: bool = True
) -> Rule:
    """The rule file as data. proxy: whether the proxy is read. counted: whether it tells how many
    requests failed; an exporter does not.
    """
    made = [*_servers(environment, settings)]
    if disaggregated:
        made += _hand_over(environment, settings)
    if proxy:
        made.append(_proxy_down(environment, settings))
    if proxy and counted:
        made.append(_proxy_errors(environment, settings))
    return {"groups": [{"name": f"omnikit-{environment}", "rules": made}]}


def _rule(environment: str, name: str, expr: str, severity: str, what: str, todo: str) -> Rule:
    return {
        "alert": name,
        "expr": expr,
        "labels": {"severity": severity},
        "annotations": {"summary": what, "description": todo.format(e=environment)},
    }


def _servers(environment: str, settings: Settings) -> Iterator[Rule]:
    wanted = settings.monitoring
    window = f"{wanted.window_s}s"
    ours = q.labels(environment=environment)
    up = q.series("up", ours, 'role!="proxy"')
    down = _rule(
        environment,
        "OmnikitServerDown",
        f"{up} == 0",
        "critical",
        "{{ $labels.instance }} ({{ $labels.role }}) on {{ $labels.host }} does not answer",
        "See what runs: invoke status --environment {e}. Start what is missing: invoke deploy.",
    )
    yield {**down, "for": f"{wanted.down_s}s"}
    if settings.metrics.waiting is not None:
        waiting = f"{q.series(settings.metrics.waiting, ours)}[{window}]"
        yield _rule(
            environment,
            "OmnikitQueueGrows",
            f"min_over_time({waiting}) > {wanted.queue} and deriv({waiting}) > 0",
            "warning",
            "{{ $labels.instance }} has more requests waiting all the time, now a queue that grows",
            "More comes in than is computed. Where it stands: invoke doctor --environment {e}.",
        )
    if settings.metrics.kv_usage is not None:
        used = q.series(settings.metrics.kv_usage, ours)
        yield _rule(
            environment,
            "OmnikitKvCacheNearlyFull",
            f"min_over_time({used}[{window}]) > {wanted.kv_usage:g}",
            "warning",
            "the KV cache of {{ $labels.instance }} is used by {{ $value | humanizePercentage }}",
            "Requests will wait or be preempted: fewer at once, shorter ones, or more memory for"
            " KV (server.args). If nothing runs: invoke doctor --environment {e}.",
        )
    yield _rule(
        environment,
        "OmnikitPreemptions",
        f"increase({q.series(q.PREEMPTIONS, ours)}[{window}]) > 0",
        "warning",
        "{{ $labels.instance }} takes requests back to compute them again later",
        "Its KV cache is too small for what is sent at once: lower max-num-seqs, or give it more"
        " memory for KV (server.args); then invoke deploy --environment {e}.",
    )


def _hand_over(environment: str, settings: Settings) -> Iterator[Rule]:
    name, window = settings.metrics.kv_recomputed, f"{settings.monitoring.window_s}s"
    if name is None:
        return
    decode = q.labels(environment=environment, role="decode")
    yield _rule(
        environment,
        "OmnikitKvNotHandedOver",
        f"increase({q.series(name, decode)}[{window}]) > 0",
        "warning",
        "{{ $labels.instance }} computes prompts again whose KV should have come from prefill",
        "Requests are answered, but slowly. Check the hand-over: invoke smoke-test"
        " --environment {e}.",
    )


def _proxy_down(environment: str, settings: Settings) -> Rule:
    """An exporter goes on answering when nginx does not: then nginx_up is 0."""
    ours = q.labels(environment=environment, role="proxy")
    down = _rule(
        environment,
        "OmnikitProxyDown",
        f"{q.series('up', ours)} == 0 or {q.series('nginx_up', ours)} == 0",
        "critical",
        "the proxy {{ $labels.instance }} on {{ $labels.host }} does not answer",
        "Nobody is served. What runs: invoke status --environment {e}; start it: invoke deploy.",
    )
    return {**down, "for": f"{settings.monitoring.down_s}s"}


def _proxy_errors(environment: str, settings: Settings) -> Rule:
    window = f"{settings.monitoring.window_s}s"
    failed = q.labels(environment=environment, kind="5xx")
    return _rule(
        environment,
        "OmnikitProxyErrors",
        f"increase({q.series(q.FAILED, failed)}[{window}]) > 0",
        "warning",
        "the proxy {{ $labels.instance }} answered requests with a status of 500 or above",
        "Which ones, and why: invoke fetch-logs --environment {e}; there access.log, error.log.",
    )
