"""omni-infer 1.2's own proxy: from where each value of its configuration comes, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from port_rooms import free_port
from settings_file import load

from hostkit.base.errors import InputError, ToolkitError
from hostkit.nodes import proxy_run
from omnikit import proxy
from omnikit.monitor import files as monitor
from omnikit.prepare import local_setup
from omnikit.prepare.deployment import prepare, proxy_spec
from omnikit.proxy import launch
from omnikit.topology.topology import make_plan

FLEET = """
profile: {engine: ascend, omni_version: "2026-09", model: openpangu-2.0-flash}
container: {image: registry.example/omni:1}
proxy: {listen_host: 192.0.2.1}
hosts:
  p0: {address: 192.0.2.1}
  p1: {address: 192.0.2.2}
  d0: {address: 192.0.2.3}
  d1: {address: 192.0.2.4}
  d2: {address: 192.0.2.5}
topology:
  prefill: [{hosts: [p0]}, {hosts: [p1]}]
  decode: [{hosts: [d0]}, {hosts: [d1]}, {hosts: [d2]}]
  proxy: p0
"""
NGINX = "/usr/sbin/nginx"
GROUPS = "proxy.groups=[{prefill: 1, decode: 16}, {prefill: 1, decode: 32}]"


def spec_for(folder: Path, *sets: str) -> proxy.ProxySpec:
    loaded = load(folder, FLEET, sets)
    plan = make_plan(loaded)
    assert plan.proxy is not None
    host = next(host for host in plan.hosts if host.name == plan.proxy.host)
    return proxy_spec(plan.proxy, loaded.settings, host, {"kind": loaded.settings.proxy.kind})


def text_for(folder: Path, *sets: str) -> str:
    return proxy.files(spec_for(folder, *sets), "a test")["nginx.conf"]


@pytest.mark.parametrize("release", ["2026-06", "2026-09"])
def test_the_releases_of_1_2_have_it_and_one_setting_has_nginx_with_lua(
    release: str, tmp_path: Path
) -> None:
    text = FLEET.replace("2026-09", release).replace(", {hosts: [d1]}, {hosts: [d2]}", "")
    text = re.sub("  d[12]:.*\n", "", text)
    made = make_plan(load(tmp_path, text)).proxy
    assert made is not None and made.container
    assert load(tmp_path, text).settings.proxy.kind == "omni-proxy"
    other = load(tmp_path, text, ["proxy={kind: nginx-lua, runtime: process}"])
    plan = make_plan(other).proxy
    assert plan is not None and not plan.container and other.settings.proxy.kind == "nginx-lua"


@pytest.mark.parametrize(
    ("sets", "lines"),
    [
        # The plan.
        ((), ["prefill_pod_size 2;", "decode_pod_size 3;", "listen 192.0.2.1:7000;"]),
        (("ports.proxy=7001",), ["listen 192.0.2.1:7001;"]),
        # The servers' own words, and what is taken where they do not say.
        ((), ["omni_proxy_prefill_max_num_seqs 4;", "omni_proxy_decode_max_num_seqs 3;"]),
        (
            ("roles.prefill.server.args.max-num-seqs=7",),
            ["omni_proxy_prefill_max_num_seqs 7;", "omni_proxy_decode_max_num_seqs 3;"],
        ),
        (
            ("roles.prefill.server.args.max-num-seqs=null",),
            ["omni_proxy_prefill_max_num_seqs 32;"],
        ),
        # The release.
        (
            (),
            [
                "client_max_body_size 10M;",
                "client_body_buffer_size 1M;",
                "subrequest_output_buffer_size 10M;",
                "proxy_read_timeout 14400s;",
                "stream_ops off;",
                "worker_processes 4;",
                "user root;",
                "env PYTHONHASHSEED;",
            ],
        ),
        # The scheduler's settings.
        (
            (),
            [
                "omni_proxy_pd_policy sequential;",
                "omni_proxy_schedule_algo default;",
                "omni_proxy_max_batch_num_token 100000;",
                "omni_proxy_prefill_starvation_timeout 400;",
                "omni_proxy_max_request_slots 16384;",
            ],
        ),
        (("proxy.pd_policy=parallel",), ["omni_proxy_pd_policy parallel;"]),
        (("proxy.schedule_algo=earliest_batch",), ["omni_proxy_schedule_algo earliest_batch;"]),
        (("proxy.max_batch_tokens=5",), ["omni_proxy_max_batch_num_token 5;"]),
        (("proxy.starvation_timeout=6",), ["omni_proxy_prefill_starvation_timeout 6;"]),
        (("proxy.request_slots=7",), ["omni_proxy_max_request_slots 7;"]),
        (("proxy.max_tokens_weight=2",), ["omni_proxy_max_tokens_weight 2;"]),
        (("proxy.stream_ops=set_opt",), ["stream_ops set_opt;"]),
        ((GROUPS,), ["omni_proxy_prefill_groups 0:1 1:1;", "omni_proxy_decode_groups 0:16 1:32;"]),
        (
            ("proxy.model_path=/models/m",),
            ['omni_proxy_model_path "/models/m";', "omni_proxy_vllm_kv_port_offset 100;"],
        ),
    ],
)
def test_each_value_comes_from_plan_servers_release_or_setting(
    sets: tuple[str, ...], lines: list[str], tmp_path: Path
) -> None:
    found = [line.strip() for line in text_for(tmp_path, *sets).splitlines()]
    assert [line for line in lines if line not in found] == []


def test_what_is_not_asked_for_is_not_there(tmp_path: Path) -> None:
    text = text_for(tmp_path)
    for word in ("_groups", "max_tokens_weight", "model_path", "kv_port_offset", "encode"):
        assert word not in text
    assert "$backend" not in text  # upstream's way to any address


def test_every_server_stands_in_its_upstream_in_order(tmp_path: Path) -> None:
    spec = spec_for(tmp_path)
    text = proxy.files(spec, "a test")["nginx.conf"]
    assert (len(spec.prefill), len(spec.decode)) == (2, 48)
    for role, servers in (("prefill", spec.prefill), ("decode", spec.decode)):
        [block] = re.findall(rf"upstream {role}_endpoints \{{(.*?)\n    \}}", text, re.DOTALL)
        assert re.findall(r"server (\S+) max_fails=3 fail_timeout=10s;", block) == [
            f"{host}:{port}" for host, port in servers
        ]
        for line in ("keepalive 2048;", "keepalive_timeout 110s;", "keepalive_requests 20000;"):
            assert line in block


def test_aggregation_leaves_prefill_out(tmp_path: Path) -> None:
    text = text_for(tmp_path, "proxy.pd_policy=aggregation")
    assert "omni_proxy_pd_policy aggregation;" in text and "prefill_endpoints" not in text
    with pytest.raises(InputError, match="groups have 2 prefill servers, the proxy has 0"):
        text_for(tmp_path, "proxy.pd_policy=aggregation", GROUPS)


def test_its_modules_are_loaded_by_name_from_where_the_settings_say(tmp_path: Path) -> None:
    names = ["ngx_http_omni_proxy_module.so", "ngx_http_set_request_id_module.so"]
    for folder, sets in (
        ("/usr/local/nginx/modules", []),
        ("/opt/m", ["proxy.modules_dir=/opt/m"]),
    ):
        assert proxy_run.modules(text_for(tmp_path, *sets)) == [f"{folder}/{n}" for n in names]


@pytest.mark.parametrize(
    ("setting", "where", "said"),
    [
        ("proxy.pd_policy=fastest", "proxy.pd_policy", "sequential"),
        ("proxy.schedule_algo=latest", "proxy.schedule_algo", "earliest_batch"),
        ("proxy.request_slots=0", "proxy.request_slots", "0"),
        ("proxy.groups=[]", "proxy.groups", "an empty list"),
        ("proxy.groups=[{prefill: 1}]", "proxy.groups", "decode"),
        ("proxy.model_path=relative", "proxy.model_path", "relative"),
        ("proxy.groups=[{prefill: 2, decode: 47}]", "proxy.groups", "47 decode servers.* 48"),
        ("proxy.kv_params=layerwise", "proxy.kv_params", "layerwise"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    setting: str, where: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ToolkitError, match=said) as caught:
        text_for(tmp_path, setting)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["api_keys={variable: K}", "internal_key={variable: K}", "tls={certificate: /c, key: /k}"],
)
def test_keys_and_tls_are_refused_with_the_kind_that_can(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kind omni-proxy .*2026-06.* cannot keep it") as caught:
        spec_for(tmp_path, f"proxy.{key}")
    assert key.partition("=")[0] in str(caught.value)
    assert "set proxy.kind to nginx-lua" in str(caught.value)
    spec = spec_for(tmp_path)
    closed = replace(spec, settings={**spec.settings, "internal_key": {"variable": "K"}})
    with pytest.raises(InputError, match="kind omni-proxy cannot keep it"):
        proxy.files(closed, "a test")


def test_it_is_asked_at_its_own_paths(tmp_path: Path) -> None:
    spec = spec_for(tmp_path)
    assert proxy.health_path(spec) == "/omni_proxy/health"
    assert proxy.programs(spec) == ["/usr/local/nginx/nginx", "nginx"]
    assert [proxy.metrics_path(kind) for kind in ("auto", "nginx-lua", "omni-nginx")] == [
        "/metrics",
        "/metrics",
        None,
    ]
    loaded = load(tmp_path, FLEET)
    assert local_setup._proxy_software(loaded, make_plan(loaded)) == {"kind": "omni-proxy"}
    found = monitor.targets(make_plan(loaded), loaded.settings, None)
    jobs = monitor.prometheus("x", found, loaded.settings, "rules.yml")["scrape_configs"]
    assert [job["metrics_path"] for job in jobs] == ["/metrics", "/omni_proxy/metrics"]
    through = monitor.prometheus("x", found, loaded.settings, "rules.yml", "192.0.2.1:9113")
    assert [job["metrics_path"] for job in through["scrape_configs"]] == ["/metrics", "/metrics"]


def test_alerts_and_panels_use_no_names_that_it_does_not_know(tmp_path: Path) -> None:
    loaded = load(tmp_path, FLEET)
    made = monitor.files(loaded, make_plan(loaded), tmp_path, None)
    assert "OmnikitProxyDown" in made[monitor.RULES]
    assert "omnikit_proxy_failed" not in made[monitor.RULES] + made[monitor.DASHBOARD]
    assert "nginx_http_requests_total" not in made[monitor.DASHBOARD]
    assert "/omni_proxy/metrics" in made[monitor.README]


def test_a_deployment_asks_and_reloads_it_like_every_nginx(tmp_path: Path) -> None:
    made = prepare(load(tmp_path, FLEET), {}, {"kind": "omni-proxy"}, {})
    nodes = json.loads(made.files["p0"]["host.json"])["nodes"]
    [node] = [node for node in nodes if node["role"] == "proxy"]
    assert node["servers"][0]["health"] == "/omni_proxy/health"
    assert node["check"][-2:] == ["-t", "-q"] and set(node["files"]) == {"nginx.conf"}
    assert node["cores"] == 20  # of workers from core 16 on


def test_a_prefill_server_is_left_out_of_its_upstream(tmp_path: Path) -> None:
    text = text_for(tmp_path)
    made = proxy_run.without(text, ["192.0.2.1:9000"])
    gone = set(text.splitlines()) - set(made.splitlines())
    assert [line.split()[1] for line in gone] == ["192.0.2.1:9000"]


@pytest.mark.parametrize("path", ["/omni_proxy/metrics", "/metrics", "/sleep", "/resume"])
def test_who_may_stop_servers_or_read_metrics_is_said(path: str, tmp_path: Path) -> None:
    text = text_for(tmp_path, "proxy.metrics_from=[10.0.0.0/8]")
    [block] = re.findall(rf"location = {path} \{{(.*?)\}}", text, re.DOTALL)
    assert re.findall(r"allow (\S+);|(deny all);", block) == [
        ("127.0.0.1", ""),
        ("::1", ""),
        ("10.0.0.0/8", ""),
        ("", "deny all"),
    ]


def without_modules(text: str) -> str:
    """The configuration less what only omni-infer's modules know: they exist in its image alone."""
    own = r"load_module|set_\w+|stream_ops|omni_proxy(?:_\w+)?|(?:prefill|decode)_pod_size"
    kept = [line for line in text.splitlines() if not re.match(rf"\s*(?:{own}) ", line)]
    return re.sub(r"\$(promt_tks|ttft|tpot)", "-", "\n".join(kept) + "\n")


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("sets", [(), ("proxy.pd_policy=aggregation",)])
def test_nginx_accepts_all_that_is_not_the_modules_own(sets: Any, tmp_path: Path) -> None:
    spec = spec_for(tmp_path, *sets)
    text = proxy.files(spec, "a test")["nginx.conf"].replace(spec.log_dir, str(tmp_path))
    text = text.replace("192.0.2.1:7000", f"127.0.0.1:{free_port()}")

    def nginx(conf: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "nginx.conf").write_text(conf)
        words = [NGINX, "-e", "stderr", "-p", f"{tmp_path}/", "-c", "nginx.conf", "-t"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    done = nginx(without_modules(text))
    assert done.returncode == 0, done.stderr
    assert "unknown directive" in nginx(text.replace("load_module", "# load_module")).stderr


@pytest.mark.slow
@pytest.mark.needs("nginx")
def test_a_running_one_takes_another_list_over_and_keeps_the_old_one_for_a_wrong_file(
    tmp_path: Path,
) -> None:
    """All but the module's own; nginx itself answers where the module would say its health."""
    spec = spec_for(tmp_path, "proxy.worker_processes=1", "proxy.start_core=null")
    port, run_dir = free_port(), tmp_path / "run"

    def wanted(one: proxy.ProxySpec) -> launch.Wanted:
        text = proxy.files(one, "a test")["nginx.conf"].replace(spec.log_dir, str(tmp_path))
        text = text.replace("192.0.2.1:7000", f"127.0.0.1:{port}")
        text = without_modules(text.replace("omni_proxy_health_status on;", "return 200;"))
        return launch.from_text("omni-proxy", {"nginx.conf": text}, "a test", {"nginx": NGINX})

    first = wanted(spec)
    assert launch.up(first, run_dir, 15) == "started"
    try:
        assert launch.up(first, run_dir, 15) == "unchanged"
        assert launch.up(wanted(replace(spec, decode=spec.decode[:1])), run_dir, 15) == "reloaded"
        kept = (run_dir / "nginx.conf").read_text()
        assert kept.count("server 192.0.2.3:") == 1
        wrong = replace(first, files={"nginx.conf": kept.replace("send_timeout", "sent_timeout")})
        with pytest.raises(InputError, match=r"unknown directive .*sent_timeout"):
            launch.up(wrong, run_dir, 15)
        assert (run_dir / "nginx.conf").read_text() == kept
        assert proxy_run.status(run_dir, 5)["state"] == "running"
    finally:
        assert proxy_run.stop(run_dir, 5, 15) == "stopped"
