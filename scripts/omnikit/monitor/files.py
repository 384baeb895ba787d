"""The files for Prometheus and Grafana of one environment: what is read, alert rules, a dashboard
(an overview, a row for each role, the proxy). Pure, but for writing those that differ.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Iterator, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.writing import written
from omnikit.access.targets import ca as targets_ca
from omnikit.access.targets import in_url
from omnikit.config.config import Config
from omnikit.config.schema import Settings
from omnikit.fleet import render
from omnikit.plan.arguments import flag
from omnikit.plan.types import Plan, reachable
from omnikit.proxy import metrics_path
from omnikit.proxy.spec import OMNI_KINDS

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
IN_POOL = "omnikit_proxy_server_in_pool"

SERVERS, PROXY = "servers", "proxy"


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
        yield from _hand_over_panel(settings, ours)


def _prefix(environment: str, settings: Settings, role: str) -> Panel:
    ours = (labels(environment=environment, role=role), *_CHOSEN)
    names = (settings.monitoring.prefix_hits, settings.monitoring.prefix_queries)
    hits, asked = (total(rate(name, WINDOW, *ours), "instance") for name in names)
    return _panel("Prompts out of the prefix cache", "percentunit", (f"{hits} / ({asked} > 0)", ""))


def _hand_over_panel(settings: Settings, ours: Sequence[str]) -> Iterator[Panel]:
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


# What Prometheus reads of an environment: every API server, and the proxy where it can. Pure.


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
            found.append(Target(SERVERS, f"{in_url(node.address)}:{server.api_port}", labels))
    proxy = plan.proxy
    if proxy is not None:
        own = settings.proxy.metrics and metrics_path(settings.proxy.kind) is not None
        there = f"{in_url(reachable(proxy.listen_host, proxy.address))}:{proxy.port}"
        address = exporter or (there if own else None)
        if address is not None:
            labels = _labels(plan, "proxy", proxy.name, proxy.host)
            found.append(Target(PROXY, address, labels))
    return found


def _labels(plan: Plan, role: str, name: str, host: str) -> dict[str, str]:
    return {"environment": plan.environment, "role": role, "instance": name, "host": host}


def _access(kind: str, settings: Settings, exporter: Optional[str]) -> dict[str, Any]:
    """What Prometheus needs to be let in: the servers' key by its file, TLS of the proxy."""
    key, tls = settings.proxy.internal_key, settings.proxy.tls
    if kind == SERVERS and key is not None:
        if key.file is None:
            raise InputError(
                "Prometheus reads the servers' key from a file, and none is named.",
                where="proxy.internal_key",
                todo="keep the key in a file that Prometheus reads too: {file: F}",
            )
        file = str(Path(key.file).expanduser().absolute())
        return {"authorization": {"type": "Bearer", "credentials_file": file}}
    if kind == PROXY and tls.certificate is not None and exporter is None:
        checked = {"ca_file": targets_ca(settings), "server_name": tls.name}
        config = {name: value for name, value in checked.items() if value is not None}
        return {"scheme": "https", **({"tls_config": config} if config else {})}
    return {}


def prometheus(
    environment: str,
    found: list[Target],
    settings: Settings,
    rules: str,
    exporter: Optional[str] = None,
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
            own = kind == PROXY and exporter is None
            path = metrics_path(settings.proxy.kind) if own else "/metrics"
            job = {"job_name": name, "metrics_path": path, "static_configs": groups}
            jobs.append({**job, **_access(kind, settings, exporter)})
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [rules],
        "scrape_configs": jobs,
    }


# When somebody must be told: alert rules for Prometheus. Pure.

Rule = dict[str, Any]


