"""The kinds omni-nginx and omni-proxy: omni-infer's two proxies, nginx with its own C modules.

nginx and the modules are part of omni-infer's image; which program it is, is decided where it runs
(hostkit.nodes.proxy_run). For completions the modules send a prefill sub-request first and copy
kv_transfer_params of its answer into the request that goes to decode; the directives are those of
omni-infer's own launchers. omni-nginx is the global proxy, whose balancers are chosen; omni-proxy,
the only one of omni-infer 1.2, has a scheduler of its own, which is told how large the servers are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from hostkit.base.errors import InputError
from omnikit.proxy import values
from omnikit.proxy.lua import LOOPBACK, PREFIX
from omnikit.proxy.spec import OMNI_MODULES, OMNI_NGINX, Address, ProxySpec, nginx_kind

MAX_CORES = 1024  # nginx knows no more

# Always loaded: what makes a request visit prefill and then decode.
_BASE = ("ngx_http_set_request_id_module.so", "ngx_http_prefill_module.so")
_OMNI_PROXY = ("ngx_http_omni_proxy_module.so", "ngx_http_set_request_id_module.so")
# nginx's own balancers need no module.
_BUILT_IN: dict[str, tuple[str, ...]] = {
    "least_work": ("least_conn",),
    "least_conn": ("least_conn",),
    "round_robin": (),
}


def balance(spec: ProxySpec, role: str) -> tuple[list[str], list[str]]:
    """The lines of a role's upstream that choose its balancer, and the modules they need."""
    chosen = values.setting(spec.settings, f"{role}_balance")
    if chosen == PREFIX:
        raise InputError(
            "omni-infer's nginx has no such balancer.",
            where=f"proxy.{role}_balance",
            todo="set proxy.kind to nginx-lua, or another balancer: pd_score_balance",
        )
    if chosen in _BUILT_IN:
        return list(_BUILT_IN[chosen]), []
    return _lines(spec, chosen, role), [f"ngx_http_upstream_{chosen}_module.so"]


def _lines(spec: ProxySpec, chosen: str, role: str) -> list[str]:
    held = partial(values.setting, spec.settings)
    if chosen == "pd_score_balance":
        return [f"pd_score_balance {role}", *_score_limit(spec, role)]
    if chosen == "least_total_load":
        size = held("total_load_batch_size")
        return ["least_total_load on", f"least_total_load_batch_size {size}"]
    if chosen == "auto_balance_controller":
        size = held("auto_balance_batch_size")
        return ["auto_balance_controller on", f"auto_balance_controller_batch_size {size}"]
    return ["length_balance"] if chosen == "length_balance" else [f"{chosen} on"]


def _score_limit(spec: ProxySpec, role: str) -> list[str]:
    """How pd_score_balance is told what a server of a role takes at the same time."""
    get = spec.settings.get
    if get("pd_score_limit") == "max_num_seqs":
        seqs = get("max_num_seqs", {}).get(role)
        if seqs is None:
            return []
        least = values.number(f"max-num-seqs of {role} servers", seqs, 1, 1_000_000)
        return [f"pd_score_balance_max_num_seqs {least}"]
    if role == "prefill":
        return []
    limit = values.setting(spec.settings, "decode_request_limit")
    return [f"pd_score_balance_decode_req_limit {limit}"]


def error_log(spec: ProxySpec) -> str:
    """The error log's path; a mere name in the settings lies in the log folder."""
    text = str(spec.settings.get("log_file"))
    return values.path("proxy.log_file", text if "/" in text else f"{spec.log_dir}/{text}")


def affinity(workers: int, start_core: object) -> list[str]:
    """nginx's CPU masks: worker i on core start_core + i, the lowest core as the last digit."""
    if start_core is None:
        return []
    first = values.number("proxy.start_core", start_core, 0, MAX_CORES - workers)
    return ["1" + "0" * (first + i) for i in range(workers)]


def _pool(name: str, servers: tuple[Address, ...], lines: list[str]) -> dict[str, Any]:
    shown = [values.address(f"address of a {name} server", one) for one in servers]
    return {"name": name, "servers": shown, "balance": lines}


