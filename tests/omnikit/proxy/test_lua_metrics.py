"""What a real nginx tells Prometheus."""

from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from needs import needs

from hostkit.base import run
from hostkit.base.health import metric, request, wait_until
from omnikit import proxy

# Real processes, seconds together.
pytestmark = pytest.mark.slow

FAILED = "omnikit_proxy_failed_requests_total"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder into which nginx's workers may look, unlike pytest's, as a deployment's is."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def metrics(running) -> str:
    answer = request(running.url + "/metrics", timeout_s=10)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4"
    return answer.text


def failed(running, kind: str) -> float | None:
    return metric(metrics(running), f'{FAILED}{{kind="{kind}"}}')


def test_prometheus_own_tool_finds_nothing_wrong(start, backend, tmp_path: Path) -> None:
    needs("promtool")
    done = run.run(
        ["promtool", "check", "metrics"],
        stdin=metrics(start([backend("prefill")], [backend("decode")])),
        check=False,
    )
    # Two names are those of nginx-prometheus-exporter: dashboards made for it work here too.
    names = [line.split()[0] for line in (done.out + done.err).splitlines()]
    assert names == ["nginx_connections_accepted", "nginx_connections_handled"]


@pytest.mark.parametrize("prefill", [1, 0])
def test_requests_and_failures_are_counted_with_and_without_prefill(
    start, backend, prefill: int
) -> None:
    decode = backend("decode")
    running = start([backend("prefill")] * prefill, [decode], worker_processes=2)
    assert running.post({"model": "m", "prompt": "p"}).status == 200
    assert [failed(running, kind) for kind in ("4xx", "499", "5xx")] == [0.0, 0.0, 0.0]
    assert request(running.url + "/nowhere", timeout_s=10).status == 404
    decode.behave = lambda handler, _: handler.answer(500, "{}")
    assert running.post({"model": "m", "prompt": "p"}).status == 500
    decode.close()
    assert running.post({"model": "m", "prompt": "p"}).status == 502
    # nginx writes a moment after the answer.
    assert wait_until(lambda: failed(running, "5xx") == 2.0, 5, 0.02)
    assert failed(running, "4xx") == 1.0 and failed(running, "499") == 0.0
    text = metrics(running)
    assert metric(text, "nginx_up") == 1.0
    assert (metric(text, "nginx_http_requests_total") or 0) >= 5
    assert metric(text, "nginx_connections_accepted") == metric(text, "nginx_connections_handled")
    assert "/metrics" not in running.log("access.log")


def test_a_client_that_goes_away_is_counted_apart(start, backend) -> None:
    running = start([backend("prefill")], [backend("decode")])
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    body = json.dumps({"model": "m", "prompt": "p", "stream": True})
    client.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = client.getresponse()
    assert b"one" in answer.readline()
    answer.close()
    client.close()
    # The answer had begun, its status is 200: only a request without one counts as 499.
    assert wait_until(lambda: len(running.access(1)) == 1, 5, 0.02)
    assert failed(running, "4xx") == 0.0


def test_counts_outlive_a_reload(start, backend) -> None:
    running = start([backend("prefill")], [backend("decode")])
    assert request(running.url + "/nowhere", timeout_s=10).status == 404
    assert wait_until(lambda: failed(running, "4xx") == 1.0, 5, 0.02)
    done = run.run(proxy.reload_command(running.spec) or [], check=False)
    assert done.code == 0, done.err
    assert request(running.url + "/nowhere", timeout_s=10).status == 404
    assert wait_until(lambda: failed(running, "4xx") == 2.0, 5, 0.02)


def test_workers_that_may_not_look_into_the_folder_count_all_the_same(
    start, backend, tmp_path: Path
) -> None:
    needs(root=True)  # only root's workers are somebody else
    running = start([backend("prefill")], [backend("decode")])
    tmp_path.chmod(0o700)
    assert request(running.url + "/nowhere", timeout_s=10).status == 404
    assert wait_until(lambda: failed(running, "4xx") == 1.0, 5, 0.02)


def test_a_server_that_leaves_the_pool_is_told(start, backend) -> None:
    decode, other = backend("decode"), backend("decode")
    running = start([backend("prefill")], [decode, other], probe_interval_ms=100)

    def within() -> float | None:
        host, port = decode.address
        place = f'pool="decode",server="{host}:{port}"'
        return metric(metrics(running), f"omnikit_proxy_server_in_pool{{{place}}}")

    assert within() == 1.0
    decode.close()
    assert wait_until(lambda: within() == 0.0, 10, 0.05)


def test_it_can_be_left_out(start, backend) -> None:
    running = start([], [backend("decode")], metrics=False)
    assert request(running.url + "/metrics", timeout_s=10).status == 404
    # For an nginx that was built without it.
    assert "stub_status" not in (Path(running.spec.run_dir) / "nginx.conf").read_text()
