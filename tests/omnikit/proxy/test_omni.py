"""omni-infer's own nginx: what its configuration says, and what nginx makes of the rest of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostkit.base.errors import InputError
from hostkit.nodes import proxy_run
from omnikit import proxy
from omnikit.config import config
from omnikit.prepare import deployment
from omnikit.proxy import omni
from omnikit.topology.topology import make_plan
from omnikit.yaml.setting_types import Balance

pytestmark = pytest.mark.slow


def spec_for(environment: str = "2p1d", *assignments: str) -> proxy.ProxySpec:
    loaded = config.load(environment, assignments=assignments, environ={})
    plan = make_plan(loaded)
    assert plan.proxy is not None
    host = next(host for host in plan.hosts if host.name == plan.proxy.host)
    return deployment.proxy_spec(plan.proxy, loaded.settings, host, {"kind": "omni-nginx"})


def text_for(*assignments: str) -> str:
    return proxy.files(spec_for("2p1d", *assignments), "a test")["nginx.conf"]


def test_both_roles_are_balanced_with_every_server_in_order() -> None:
    text = text_for()
    assert "pd_score_balance prefill;" in text
    assert "pd_score_balance decode;" in text
    assert "pd_score_balance_decode_req_limit 25;" in text
    servers = re.findall(r"server (192\.0\.2\.\d+:\d+) max_fails=3 fail_timeout=10s;", text)
    assert servers[:2] == ["192.0.2.11:9000", "192.0.2.12:9001"]
    assert servers[2] == "192.0.2.13:9100" and servers[-1] == "192.0.2.14:9116"
    assert len(servers) == 2 + 32
    for line in ("keepalive 2048;", "keepalive_timeout 110s;", "keepalive_requests 20000;"):
        assert text.count(f"        {line}") == 2
    assert "set_request_id on;" in text and "prefill /prefill_internal;" in text


@pytest.mark.parametrize(
    ("balancer", "line", "module"),
    [
        ("weighted_least_active", "weighted_least_active on;", True),
        ("prefill_score_balance", "prefill_score_balance on;", True),
        ("greedy_timeout", "greedy_timeout on;", True),
        ("least_total_load", "least_total_load_batch_size 16;", True),
        ("auto_balance_controller", "auto_balance_controller_batch_size 32;", True),
        ("length_balance", "length_balance;", True),
        ("least_conn", "least_conn;", False),
    ],
)
def test_each_balancer_brings_its_lines_and_its_module(balancer, line, module) -> None:
    text = text_for(f"proxy.prefill_balance={balancer}", "proxy.decode_balance=round_robin")
    assert line in text
    assert (f"ngx_http_upstream_{balancer}_module.so" in text) is module
    assert "pd_score" not in text


def test_workers_are_bound_to_cores_only_when_asked() -> None:
    assert "worker_cpu_affinity" not in text_for("proxy.start_core=null")
    text = text_for("proxy.start_core=2", "proxy.worker_processes=2")
    assert "worker_cpu_affinity 100 1000;" in text
    assert proxy_run.cores(text) == 4
    assert proxy.cores("omni-nginx", {"start_core": 2, "worker_processes": 2}) == 4
    assert proxy.cores("omni-nginx", {"start_core": None, "worker_processes": 2}) == 0
    assert proxy.cores("nginx-lua", {"start_core": 2, "worker_processes": 2}) == 0


def without_modules(text: str) -> str:
    """The configuration less what only omni-infer's modules know: they exist in its image alone.

    So nginx -t looks at all the rest; the modules' own lines are held by the golden file.
    """
    own = (
        "load_module",
        "set_request_id",
        "stream_ops",
        "prefill /",
        *set(get_args(Balance)) - set(omni._BUILT_IN),
    )
    kept = [line for line in text.splitlines() if not line.strip().startswith(own)]
    return "\n".join(kept) + "\n"


def nginx_test(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "nginx.conf").write_text(text)
    (folder / "logs").mkdir(exist_ok=True)
    words = ["/usr/sbin/nginx", "-e", "stderr", "-p", f"{folder}/", "-c", "nginx.conf", "-t"]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("environment", ["1p1d", "2p1d", "18p1d"])
def test_nginx_accepts_all_that_is_not_the_modules_own(environment: str, tmp_path: Path) -> None:
    spec = spec_for(environment)
    text = proxy.files(spec, environment)["nginx.conf"].replace(spec.log_dir, f"{tmp_path}/logs")
    done = nginx_test(without_modules(text), tmp_path)
    assert done.returncode == 0, done.stderr
    broken = nginx_test(without_modules(text).replace("listen ", "listne "), tmp_path)
    assert broken.returncode != 0


def changed(spec: proxy.ProxySpec, **given: Any) -> proxy.ProxySpec:
    return replace(spec, settings={**spec.settings, **given})


@pytest.mark.parametrize(
    "settings",
    [
        {"prefill_balance": "fastest; }"},
        {"modules_dir": '/m"; load_module /x'},
        {"log_level": "debug; user root"},
        {"start_core": -1},
        {"keepalive_timeout": "1s; }"},
        {"decode_request_limit": 0},
        {"pd_score_limit": "max_num_seqs", "max_num_seqs": {"decode": "32; user root"}},
        {"decode_request_limit": "25; zone x 1m"},
        {"log_file": '/l/e.log" debug; user "root'},
        {"log_file": "e/log"},
        {"log_file": 'e.log"; user "root'},
        {"stream_ops": "off; user root"},
        {"worker_processes": "auto"},
        {"keepalive": "1; }"},
        {"keepalive_requests": -1},
        {"max_fails": "3 down"},
        {"fail_timeout": "10s backup"},
        {"client_max_body_size": "1m; include /etc/passwd"},
        {"large_client_header_buffers": "4 512k; #"},
    ],
)
def test_hostile_values_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        proxy.files(changed(spec_for(), **settings), "x")
    named = "max-num-seqs of decode servers" if "max_num_seqs" in settings else None
    assert caught.value.where == (named or f"proxy.{next(iter(settings))}")
    assert caught.value.todo


def test_a_hostile_source_stays_a_comment() -> None:
    assert "\nuser root" not in proxy.files(spec_for(), "x\nuser root;")["nginx.conf"]


def test_commands_name_the_images_nginx_and_only_our_folder() -> None:
    words = proxy.command(spec_for())
    assert words[0] == "/usr/local/nginx/nginx"
    assert proxy.programs(spec_for()) == ["/usr/local/nginx/nginx", "nginx"]
    given = spec_for("2p1d", "proxy.nginx=/opt/nginx")
    assert proxy.programs(given) == ["/opt/nginx"] == proxy.command(given)[:1]
    assert proxy.reload_command(spec_for())[-2:] == ["-s", "reload"]
    assert proxy.check_command(spec_for())[-2:] == ["-t", "-q"]


@pytest.mark.needs("nginx")
def test_masks_count_from_the_start_core(tmp_path: Path) -> None:
    assert omni.affinity(3, 0) == ["1", "10", "100"]
    spec = changed(spec_for(), start_core=1020, worker_processes=4)
    text = proxy.files(replace(spec, log_dir=f"{tmp_path}/logs"), "x")["nginx.conf"]
    assert nginx_test(without_modules(text), tmp_path).returncode == 0
    with pytest.raises(InputError, match="from 0 to 1020"):
        omni.affinity(4, 1021)


GOLDEN = Path(__file__).parents[2] / "golden" / "proxy" / "omni-2p1d" / "nginx.conf"


def golden_spec() -> proxy.ProxySpec:
    """Two prefill servers and two decode servers, every line of the template in use."""
    spec = spec_for(
        "2p1d",
        "proxy.decode_balance=least_total_load",
        "proxy.stream_ops=set_opt",
        "proxy.log_file=/data/log/nginx_error.log",
    )
    metrics = (("192.0.2.15", 9400),)
    return replace(
        spec, decode=spec.decode[:2], metrics=metrics, listen_host="::", log_dir="/data/log/c0"
    )


def test_the_rendered_file_is_the_golden_one() -> None:
    """After a wanted change: write the new text there and read the difference."""
    text = proxy.files(golden_spec(), "configs/environments/2p1d.yaml")["nginx.conf"]
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_modules_are_loaded_once_and_only_those_that_are_needed() -> None:
    loaded = re.findall(r'load_module "/usr/local/nginx/modules/(\w+)\.so"', text_for())
    assert loaded == [
        "ngx_http_set_request_id_module",
        "ngx_http_prefill_module",
        "ngx_http_upstream_pd_score_balance_module",
    ]
    plain = replace(changed(spec_for(), decode_balance="least_conn"), prefill=())
    assert "load_module" not in proxy.files(plain, "x")["nginx.conf"]


@pytest.mark.parametrize("kind", ["nginx-lua", "vllm-router"])
@pytest.mark.parametrize("balancer", ["pd_score_balance", "length_balance", "greedy_timeout"])
def test_other_kinds_refuse_the_modules_balancers(kind: str, balancer: str) -> None:
    usual = {"prefill_balance": "least_conn", "kv_params": "nixl", "venv": "/v"}
    spec = replace(changed(spec_for(), **usual, decode_balance=balancer), kind=kind)
    with pytest.raises(InputError, match="is no one of least_work, least_conn") as caught:
        proxy.files(spec, "x")
    assert caught.value.where == "proxy.decode_balance"


addresses = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
servers = st.lists(st.tuples(addresses, st.integers(1, 65535)), unique=True, max_size=64)
balancers = st.sampled_from(get_args(Balance))


# No deadline: a busy machine is no failure.
@pytest.mark.needs("nginx")
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(prefill=servers, decode=servers.filter(bool), first=balancers, second=balancers)
def test_any_servers_make_a_file_that_nginx_accepts(
    prefill, decode, first, second, tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("nginx")
    spec = changed(spec_for(), prefill_balance=first, decode_balance=second, worker_connections=64)
    spec = replace(spec, prefill=tuple(prefill), decode=tuple(decode), log_dir=f"{folder}/logs")
    text = proxy.files(spec, "x")["nginx.conf"]
    shown = re.findall(r"^ +server (\S+) max_fails", text, re.MULTILINE)
    wanted = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in prefill]
    wanted += [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in decode]
    assert shown == wanted
    done = nginx_test(without_modules(text), folder)
    assert done.returncode == 0, done.stderr


hostile = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="a/.;{}$'\"\\# \n\t", max_size=12).map(lambda text: f"/{text}"),
)


def shape(text: str) -> str:
    """The file's lines with all that is quoted taken out: what structure nginx sees."""
    return re.sub(r'"[^"\n]*"|server \S+ max|listen \S+;', "_", text)


@settings(deadline=None, max_examples=60)
@given(value=hostile, place=st.sampled_from(["log_file", "log_dir", "modules_dir", "host"]))
def test_no_text_becomes_configuration(value: str, place: str) -> None:
    """Whatever comes in is refused or stays one quoted word."""
    usual = golden_spec()
    if place == "log_dir":
        spec = replace(usual, log_dir=value)
    elif place == "host":
        spec = replace(usual, decode=((value, 1), usual.decode[1]))
    else:
        spec = changed(usual, **{place: value or None})
    try:
        text = proxy.files(spec, "x")["nginx.conf"]
    except InputError:
        return
    assert shape(text) == shape(proxy.files(usual, "x")["nginx.conf"])
