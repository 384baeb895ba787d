"""The kind nginx-lua: nginx with its Lua module, from the system's packages.

Needs nginx 1.18 with stub_status and its Lua module 0.10.14 or later (LuaJIT, lua-resty-core).
Nothing of it needs root, and no file outside run_dir and log_dir is written. Started as root, its
workers run as nginx's compiled-in user.
Files: nginx.conf and scripts that it runs: pd_json.lua (the members of a request), pd_http.lua
(connections to servers), pd_servers.lua (who is asked next, who is sick), pd_proxy.lua (what
becomes of a request; GET /ready, and with proxy.metrics GET /metrics for Prometheus); for
vllm-ascend's connectors also pd_recomputed.lua (an answer that a decode server gave up is gone on
with). Logs: access.log (one JSON object per request; never a prompt), error.log.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

from hostkit.base.errors import InputError
from omnikit.proxy import values
from omnikit.proxy.spec import (
    LUA_MODULES,
    MODULE_PLACES,
    NGINX_PLACES,
    Address,
    ProxySpec,
    nginx_kind,
)

BALANCE = ("least_work", "least_conn", "round_robin")
PREFIX = "prefix"  # of prefill: who computed the beginning of a prompt, else the least work

LOOPBACK = ("127.0.0.1", "::1")  # may always read /metrics

# Idle connections to servers end before vLLM's end them (after 5 s): none is taken that is closed
# at the same moment.
IDLE = "4s"
SCRIPTS = ("pd_http", "pd_json", "pd_servers", "pd_proxy")
RECOMPUTED = "pd_recomputed"
KEYS = "pd_keys"  # written where the keys are known, see omnikit.access.targets

# What NixlConnector and vllm-ascend's Mooncake connectors that pull want in a prefill request.
# Where prefill pushes, decode's engine says it, see _metaserver; others need no asking.
_PULL = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
KV_PARAMS = {"nixl": _PULL, "mooncake": _PULL, "layerwise": None, "none": None}
# Of vllm-ascend, whose decode servers end a request as "recomputed" when they run out of room.
GOES_ON = ("mooncake", "layerwise")
PUSHED = "layerwise"
METASERVER = "/v1/metaserver"


def _pool(spec: ProxySpec, role: str, servers: tuple[Address, ...]) -> dict[str, Any]:
    key = f"{role}_balance"
    known = (*BALANCE, PREFIX) if role == "prefill" else BALANCE
    balance = values.one_of(f"proxy.{key}", spec.settings.get(key), known)
    return {
        "name": role,
        "counted": balance != "round_robin",
        "least_work": balance in ("least_work", PREFIX),
        "servers": [values.address(f"address of a {role} server", one) for one in servers],
    }


def _version(spec: ProxySpec) -> str:
    """What stands behind each server in the pool; "": nothing."""
    if re.fullmatch(r"[\w.-]{0,64}", spec.version, re.ASCII):
        return f"  # version {spec.version}" if spec.version else ""
    raise values.refused("version", spec.version, "word")


def _largest(spec: ProxySpec) -> str:
    """The largest request, which the proxy edits in memory: there is room for it."""
    largest = str(values.setting(spec.settings, "client_max_body_size"))
    if values.size_bytes(largest) == 0:  # to nginx: any size
        raise values.refused("proxy.client_max_body_size", largest, "size above 0")
    return largest


def _metaserver(spec: ProxySpec) -> str:
    """What decode is told where prefill pushes: whom its engine asks for that."""
    if values.is_every_address(spec.address or spec.listen_host):
        raise InputError(
            f"decode servers have to reach this proxy; {spec.listen_host} is no address for that.",
            where="proxy.listen_host",
            todo="give an address of the proxy's host",
        )
    if (spec.settings.get("tls") or {}).get("certificate"):
        raise InputError(
            f"{PUSHED} needs a proxy without TLS: decode's engine asks it over plain HTTP.",
            where="proxy.tls.certificate",
            todo="leave proxy.tls out, or use a connector that pulls with proxy.kv_params mooncake",
        )
    here = values.address("proxy.listen_host", (spec.address or spec.listen_host, spec.listen_port))
    told = {
        "do_remote_decode": False,
        "do_remote_prefill": True,
        "metaserver": f"http://{here}{METASERVER}",
    }
    return f"[[{json.dumps(told)}]]"


def _scripts(spec: ProxySpec) -> tuple[str, ...]:
    """The scripts in the order of loading."""
    goes_on = bool(spec.prefill) and spec.settings.get("kv_params") in GOES_ON
    return (*SCRIPTS[:-1], RECOMPUTED, SCRIPTS[-1]) if goes_on else SCRIPTS


def _holes(spec: ProxySpec, source: str) -> dict[str, Any]:
    """Everything that the templates show, finished."""
    get, held = spec.settings.get, partial(values.setting, spec.settings)
    if not spec.decode:
        raise InputError("the proxy has no decode server to send requests to.", where="topology")
    connections = held("worker_connections")
    workers = "auto" if get("worker_processes") == "auto" else held("worker_processes")
    way = held("kv_params")
    kv_params = KV_PARAMS[way]
    scripts = _scripts(spec)
    health = {
        "status": "ok",
        "role": "proxy",
        "prefill": len(spec.prefill),
        "decode": len(spec.decode),
    }
    values.path("run_dir", spec.run_dir)
    modules_dir = values.path("proxy.modules_dir", held("modules_dir") or MODULE_PLACES[0])
    timeouts = ("connect_timeout", "read_timeout", "fail_timeout", "client_timeout")
    times = {name: held(name) for name in timeouts}
    limits = ("client_connections", "client_requests", "client_half_sent")
    pools = [("prefill", spec.prefill), ("decode", spec.decode)]
    secured = {key: bool(get(key)) for key in ("api_keys", "internal_key")}
    if any(secured.values()):
        scripts = (KEYS, *scripts)
    return {
        "source": values.comment(source),
        "disaggregated": bool(spec.prefill),
        "front": "prefill" if spec.prefill else "decode",
        "metrics": bool(get("metrics")),
        "metrics_from": [values.network(one) for one in (*LOOPBACK, *(get("metrics_from") or ()))],
        "paths": [path for path, open_ in (get("paths") or {}).items() if open_],
        "scripts": ", ".join(f'"{name}"' for name in scripts),
        "keys": secured["api_keys"],
        "internal_key": secured["internal_key"],
        "tls": bool((get("tls") or {}).get("certificate")),
        "modules": [f"{modules_dir}/{name}" for name in LUA_MODULES],
        "listen": values.address("proxy.listen_host", (spec.listen_host, spec.listen_port)),
        "log_dir": values.path("paths.log_dir", spec.log_dir),
        "log_level": held("log_level"),
        "worker_processes": workers,
        "worker_connections": connections,
        # A proxied request holds two connections; some files are open besides.
        "open_files": 2 * connections + 64,
        "pools": [_pool(spec, role, servers) for role, servers in pools if servers],
        **{key: held(key) for key in ("keepalive", "max_fails", "retries", *limits)},
        **times,
        "fail_timeout_s": values.seconds(times["fail_timeout"]),
        "connect_ms": values.milliseconds(times["connect_timeout"]),
        "read_ms": values.milliseconds(times["read_timeout"]),
        "probe_ms": max(50, values.milliseconds(held("probe_interval"))),
        "probe_timeout_ms": values.milliseconds(held("probe_timeout")),
        "comes_back_with_answer": get("comeback") == "answer",
        "silence_s": values.seconds(held("silence")),
        "stall_s": values.seconds(held("stall")) if get("stall_metric") else 0,
        "stall_metric": json.dumps(get("stall_metric") or ""),
        "kv_expired": json.dumps(expired) if (expired := get("kv_expired_metric")) else None,
        "kv_late": json.dumps(get("kv_late_metric") or ""),
        "kv_safe_s": values.seconds(held("kv_safe")),
        "running": json.dumps(get("running_metric") or ""),
        "idle": IDLE,
        "idle_ms": values.milliseconds(IDLE),
        "answer_bytes": values.size_bytes(held("subrequest_output_buffer_size")),
        "large_client_header_buffers": held("large_client_header_buffers"),
        "health": json.dumps(health),
        "version": _version(spec),
        "prefix": bool(spec.prefill) and get("prefill_balance") == PREFIX,
        "prefix_load": held("prefix_load"),
        "min_tokens": way in GOES_ON,
        "goes_on": RECOMPUTED in scripts,
        "metaserver": _metaserver(spec) if way == PUSHED and spec.prefill else None,
        "kv_params": f"[[{json.dumps(kv_params)}]]" if kv_params else "nil",
        "client_max_body_size": _largest(spec),
    }


def files(spec: ProxySpec, source: str) -> dict[str, str]:
    """nginx.conf and the scripts that it runs."""
    from omnikit.fleet.render import template  # late: it would slow down every --help

    holes = _holes(spec, source)
    made = {"nginx.conf": template("lua_nginx.conf.j2", **holes)}
    scripts = {f"{name}.lua": template(f"{name}.lua.j2", **holes) for name in _scripts(spec)}
    return {**made, **scripts}


KIND = replace(nginx_kind(files, NGINX_PLACES[0]), metrics_path="/metrics")