def alert_rules(
    environment: str, settings: Settings, *, proxy: bool, disaggregated: bool, counted: bool = True
) -> Rule:
    """The rule file as data. proxy: whether the proxy is read. counted: whether it tells how many
    requests failed; an exporter does not.
    """
    wanted, metrics = settings.monitoring, settings.metrics
    window, made = f"{wanted.window_s}s", []
    ours = labels(environment=environment)
    up = series_of("up", ours, 'role!="proxy"')

    def alert(
        name: str, severity: str, expr: str, what: str, todo: str, down_s: Optional[int] = None
    ) -> None:
        rule = {"alert": f"Omnikit{name}", "expr": expr, "labels": {"severity": severity}}
        lasting = {} if down_s is None else {"for": f"{down_s}s"}
        made.append({**rule, "annotations": {"summary": what, "description": todo}, **lasting})

    def grows(name: str, *matchers: str) -> str:
        return f"increase({series_of(name, *matchers)}[{window}]) > 0"

    alert(
        *("ServerDown", "critical", f"{up} == 0"),
        "{{ $labels.instance }} ({{ $labels.role }}) on {{ $labels.host }} does not answer",
        f"See what runs: invoke status --environment {environment}. Start what is missing: invoke"
        " deploy.",
        wanted.down_s,
    )
    alert(
        *("CrashLoop", "critical"),
        f"{series_of('omnikit_instance_state', ours, labels(state='crash-loop'))} == 1",
        "{{ $labels.node }} ({{ $labels.role }}) ended again and again and is not started any more",
        f"See why: invoke history --environment {environment}; start it again: invoke deploy.",
    )
    alert(
        *("Restarted", "warning", grows("omnikit_instance_restarts_total", ours)),
        "{{ $labels.node }} ({{ $labels.role }}) died and was started again by its host",
        f"See why: invoke history --environment {environment}, invoke doctor.",
    )
    if metrics.waiting is not None:
        waiting = f"{series_of(metrics.waiting, ours)}[{window}]"
        alert(
            *("QueueGrows", "warning"),
            f"min_over_time({waiting}) > {wanted.queue} and deriv({waiting}) > 0",
            "{{ $labels.instance }} has more requests waiting all the time, now a queue that grows",
            "More comes in than is computed. Where it stands: invoke doctor --environment"
            f" {environment}.",
        )
    if metrics.kv_usage is not None:
        used = f"{series_of(metrics.kv_usage, ours)}[{window}]"
        alert(
            *("KvCacheNearlyFull", "warning", f"min_over_time({used}) > {wanted.kv_usage:g}"),
            "the KV cache of {{ $labels.instance }} is used by {{ $value | humanizePercentage }}",
            "Requests will wait or be preempted: fewer at once, shorter ones, or more memory for"
            f" KV (server.args). If nothing runs: invoke doctor --environment {environment}.",
        )
    if metrics.kv_usage is not None and metrics.running is not None and metrics.waiting is not None:
        kept = f"min_over_time({used}) >= {settings.doctor.kv_high:g}"
        idle = (f"{series_of(name, ours)}[{window}]" for name in (metrics.running, metrics.waiting))
        alert(
            *("KvKept", "warning"),
            " and ".join([kept, *(f"max_over_time({one}) == 0" for one in idle)]),
            "{{ $labels.instance }} has no request and keeps {{ $value | humanizePercentage }} of"
            " its KV cache",
            "A client or the server of the other role left, and its KV is still kept. Which, and"
            f" what to do: invoke doctor --environment {environment}.",
        )
    alert(
        *("Preemptions", "warning", grows(PREEMPTIONS, ours)),
        "{{ $labels.instance }} takes requests back to compute them again later",
        "Its KV cache is too small for what is sent at once: lower max-num-seqs, or give it more"
        f" memory for KV (server.args); then invoke deploy --environment {environment}.",
    )
    if disaggregated and metrics.kv_recomputed is not None:
        decode = labels(environment=environment, role="decode")
        alert(
            *("KvNotHandedOver", "warning", grows(metrics.kv_recomputed, decode)),
            "{{ $labels.instance }} computes prompts again whose KV should have come from prefill",
            "Requests are answered, but slowly. Check the hand-over: invoke smoke-test"
            f" --environment {environment}.",
        )
    if proxy:
        its = labels(environment=environment, role="proxy")
        # An exporter goes on answering when nginx does not: then nginx_up is 0.
        alert(
            *("ProxyDown", "critical"),
            f"{series_of('up', its)} == 0 or {series_of('nginx_up', its)} == 0",
            "the proxy {{ $labels.instance }} on {{ $labels.host }} does not answer",
            f"Nobody is served. What runs: invoke status --environment {environment}; start it:"
            " invoke deploy.",
            wanted.down_s,
        )
    if proxy and counted:
        alert(
            *("ProxyErrors", "warning"),
            grows(FAILED, labels(environment=environment, kind="5xx")),
            "the proxy {{ $labels.instance }} answered requests with a status of 500 or above",
            f"Which ones, and why: invoke fetch-logs --environment {environment}; there"
            " access.log, error.log.",
        )
        alert(
            *("OutOfPool", "warning"),
            f"max_over_time({series_of(IN_POOL, labels(environment=environment))}[{window}]) == 0",
            "the proxy gives the {{ $labels.pool }} server {{ $labels.server }} no requests",
            "It answers badly, or the proxy does not reach it. Which, and what to do:"
            f" invoke doctor --environment {environment}.",
        )
    return {"groups": [{"name": f"omnikit-{environment}", "rules": made}]}


