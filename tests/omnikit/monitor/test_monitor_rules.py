"""Alert rules, tried by Prometheus' own tool on series made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import needs

from hostkit.base.run import run
from omnikit.config import config
from omnikit.monitor.files import alert_rules as rules

pytestmark = pytest.mark.slow

LOCAL = config.load("local", environ={}).settings
NPU = config.load("2p1d", environ={}).settings
SERVER = 'environment="local",role="decode",instance="d0",host="local"'
UP = f"up{{{SERVER}}}"
NODE = 'environment="local",node="d0",role="decode"'
PROXY = 'environment="local",role="proxy",instance="c0",host="local"'


def made(**given: bool) -> dict[str, Any]:
    return rules("local", LOCAL, **{"proxy": True, "disaggregated": True, **given})


def names(file: dict[str, Any]) -> list[str]:
    return [rule["alert"] for rule in file["groups"][0]["rules"]]


def firing(folder: Path, *series: tuple[str, str], at: str = "10m") -> set[str]:
    """The alerts that fire then. series: name and values, one each 15 s."""
    (folder / "alerts.yml").write_text(yaml.safe_dump(made()))
    found = set()
    for name in names(made()):
        test = {
            "interval": "15s",
            "input_series": [{"series": s, "values": values} for s, values in series],
            "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": []}],
        }
        text = yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": [test]})
        (folder / "test.yml").write_text(text)
        done = run(["promtool", "test", "rules", "test.yml"], cwd=folder, check=False)
        assert done.code == 0 or "got:" in done.out + done.err, done.out + done.err
        found |= {name} if done.code else set()
    return found


@pytest.fixture(autouse=True)
def promtool() -> None:
    needs("promtool")


def test_all_is_well(tmp_path: Path) -> None:
    assert (
        firing(
            tmp_path,
            (UP, "1x60"),
            (f"up{{{PROXY}}}", "1x60"),
            (f'omnikit_instance_state{{{NODE},state="crash-loop"}}', "0x60"),
            (f"omnikit_instance_restarts_total{{{NODE}}}", "2x60"),
            (f"nginx_up{{{PROXY}}}", "1x60"),
            (f"vllm:num_requests_waiting{{{SERVER}}}", "20x60"),  # many, but not ever more
            (f"vllm:kv_cache_usage_perc{{{SERVER}}}", "0.85x60"),
            (f"vllm:num_preemptions_total{{{SERVER}}}", "3x60"),
            (f'omnikit_proxy_failed_requests_total{{{PROXY},kind="5xx"}}', "7x60"),
            (f'omnikit_proxy_failed_requests_total{{{PROXY},kind="4xx"}}', "0+1x60"),
        )
        == set()
    )


@pytest.mark.parametrize(
    ("series", "values", "alert"),
    [
        (UP, "0x60", "OmnikitServerDown"),
        (f"up{{{PROXY}}}", "0x60", "OmnikitProxyDown"),
        (f'omnikit_instance_state{{{NODE},state="crash-loop"}}', "1x60", "OmnikitCrashLoop"),
        (f"omnikit_instance_restarts_total{{{NODE}}}", "0x30 1x30", "OmnikitRestarted"),
        (f"nginx_up{{{PROXY}}}", "0x60", "OmnikitProxyDown"),  # what reads it answers, nginx not
        (f"vllm:num_requests_waiting{{{SERVER}}}", "11+1x60", "OmnikitQueueGrows"),
        (f"vllm:kv_cache_usage_perc{{{SERVER}}}", "0.95x60", "OmnikitKvCacheNearlyFull"),
        (f"vllm:num_preemptions_total{{{SERVER}}}", "0x30 1x30", "OmnikitPreemptions"),
        (
            f'vllm:prompt_tokens_by_source_total{{{SERVER},source="local_compute"}}',
            "0x30 64x30",
            "OmnikitKvNotHandedOver",
        ),
        (
            f'omnikit_proxy_failed_requests_total{{{PROXY},kind="5xx"}}',
            "0x30 2x30",
            "OmnikitProxyErrors",
        ),
        (
            f'omnikit_proxy_server_in_pool{{{PROXY},pool="decode",server="10.0.0.1:9100"}}',
            "0x60",
            "OmnikitOutOfPool",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, series: str, values: str, alert: str) -> None:
    assert firing(tmp_path, (series, values)) == {alert}


def test_kv_without_a_request_is_told_unless_there_was_one(tmp_path: Path) -> None:
    kept = (f"vllm:kv_cache_usage_perc{{{SERVER}}}", "0.02x60")
    idle = (f"vllm:num_requests_waiting{{{SERVER}}}", "0x60")
    running = f"vllm:num_requests_running{{{SERVER}}}"
    assert firing(tmp_path, kept, idle, (running, "0x60")) == {"OmnikitKvKept"}
    assert firing(tmp_path, kept, idle, (running, "0x30 1 0x29")) == set()
    empty = (f"vllm:kv_cache_usage_perc{{{SERVER}}}", "0.02x30 0 0.02x29")
    assert firing(tmp_path, empty, idle, (running, "0x60")) == set()


def test_a_server_that_is_away_for_a_moment_is_not_reported(tmp_path: Path) -> None:
    assert firing(tmp_path, (UP, "1x36 0x3 1x30"), at="9m45s") == set()


def test_rules_are_for_what_is_there() -> None:
    assert "OmnikitProxyDown" not in names(made(proxy=False))
    assert "OmnikitProxyErrors" not in names(made(counted=False))
    assert "OmnikitKvNotHandedOver" not in names(made(disaggregated=False))
    fleet = rules("2p1d", NPU, proxy=False, disaggregated=True)
    assert "OmnikitKvNotHandedOver" not in names(fleet)  # vLLM 0.9 does not count it
    assert "vllm:gpu_cache_usage_perc" in str(fleet)