def _common(spec: ProxySpec, source: str) -> dict[str, Any]:
    """What both templates show."""
    get, held = spec.settings.get, partial(values.setting, spec.settings)
    if not spec.decode:
        raise InputError("the proxy has no decode server to send requests to.", where="topology")
    if get("kv_params") == "layerwise":
        raise InputError(
            f"{spec.kind} asks prefill first, layerwise wants decode to be asked first.",
            where="proxy.kv_params",
            todo="set proxy.kind to nginx-lua, or use a connector that pulls",
        )
    workers, connections = held("worker_processes"), held("worker_connections")
    log_dir = values.path("paths.log_dir", spec.log_dir)
    sizes = ("client_max_body_size", "client_body_buffer_size", "subrequest_output_buffer_size")
    times = ("fail_timeout", "connect_timeout", "read_timeout", "keepalive_timeout")
    counts = ("keepalive", "keepalive_requests", "max_fails")
    return {
        "source": values.comment(source),
        "stream_ops": held("stream_ops"),
        "modules_dir": values.path("proxy.modules_dir", held("modules_dir") or OMNI_MODULES),
        "listen": values.address("proxy.listen_host", (spec.listen_host, spec.listen_port)),
        "log_dir": log_dir,
        "error_log": error_log(spec),
        "log_level": held("log_level"),
        "worker_processes": workers,
        "affinity": affinity(workers, get("start_core")),
        "worker_connections": connections,
        # A proxied request holds two connections; some files are open besides.
        "open_files": 2 * connections + 64,
        "closed": [path for path, open_ in (get("paths") or {}).items() if not open_],
        "large_client_header_buffers": held("large_client_header_buffers"),
        **{key: held(key) for key in (*sizes, *times, *counts)},
    }


def _holes(spec: ProxySpec, source: str) -> dict[str, Any]:
    common = _common(spec, source)
    pools, modules = [], list(_BASE) if spec.prefill else []
    for name, servers in (("prefill", spec.prefill), ("decode", spec.decode)):
        if servers:
            lines, needed = balance(spec, name)
            pools.append(_pool(name, servers, lines))
            modules += [module for module in needed if module not in modules]
    if spec.metrics:
        pools.append(_pool("metrics", spec.metrics, list(_BUILT_IN["least_conn"])))
    health: dict[str, Any] = {"status": "ok", "role": "proxy"}
    health.update(prefill=len(spec.prefill), decode=len(spec.decode))
    return {
        **common,
        "disaggregated": bool(spec.prefill),
        "front": "prefill" if spec.prefill else "decode",
        "metrics": bool(spec.metrics),
        "pools": pools,
        "modules": modules,
        "health": json.dumps(health),
    }


def files(spec: ProxySpec, source: str) -> dict[str, str]:
    """nginx.conf."""
    from omnikit.fleet.render import template  # late: it would slow down every --help

    return {"nginx.conf": template("omni_nginx.conf.j2", **_holes(spec, source))}


def _groups(spec: ProxySpec, role: str, servers: tuple[Address, ...]) -> str:
    """How many servers of a role, in their order, are of which group; "": there are no groups."""
    sizes = [group[role] for group in spec.settings.get("groups") or ()]
    if sizes and sum(sizes) != len(servers):
        raise InputError(
            f"the groups have {sum(sizes)} {role} servers, the proxy has {len(servers)}.",
            where="proxy.groups",
            todo="count each API server once, in the order of the plan: invoke plan",
        )
    return " ".join(f"{number}:{size}" for number, size in enumerate(sizes))


def _scheduled(spec: ProxySpec, source: str) -> dict[str, str]:
    """nginx.conf of omni-proxy."""
    from omnikit.fleet.render import template  # late: it would slow down every --help

    get, held = spec.settings.get, partial(values.setting, spec.settings)
    policy = held("pd_policy") if spec.prefill else "aggregation"
    # Of aggregation, decode servers do it all.
    roles = {"prefill": () if policy == "aggregation" else spec.prefill, "decode": spec.decode}
    told = get("max_num_seqs") or {}
    limits = {  # as in its launcher where the servers do not say
        role: values.number(f"max-num-seqs of {role} servers", told.get(role, 32), 1, 1_000_000)
        for role in roles
    }
    own = ("schedule_algo", "max_batch_tokens", "starvation_timeout", "request_slots")
    holes = {
        **_common(spec, source),
        "modules": _OMNI_PROXY,
        "pd_policy": policy,
        "pools": [_pool(role, servers, []) for role, servers in roles.items() if servers],
        "max_num_seqs": limits,
        "instances": get("instances") or {},
        "groups": {role: _groups(spec, role, servers) for role, servers in roles.items()},
        "asked_by": [values.network(one) for one in (*LOOPBACK, *(get("metrics_from") or ()))],
        **{key: held(key) for key in (*own, "max_tokens_weight", "model_path")},
    }
    return {"nginx.conf": template("omni_proxy.conf.j2", **holes)}


KIND = nginx_kind(files, OMNI_NGINX[0], OMNI_NGINX)
# Its health answers 200 whatever the servers say; how they are stands in the answer.
OMNI_PROXY = replace(
    nginx_kind(_scheduled, OMNI_NGINX[0], OMNI_NGINX),
    health_path="/omni_proxy/health",
    metrics_path="/omni_proxy/metrics",
)
