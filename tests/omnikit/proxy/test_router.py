"""The command of the kind vllm-router."""

from __future__ import annotations

from dataclasses import replace

import pytest
from proxy_settings import SETTINGS

from hostkit.base.errors import InputError
from omnikit import proxy

SPEC = proxy.ProxySpec(
    kind="vllm-router",
    listen_host="127.0.0.1",
    listen_port=7000,
    prefill=(("127.0.0.1", 9000), ("::1", 9001)),
    decode=(("127.0.0.1", 9102),),
    run_dir="/run/c0",
    log_dir="/logs/c0",
    settings={**SETTINGS, "venv": "/venvs/router", "decode_balance": "round_robin"},
)


def test_prefill_and_decode_servers_are_named_with_their_balance():
    assert proxy.command(SPEC) == [
        "/venvs/router/bin/vllm-router",
        *("--host", "127.0.0.1", "--port", "7000"),
        "--vllm-pd-disaggregation",
        *("--prefill-policy", "power_of_two"),
        *("--prefill", "http://127.0.0.1:9000", "--prefill", "http://[::1]:9001"),
        *("--decode-policy", "round_robin", "--decode", "http://127.0.0.1:9102"),
        *("--max-payload-size", "1048576", "--request-timeout-secs", "60"),
        *("--log-level", "warning", "--log-dir", "/logs/c0"),
    ]


def test_without_prefill_it_is_a_balancer():
    words = proxy.command(replace(SPEC, prefill=()))
    assert words[5:9] == ["--policy", "round_robin", "--worker-urls", "http://127.0.0.1:9102"]
    assert "--vllm-pd-disaggregation" not in words


def test_the_port_of_its_metrics_can_be_chosen():
    settings = {**SPEC.settings, "router_metrics_port": 29001}
    assert proxy.command(replace(SPEC, settings=settings))[5:7] == ["--prometheus-port", "29001"]


def test_one_server_is_taken_in_turn_because_the_router_refuses_to_compare_it():
    words = proxy.command(replace(SPEC, settings={**SPEC.settings, "decode_balance": "least_conn"}))
    assert words[words.index("--decode-policy") + 1] == "round_robin"


def test_it_needs_no_files_and_cannot_reload():
    assert proxy.files(SPEC, "x") == {}
    assert proxy.reload_command(SPEC) is proxy.check_command(SPEC) is None
    assert proxy.health_path(SPEC) == "/health"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"venv": None}, "proxy.venv"),
        ({"kv_params": "none"}, "proxy.kv_params"),
        ({"log_level": "loud"}, "proxy.log_level"),
    ],
)
def test_settings_that_it_cannot_do_are_refused(change, named):
    with pytest.raises(InputError) as caught:
        proxy.files(replace(SPEC, settings={**SPEC.settings, **change}), "x")
    assert caught.value.where == named
