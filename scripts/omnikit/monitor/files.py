"""The files for Prometheus and Grafana of one environment, and writing those that differ."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.writing import written
from omnikit.access.targets import ca as targets_ca
from omnikit.access.targets import in_url
from omnikit.config.config import Config
from omnikit.config.schema import Settings
from omnikit.monitor import dashboard as monitor_dashboard
from omnikit.monitor.dashboard import FAILED, PREEMPTIONS, series_of
from omnikit.plan.checks import flag
from omnikit.plan.types import Plan, reachable

# What Prometheus reads of an environment: every API server, and the proxy where it can. Pure.

SERVERS, PROXY = "servers", "proxy"
# Kinds whose own port answers /metrics; "auto" is nginx-lua wherever that can be had.
_WITH_METRICS = ("auto", "nginx-lua")


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
        own = settings.proxy.metrics and settings.proxy.kind in _WITH_METRICS
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
            job = {"job_name": name, "metrics_path": "/metrics", "static_configs": groups}
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
    ours = monitor_dashboard.labels(environment=environment)
    up = series_of("up", ours, 'role!="proxy"')
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
        waiting = f"{series_of(settings.metrics.waiting, ours)}[{window}]"
        yield _rule(
            environment,
            "OmnikitQueueGrows",
            f"min_over_time({waiting}) > {wanted.queue} and deriv({waiting}) > 0",
            "warning",
            "{{ $labels.instance }} has more requests waiting all the time, now a queue that grows",
            "More comes in than is computed. Where it stands: invoke doctor --environment {e}.",
        )
    if settings.metrics.kv_usage is not None:
        used = series_of(settings.metrics.kv_usage, ours)
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
        f"increase({series_of(PREEMPTIONS, ours)}[{window}]) > 0",
        "warning",
        "{{ $labels.instance }} takes requests back to compute them again later",
        "Its KV cache is too small for what is sent at once: lower max-num-seqs, or give it more"
        " memory for KV (server.args); then invoke deploy --environment {e}.",
    )


def _hand_over(environment: str, settings: Settings) -> Iterator[Rule]:
    name, window = settings.metrics.kv_recomputed, f"{settings.monitoring.window_s}s"
    if name is None:
        return
    decode = monitor_dashboard.labels(environment=environment, role="decode")
    yield _rule(
        environment,
        "OmnikitKvNotHandedOver",
        f"increase({series_of(name, decode)}[{window}]) > 0",
        "warning",
        "{{ $labels.instance }} computes prompts again whose KV should have come from prefill",
        "Requests are answered, but slowly. Check the hand-over: invoke smoke-test"
        " --environment {e}.",
    )


def _proxy_down(environment: str, settings: Settings) -> Rule:
    """An exporter goes on answering when nginx does not: then nginx_up is 0."""
    ours = monitor_dashboard.labels(environment=environment, role="proxy")
    down = _rule(
        environment,
        "OmnikitProxyDown",
        f"{series_of('up', ours)} == 0 or {series_of('nginx_up', ours)} == 0",
        "critical",
        "the proxy {{ $labels.instance }} on {{ $labels.host }} does not answer",
        "Nobody is served. What runs: invoke status --environment {e}; start it: invoke deploy.",
    )
    return {**down, "for": f"{settings.monitoring.down_s}s"}


def _proxy_errors(environment: str, settings: Settings) -> Rule:
    window = f"{settings.monitoring.window_s}s"
    failed = monitor_dashboard.labels(environment=environment, kind="5xx")
    return _rule(
        environment,
        "OmnikitProxyErrors",
        f"increase({series_of(FAILED, failed)}[{window}]) > 0",
        "warning",
        "the proxy {{ $labels.instance }} answered requests with a status of 500 or above",
        "Which ones, and why: invoke fetch-logs --environment {e}; there access.log, error.log.",
    )


CONFIG, RULES, DASHBOARD, README = "prometheus.yml", "alerts.yml", "dashboard.json", "README.md"

_README = """# Prometheus and Grafana for {environment}

Generated by `{command}`; a second run changes nothing.
由上面的命令生成;配置不变时再次运行不会改动任何文件。

| File 文件 | What 内容 |
| --- | --- |
| `{config}` | a whole configuration of Prometheus: what is read, every {interval} s |
| `{rules}` | alert rules 告警规则: {alerts} |
| `{dashboard}` | a dashboard for Grafana 仪表盘: {rows} |

| Read 采集目标 | Address 地址 | Role 角色 | Host 主机 |
| --- | --- | --- | --- |
{targets}

1. Prometheus, new 新装: `prometheus --config.file={config_path}`
   (any version from 2.40 on). It must reach the addresses above 必须能访问上表中的地址.
2. Prometheus, already there 已有: copy the jobs below `scrape_configs` into its configuration, add
   `{rules_path}` to `rule_files`, then reload it.
   把 `scrape_configs` 下的任务和 `rule_files` 加入现有配置,然后重新加载。
3. Check 检查: `promtool check config {config_path}`
4. Grafana: Dashboards, New, Import, upload `{dashboard}`, choose the Prometheus as source.
   在 Grafana 中导入 `{dashboard}` 并选择数据源。
5. Alerts are shown by Prometheus itself at `/alerts`; to be told, add an Alertmanager to
   `alerting` in its configuration. 如需通知,请配置 Alertmanager。

{proxy}
"""
_COUNTED = (
    "The proxy's failed requests are counted by status: 4xx, 499 (the client went away), 5xx."
    "\n代理的失败请求按状态计数:4xx、499(客户端断开)、5xx。"
)
_EXPORTER = (
    "The proxy is read through nginx-prometheus-exporter, which tells whether nginx answers"
    " (`nginx_up`), its\nconnections and requests; it does not count requests that failed: there is"
    " no alert and no panel for them.\n代理经由 nginx-prometheus-exporter 采集:nginx 是否应答"
    "(`nginx_up`)、连接数和请求数;它不统计失败请求,因此没有相应的告警和面板。"
)
_UNREAD = (
    "The proxy is not read: its kind has no metrics of its own (`proxy.kind`, `proxy.metrics`)."
    "\nRun nginx-prometheus-exporter beside it and name it: `invoke metrics --exporter HOST:PORT`."
    "\n代理没有自己的指标;请另行运行 nginx-prometheus-exporter 并用 `--exporter` 指定。"
)
_NO_PROXY = "This environment has no proxy. 该环境没有代理。"


def files(
    config: Config, plan: Plan, folder: Path, exporter: Optional[str], options: Sequence[str] = ()
) -> dict[str, str]:
    """File name -> finished text. folder: where they will lie, for the commands in the README.
    options: with which the same files are made again.
    """
    settings = config.settings
    found = targets(plan, settings, exporter)
    proxy = any(target.kind == PROXY for target in found)
    counted = exporter is None
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
    board = monitor_dashboard.dashboard(
        plan.environment,
        settings,
        roles,
        proxy=proxy,
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
    about = (_COUNTED if counted else _EXPORTER) if proxy else _UNREAD
    made[README] = _README.format(
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
        targets="\n".join(_row(target) for target in found),
        proxy=_NO_PROXY if plan.proxy is None else about,
    )
    return made


def _row(target: Target) -> str:
    labels = target.labels
    shown = [labels["instance"], f"`{target.address}`", labels["role"], labels["host"]]
    return f"| {' | '.join(shown)} |"


def _yaml(environment: str, data: Any) -> str:
    import yaml  # late: --help must not pay for it

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
    return f"# generated from environment {environment} by scripts/write_metrics_config.py\n{text}"


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
