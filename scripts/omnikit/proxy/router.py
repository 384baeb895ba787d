"""The kind vllm-router: a router from PyPI, for hosts where nginx with Lua cannot be had.

Serves /v1 and its own /health, needs no files, cannot reload. It speaks NixlConnector's protocol
only (kv_params none is refused). Known limits of release 0.1.17, beside nginx-lua:
- no least connections: the smaller of two loads instead, in turn where there is one server;
- while one of several prefill servers is dead, requests that meet it fail with 500 until a health
  check (once a minute) drops it;
- it listens only when all servers are healthy;
- it always opens a port for metrics, 127.0.0.1:29000 unless router_metrics_port is set: a second
  router on a host needs another one;
- it refuses bad JSON as text instead of JSON, gives servers a request id of its own in place of the
  client's, and allows any origin (CORS).
"""

from __future__ import annotations

from pathlib import Path

from hostkit.base.errors import InputError
from omnikit.proxy import values
from omnikit.proxy.spec import ROUTER_PROGRAM, Kind, ProxySpec

POLICIES = {
    "least_work": "power_of_two",
    "least_conn": "power_of_two",
    "round_robin": "round_robin",
}
LOG_LEVELS = {
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warning",
    "error": "error",
}


def program(venv: str) -> str:
    """The router's program in its virtual environment."""
    return str(Path(venv) / ROUTER_PROGRAM)


def _policy(spec: ProxySpec, role: str, servers: list[str]) -> str:
    key = f"{role}_balance"
    balance = values.one_of(f"proxy.{key}", spec.settings.get(key), tuple(POLICIES))
    # The router refuses to choose the better of two where there is only one.
    return POLICIES[balance] if len(servers) > 1 else POLICIES["round_robin"]


def _servers(spec: ProxySpec) -> list[str]:
    urls = {
        role: [f"http://{values.address(f'address of a {role} server', one)}" for one in servers]
        for role, servers in (("prefill", spec.prefill), ("decode", spec.decode))
    }
    if not urls["prefill"]:
        return [
            "--policy",
            _policy(spec, "decode", urls["decode"]),
            "--worker-urls",
            *urls["decode"],
        ]
    if spec.settings.get("kv_params") != "nixl":
        raise InputError(
            "vllm-router hands KV over for NixlConnector only.",
            where="proxy.kv_params",
            todo="set proxy.kind to nginx-lua, or proxy.kv_params to nixl with NixlConnector",
        )
    words = ["--vllm-pd-disaggregation"]
    for role in urls:
        words += [f"--{role}-policy", _policy(spec, role, urls[role])]
        for url in urls[role]:
            words += [f"--{role}", url]
    return words


def command(spec: ProxySpec) -> list[str]:
    """The router in the foreground."""
    get = spec.settings.get
    if not spec.decode:
        raise InputError("the proxy has no decode server to send requests to.", where="topology")
    largest = values.setting(spec.settings, "client_max_body_size")
    level = values.setting(spec.settings, "log_level")
    longest = values.seconds(values.setting(spec.settings, "read_timeout"))
    venv = values.wanted(spec.settings, "venv")
    metrics: list[str] = []
    if get("router_metrics_port") is not None:
        port = values.number("proxy.router_metrics_port", get("router_metrics_port"), 1, 65535)
        metrics = ["--prometheus-port", str(port)]
    # The host is checked for nonsense only: the router wants IPv6 without brackets.
    values.address("proxy.listen_host", (spec.listen_host, spec.listen_port))
    return [
        program(values.path("proxy.venv", venv)),
        *("--host", spec.listen_host, "--port", str(spec.listen_port)),
        *metrics,
        *_servers(spec),
        *("--max-payload-size", str(values.size_bytes(largest))),
        *(
            "--request-timeout-secs",
            str(longest),
        ),
        *("--log-level", LOG_LEVELS[level], "--log-dir", values.path("log_dir", spec.log_dir)),
    ]


def files(spec: ProxySpec, source: str) -> dict[str, str]:
    """None: the command line says everything."""
    command(spec)
    return {}


def _none(spec: ProxySpec) -> None:
    return None


KIND = Kind(files, command, _none, _none, "/health")
