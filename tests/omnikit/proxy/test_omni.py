"""omni-infer's own nginx: what its configuration says, and what nginx makes of the rest of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omnikit import config, host_file, proxy
from omnikit.errors import InputError
from omnikit.proxy import omni
from omnikit.topology import make_plan


def spec_for(environment: str = "2p1d", *assignments: str) -> proxy.ProxySpec:
    loaded = config.load(environment, assignments=assignments, environ={})
    plan = make_plan(loaded)
    assert plan.proxy is not None
    host = next(host for host in plan.hosts if host.name == plan.proxy.host)
    return host_file.proxy_spec(plan.proxy, loaded.settings, host, {"kind": "omni-nginx"})


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
        assert text.count(line) == 2
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
    assert "worker_cpu_affinity" not in text_for()
    text = text_for("proxy.start_core=16", "proxy.worker_processes=2")
    assert f"worker_cpu_affinity 1{'0' * 16} 1{'0' * 17};" in text


def without_modules(text: str) -> str:
    """The configuration less what only omni-infer's modules know: they exist in its image alone."""
    own = ("load_module", "set_request_id", "prefill /", "pd_score_balance")
    kept = [line for line in text.splitlines() if not line.strip().startswith(own)]
    return "\n".join(kept) + "\n"


def nginx_test(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "nginx.conf").write_text(text)
    (folder / "logs").mkdir(exist_ok=True)
    words = ["/usr/sbin/nginx", "-e", "stderr", "-p", f"{folder}/", "-c", "nginx.conf", "-t"]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.parametrize("environment", ["1p1d", "2p1d", "18p1d"])
def test_nginx_accepts_all_that_is_not_the_modules_own(environment: str, tmp_path: Path) -> None:
    spec = spec_for(environment)
    text = proxy.files(spec, environment)["nginx.conf"].replace(spec.log_dir, f"{tmp_path}/logs")
    done = nginx_test(without_modules(text), tmp_path)
    assert done.returncode == 0, done.stderr
    broken = nginx_test(without_modules(text).replace("listen ", "listne "), tmp_path)
    assert broken.returncode != 0


def changed(spec: proxy.ProxySpec, **settings: Any) -> proxy.ProxySpec:
    from dataclasses import replace

    return replace(spec, settings={**spec.settings, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"prefill_balance": "fastest; }"},
        {"modules_dir": '/m"; load_module /x'},
        {"log_level": "debug; user root"},
        {"start_core": -1},
        {"keepalive_timeout": "1s; }"},
        {"decode_request_limit": 0},
    ],
)
def test_hostile_values_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        proxy.files(changed(spec_for(), **settings), "x")


def test_a_hostile_source_stays_a_comment() -> None:
    assert "\nuser root" not in proxy.files(spec_for(), "x\nuser root;")["nginx.conf"]


def test_commands_name_the_images_nginx_and_only_our_folder() -> None:
    words = proxy.command(spec_for())
    assert words[0] == "/usr/local/nginx/sbin/nginx"
    assert proxy.reload_command(spec_for())[-2:] == ["-s", "reload"]
    assert proxy.check_command(spec_for())[-2:] == ["-t", "-q"]


def test_masks_count_from_the_start_core() -> None:
    assert omni.affinity(3, 0) == ["1", "10", "100"]
