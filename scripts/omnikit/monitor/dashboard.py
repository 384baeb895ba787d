"""A dashboard for Grafana: an overview, a row for each role, the proxy. Pure."""

from __future__ import annotations

from typing import Any, Collection, Iterator, Sequence

from omnikit.config.schema import Settings

# Expressions in Prometheus' language, as text. Pure.
#
# The names are those of vLLM's /metrics, equal in 0.9.0 and 0.32.0 (vllm/v1/metrics/loggers.py);
# those that differ are settings: metrics.* and monitoring.*.

PREEMPTIONS = "vllm:num_preemptions_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
OUTPUT_TOKENS = "vllm:generation_tokens_total"
FINISHED = "vllm:request_success_total"
FIRST_TOKEN = "vllm:time_to_first_token_seconds"
END_TO_END = "vllm:e2e_request_latency_seconds"
QUEUED = "vllm:request_queue_time_seconds"
FAILED = "omnikit_proxy_failed_requests_total"  # of templates/pd_proxy.lua.j2


def labels(**matched: str) -> str:
    """Labels that must be equal.

    >>> labels(role="decode")
    'role="decode"'
    """
    return ",".join(f'{name}="{value}"' for name, value in matched.items())


def series_of(name: str, *matchers: str) -> str:
    """A metric, which may carry labels of its own, with more labels.

    >>> series_of('a_total{source="x"}', 'role="decode"')
    'a_total{source="x",role="decode"}'
    """
    base, _, own = name.partition("{")
    given = [part for part in (own.rstrip("}"), *matchers) if part]
    return f"{base}{{{','.join(given)}}}" if given else base


def rate(name: str, window: str, *matchers: str) -> str:
    """How fast a counter grows, per second."""
    return f"rate({series_of(name, *matchers)}[{window}])"


def total(expression: str, *by: str) -> str:
    """The sum, one for each value of the labels.

    >>> total("x", "instance"), total("x")
    ('sum by (instance) (x)', 'sum(x)')
    """
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def quantile(share: float, histogram: str, window: str, *matchers: str) -> str:
    """The value that this share of a histogram stays below, for each instance."""
    grown = total(rate(f"{histogram}_bucket", window, *matchers), "le", "instance")
    return f"histogram_quantile({share:g}, {grown})"


Panel = dict[str, Any]
Query = tuple[str, str]  # expression, legend
WINDOW = "$__rate_interval"  # Grafana's: long enough for the scrape interval
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_CHOSEN = ('role=~"$role"', 'instance=~"$instance"')
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_TITLES = {"prefill": "Prefill", "decode": "Decode", "colocated": "Co-located"}


def dashboard(
    environment: str,
    settings: Settings,
    roles: Sequence[str],
    *,
    proxy: bool,
    counted: bool = True,
    uncached: Collection[str] = (),
) -> dict[str, Any]:
    """The dashboard as data, to be imported. roles: those that have servers; uncached: of these,
    those without a prefix cache. counted: whether the proxy tells how many requests failed.
    """
    rows = [("Overview", list(_overview(environment, settings)))]
    for role in roles:
        panels = list(_role(environment, settings, role))
        if role != "decode" and role not in uncached:
            panels.append(_prefix(environment, settings, role))
        rows.append((_TITLES[role], panels))
    if proxy:
        rows.append(("Proxy", list(_proxy(environment, counted))))
    return {
        "title": f"omnikit {environment}",
        "uid": f"omnikit-{environment}"[:40],
        "tags": ["omnikit"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables(environment))},
        "panels": _placed(rows),
    }


def queries(made: dict[str, Any]) -> list[str]:
    """Every expression of a dashboard."""
    return [one["expr"] for panel in made["panels"] for one in panel.get("targets", [])]


def _variables(environment: str) -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "source"}
    ours = labels(environment=environment)
    found = {"role": series_of("up", ours), "instance": series_of("up", ours, _CHOSEN[0])}
    for name, series in found.items():
        text = f"label_values({series}, {name})"
        yield {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "definition": text,
            "query": {"query": text, "refId": name},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "sort": 1,
        }


def _panel(title: str, unit: str, *shown: Query, kind: str = "timeseries") -> Panel:
    return {
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"datasource": _SOURCE, "expr": expr, "legendFormat": legend, "refId": chr(65 + number)}
            for number, (expr, legend) in enumerate(shown)
        ],
    }


def _overview(environment: str, settings: Settings) -> Iterator[Panel]:
    ours = (labels(environment=environment), *_CHOSEN)
    up = series_of("up", *ours)
    firing = series_of("ALERTS", labels(environment=environment, alertstate="firing"))
    yield _panel(
        "Servers that answer", "none", (f"sum({up})", "up"), (f"count({up})", "all"), kind="stat"
    )
    yield _panel("Alerts", "none", (f"count({firing}) or vector(0)", "firing"), kind="stat")
    finished = total(rate(FINISHED, WINDOW, *ours), "role", "finished_reason")
    yield _panel("Finished requests", "reqps", (finished, "{{role}} {{finished_reason}}"))
    yield _panel(
        "Tokens",
        "none",
        (total(rate(PROMPT_TOKENS, WINDOW, *ours), "role"), "{{role}} prompt tokens/s"),
        (total(rate(OUTPUT_TOKENS, WINDOW, *ours), "role"), "{{role}} output tokens/s"),
    )
    yield from _load(settings, ours)


