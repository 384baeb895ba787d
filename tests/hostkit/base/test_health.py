"""Waiting for conditions, and requests that never raise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from host_cases import STAND_IN
from port_rooms import free_port

from hostkit.base.health import metric, request, wait_until

TEXT = """# HELP x y
a_total{source="external",engine="0"} 40.0
a_total{source="external",engine="1"} 4.0
a_total{source="local"} 1e3
a_total_created{source="external"} 9.0
b 0.25
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ('a_total{source="external"}', 44.0),
        ('a_total{source="local"}', 1000.0),
        ("a_total", 1044.0),
        ("b", 0.25),
        ("missing", None),
        (None, None),
    ],
)
def test_metrics_are_summed_over_matching_series(name, value) -> None:
    assert metric(TEXT, name) == value


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://a..b:80", "http://[::1"])
def test_what_is_no_address_is_no_answer(url: str) -> None:
    answer = request(url, timeout_s=5)
    assert answer.status == 0 and answer.text


def test_a_condition_is_awaited_until_it_holds_or_the_deadline_is_over() -> None:
    looks = iter([False, False, True])
    assert wait_until(lambda: next(looks), 10, 0.001)
    assert not wait_until(lambda: False, 0.01, 0.001)


def test_nobody_there_is_an_answer_with_status_0() -> None:
    answer = request(f"http://127.0.0.1:{free_port()}/x", timeout_s=1)
    assert answer.status == 0 and "refused" in answer.text and answer.json() == {}


def test_proxies_of_the_environment_are_not_used(monkeypatch) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with subprocess.Popen([sys.executable, str(Path(STAND_IN)), str(port)]) as server:
        try:
            url = f"http://127.0.0.1:{port}/health"
            assert wait_until(lambda: request(url, timeout_s=1).status == 200, 10, 0.02)
        finally:
            server.kill()
