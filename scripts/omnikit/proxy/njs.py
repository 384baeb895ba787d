"""The kind nginx-njs: nginx with a short script, from the system's packages.

Needs nginx 1.22 with stub_status and njs 0.7.9 or later. Nothing of it needs root, and no file
outside run_dir and log_dir is written. Started as root, its workers run as nginx's compiled-in
user.
Files: nginx.conf, pd_proxy.js (only with prefill servers), proxy_metrics.js (with proxy.metrics:
GET /metrics tells Prometheus). Logs: access.log (one JSON object per request; never a prompt),
error.log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnikit.errors import InputError
from omnikit.proxy import places, values
from omnikit.proxy.spec import Address, Kind, ProxySpec

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"
LOG_LEVELS = ("debug", "info", "notice", "warn", "error")
BALANCE = ("least_conn", "round_robin")

# What NixlConnector wants in a prefill request; other connectors need no asking.
KV_PARAMS = {
    "nixl": {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    },
    "none": None,
}


def _pool(spec: ProxySpec, role: str, servers: tuple[Address, ...]) -> dict[str, Any]:
    key = f"{role}_balance"
    return {
        "name": role,
        "least_conn": values.one_of(f"proxy.{key}", spec.settings.get(key), BALANCE) == BALANCE[0],
        "servers": [values.address(f"address of a {role} server", one) for one in servers],
    }


def _body_sizes(spec: ProxySpec) -> dict[str, str]:
    keys = ("client_max_body_size", "client_body_buffer_size")
    largest, buffer = (values.size(f"proxy.{key}", spec.settings.get(key)) for key in keys)
    if values.size_bytes(largest) == 0:  # to nginx: any size
        raise values.refused("proxy.client_max_body_size", largest, "size above 0")
    if values.size_bytes(buffer) < values.size_bytes(largest):
        raise InputError(
            f"a request of up to {largest} does not fit into a buffer of {buffer}, and the proxy "
            "edits requests in memory.",
            where="proxy.client_body_buffer_size",
            todo=f"set proxy.client_body_buffer_size to {largest}",
        )
    return dict(zip(keys, (largest, buffer)))


def _holes(spec: ProxySpec, source: str) -> dict[str, Any]:
    """Everything that the templates show, finished."""
    get = spec.settings.get
    if not spec.decode:
        raise InputError("the proxy has no decode server to send requests to.", where="topology")
    connections = values.number("proxy.worker_connections", get("worker_connections"), 8, 2_000_000)
    workers = get("worker_processes")
    if workers != "auto":
        workers = values.number("proxy.worker_processes", workers, 1, 1024)
    kv_params = KV_PARAMS[values.one_of("proxy.kv_params", get("kv_params"), tuple(KV_PARAMS))]
    health = {
        "status": "ok",
        "role": "proxy",
        "prefill": len(spec.prefill),
        "decode": len(spec.decode),
    }
    run_dir = values.path("run_dir", spec.run_dir).rstrip("/")
    pools = [("prefill", spec.prefill), ("decode", spec.decode)]
    return {
        "source": values.comment(source),
        "disaggregated": bool(spec.prefill),
        "front": "prefill" if spec.prefill else "decode",
        "scripts": bool(spec.prefill) or _metrics(spec),
        "metrics": _metrics(spec),
        "run_dir": run_dir,
        "run_dir_text": json.dumps(run_dir, ensure_ascii=False),
        "js_module": values.path("proxy.modules_dir", _modules_dir(spec)) + f"/{places.JS_MODULE}",
        "listen": values.address("proxy.listen_host", (spec.listen_host, spec.listen_port)),
        "log_dir": values.path("paths.log_dir", spec.log_dir),
        "log_level": values.one_of("proxy.log_level", get("log_level"), LOG_LEVELS),
        "worker_processes": workers,
        "worker_connections": connections,
        # A proxied request holds two connections; some files are open besides.
        "open_files": 2 * connections + 64,
        "pools": [_pool(spec, role, servers) for role, servers in pools if servers],
        "keepalive": values.number("proxy.keepalive", get("keepalive"), 1, 1_000_000),
        "max_fails": values.number("proxy.max_fails", get("max_fails"), 0, 1_000_000),
        "fail_timeout": values.time("proxy.fail_timeout", get("fail_timeout")),
        "connect_timeout": values.time("proxy.connect_timeout", get("connect_timeout")),
        "read_timeout": values.time("proxy.read_timeout", get("read_timeout")),
        "subrequest_output_buffer_size": values.size(
            "proxy.subrequest_output_buffer_size", get("subrequest_output_buffer_size")
        ),
        "large_client_header_buffers": values.buffers(
            "proxy.large_client_header_buffers", get("large_client_header_buffers")
        ),
        "health": json.dumps(health),
        "kv_params": json.dumps(json.dumps(kv_params)) if kv_params else "null",
        **_body_sizes(spec),
    }


def _metrics(spec: ProxySpec) -> bool:
    return bool(spec.settings.get("metrics"))


def _modules_dir(spec: ProxySpec) -> str:
    return spec.settings.get("modules_dir") or places.MODULE_PLACES[0]


def files(spec: ProxySpec, source: str) -> dict[str, str]:
    """nginx.conf and the scripts that it runs."""
    import jinja2  # late: it would slow down every --help

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(TEMPLATES)),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # no HTML; values were checked one by one
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    holes = _holes(spec, source)
    names = {"nginx.conf": "njs_nginx.conf.j2"}
    if spec.prefill:
        names["pd_proxy.js"] = "pd_proxy.js.j2"
    if _metrics(spec):
        names["proxy_metrics.js"] = "proxy_metrics.js.j2"
    return {name: made.get_template(file).render(holes) for name, file in names.items()}


def command(spec: ProxySpec) -> list[str]:
    """nginx in the foreground (the file says so); what is wrong at start goes to stderr."""
    nginx = spec.settings.get("nginx") or places.NGINX_PLACES[0]
    run_dir = values.path("run_dir", spec.run_dir).rstrip("/") or "/"
    return [str(nginx), "-e", "stderr", "-p", f"{run_dir}/", "-c", "nginx.conf"]


def reload_command(spec: ProxySpec) -> list[str]:
    """New workers take the new files, old ones finish their requests."""
    return [*command(spec), "-s", "reload"]


def check_command(spec: ProxySpec) -> list[str]:
    """nginx's own look at the written files."""
    return [*command(spec), "-t", "-q"]


KIND = Kind(files, command, reload_command, check_command, "/health")