CONFIG, RULES, DASHBOARD, README = "prometheus.yml", "alerts.yml", "dashboard.json", "README.md"


def files(
    config: Config, plan: Plan, folder: Path, exporter: Optional[str], options: Sequence[str] = ()
) -> dict[str, str]:
    """File name -> finished text. folder: where they will lie, for the commands in the README.
    options: with which the same files are made again.
    """
    settings = config.settings
    found = targets(plan, settings, exporter)
    proxy = any(target.kind == PROXY for target in found)
    known = exporter is not None or settings.proxy.kind not in OMNI_KINDS  # by their names here
    counted = exporter is None and known
    serving = [node for node in plan.nodes if node.servers]
    cached = {node.role for node in serving if flag(node, "no-enable-prefix-caching") is None}
    roles = list(dict.fromkeys(node.role for node in serving))
    rules = alert_rules(
        plan.environment,
        settings,
        proxy=proxy,
        disaggregated=plan.disaggregated,
        counted=counted,
    )
    board = dashboard(
        plan.environment,
        settings,
        roles,
        proxy=proxy and known,
        counted=counted,
        uncached=set(roles) - cached,
    )
    scraped = prometheus(plan.environment, found, settings, RULES, exporter)
    made = {
        CONFIG: _yaml(plan.environment, scraped),
        RULES: _yaml(plan.environment, rules),
        DASHBOARD: json.dumps(board, indent=1, ensure_ascii=False) + "\n",
    }
    alerts = [rule["alert"].replace("Omnikit", "") for rule in rules["groups"][0]["rules"]]
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    words = options or [f"--environment={plan.environment}"]
    told = ("counted" if counted else "exporter" if exporter else "own") if proxy else "unread"
    made[README] = render.template(
        "metrics_readme.md.j2",
        environment=plan.environment,
        command=shlex.join(["invoke", "metrics", *words]),
        config=CONFIG,
        rules=RULES,
        dashboard=DASHBOARD,
        interval=settings.monitoring.scrape_interval_s,
        alerts=", ".join(alerts),
        rows=", ".join(rows),
        config_path=shlex.quote(str(folder / CONFIG)),
        rules_path=folder / RULES,
        targets=found,
        proxy="none" if plan.proxy is None else told,
    )
    return made


def _yaml(environment: str, data: Any) -> str:
    import yaml  # late: --help must not pay for it

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
    return f"# generated from environment {environment} by scripts/metrics.py\n{text}"


def write(folder: Path, made: dict[str, str], *, dry_run: bool) -> dict[str, str]:
    """Write what differs; returns what was (or would be) done with each file."""
    done = {}
    for name, text in made.items():
        path = folder / name
        there = path.is_file() and path.read_bytes() == text.encode()
        if there:
            done[name] = "unchanged"
        elif dry_run:
            done[name] = "would be written"
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with written(path) as beside:
                beside.write_text(text, encoding="utf-8")
            done[name] = "written"
    return done