def _load(settings: Settings, ours: Sequence[str]) -> Iterator[Panel]:
    """Requests at each server, and its KV cache, as far as the engine tells."""
    names = {"running": settings.metrics.running, "waiting": settings.metrics.waiting}
    shown = [
        (total(series_of(name, *ours), "instance"), f"{{{{instance}}}} {word}")
        for word, name in names.items()
        if name is not None
    ]
    if shown:
        yield _panel("Requests running and waiting", "none", *shown)
    used = settings.metrics.kv_usage
    if used is not None:
        yield _panel(
            "KV cache in use",
            "percentunit",
            (f"max by (instance) ({series_of(used, *ours)})", "{{instance}}"),
        )


def _quantiles(title: str, histogram: str, ours: Sequence[str]) -> Panel:
    shown = [
        (quantile(share / 100, histogram, WINDOW, *ours), f"{{{{instance}}}} p{share}")
        for share in (50, 95, 99)
    ]
    return _panel(title, "s", *shown)


def _role(environment: str, settings: Settings, role: str) -> Iterator[Panel]:
    ours = (labels(environment=environment, role=role), *_CHOSEN)
    yield from _load(settings, ours)
    yield _quantiles("Time to first token", FIRST_TOKEN, ours)
    if role != "prefill":
        yield _quantiles("Time between tokens", settings.monitoring.token_gap, ours)
    yield _quantiles("End to end", END_TO_END, ours)
    yield _quantiles("Time in the queue", QUEUED, ours)
    tokens = PROMPT_TOKENS if role == "prefill" else OUTPUT_TOKENS
    title = "Prompt tokens per second" if role == "prefill" else "Output tokens per second"
    each = total(rate(tokens, WINDOW, *ours), "instance")
    yield _panel(title, "none", (each, "{{instance}}"))
    taken_back = total(rate(PREEMPTIONS, WINDOW, *ours), "instance")
    yield _panel("Preemptions per second", "none", (taken_back, "{{instance}}"))
    if role == "decode":
        yield from _hand_over(settings, ours)


def _prefix(environment: str, settings: Settings, role: str) -> Panel:
    ours = (labels(environment=environment, role=role), *_CHOSEN)
    names = (settings.monitoring.prefix_hits, settings.monitoring.prefix_queries)
    hits, asked = (total(rate(name, WINDOW, *ours), "instance") for name in names)
    return _panel("Prompts out of the prefix cache", "percentunit", (f"{hits} / ({asked} > 0)", ""))


def _hand_over(settings: Settings, ours: Sequence[str]) -> Iterator[Panel]:
    found = {
        "handed over": settings.metrics.kv_transferred,
        "computed again": settings.metrics.kv_recomputed,
    }
    shown: list[Query] = [
        (total(rate(name, WINDOW, *ours), "instance"), f"{{{{instance}}}} {word}")
        for word, name in found.items()
        if name is not None
    ]
    if shown:
        yield _panel("Prompt tokens per second, KV handed over or not", "none", *shown)


def _proxy(environment: str, counted: bool) -> Iterator[Panel]:
    ours = labels(environment=environment, role="proxy")
    requests = total(rate("nginx_http_requests_total", WINDOW, ours), "instance")
    failed = total(rate(FAILED, WINDOW, ours), "instance", "kind")
    yield _panel("Requests, with those of health and metrics", "reqps", (requests, "{{instance}}"))
    if counted:
        yield _panel("Requests that failed", "reqps", (failed, "{{instance}} {{kind}}"))
    states = ("active", "reading", "writing", "waiting")
    shown = [(series_of(f"nginx_connections_{state}", ours), state) for state in states]
    yield _panel("Connections of clients", "none", *shown)


def _placed(rows: Sequence[tuple[str, list[Panel]]]) -> list[Panel]:
    """Rows and panels with ids and places on Grafana's grid of 24 columns."""
    made: list[Panel] = []
    y = 0
    for title, panels in rows:
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        made.append({"type": "row", "title": title, "collapsed": False, "gridPos": place})
        for number, panel in enumerate(panels):
            line, column = divmod(number, _COLUMNS)
            x, below = column * _WIDTH, y + 1 + line * _HEIGHT
            place = {"x": x, "y": below, "w": _WIDTH, "h": _HEIGHT}
            made.append({**panel, "gridPos": place})
        y += 1 + -(-len(panels) // _COLUMNS) * _HEIGHT
    return [{"id": number, **panel} for number, panel in enumerate(made, start=1)]
