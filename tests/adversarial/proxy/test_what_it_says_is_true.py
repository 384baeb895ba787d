"""Ready means that requests can be served; who left is worked for no longer."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

import pytest
from port_rooms import free_port
from proxy_backend import Handler, Seen

from hostkit.base import run
from hostkit.base.health import Answer, request, wait_until
from omnikit import proxy

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def dead() -> tuple[str, int]:
    return ("127.0.0.1", free_port())


def ready(running: Any) -> Answer:
    return request(running.url + "/ready", timeout_s=20)


def test_it_is_ready_with_one_server_of_each_role(start, backend) -> None:
    running = start([dead(), backend("prefill"), dead()], [dead(), backend("decode")])
    answer = ready(running)
    assert (answer.status, answer.json()) == (200, {"status": "ready"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_without_a_server_of_a_role_it_lives_but_is_not_ready(start, backend, role: str) -> None:
    servers = {
        one: [backend(one)] if one != role else [dead(), dead()] for one in ("prefill", "decode")
    }
    running = start(*servers.values())
    answer = ready(running)
    assert answer.status == 503
    assert answer.json()["error"]["message"] == f"No {role} server answers."
    assert request(running.url + "/health", timeout_s=5).status == 200


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_it_ceases_to_be_ready_when_the_last_server_of_a_role_dies(start, backend, role) -> None:
    servers = {one: backend(one) for one in ("prefill", "decode")}
    running = start([servers["prefill"]], [servers["decode"]])
    assert ready(running).status == 200
    servers[role].close()
    assert wait_until(lambda: ready(running).status == 503, 5, 0.05)


def test_a_server_whose_engine_is_dead_does_not_count(start, backend) -> None:
    """vLLM's own /health answers 503 then."""
    decode = backend("decode", health=lambda handler, seen: handler.answer(503, ""))
    running = start([backend("prefill")], [decode])
    assert ready(running).status == 503


def test_a_server_that_hangs_does_not_count_and_holds_nobody_up(start, backend) -> None:
    decode = backend("decode")
    decode.health = lambda handler, seen: decode.go_on.wait(20)
    running = start([backend("prefill")], [decode], probe_timeout="300ms")
    assert ready(running).status == 503


def test_one_that_hangs_beside_one_that_answers_does_no_harm(start, backend) -> None:
    hangs = backend("decode")
    hangs.health = lambda handler, seen: hangs.go_on.wait(20)
    running = start([backend("prefill")], [hangs, backend("decode")], connect_timeout="60s")
    assert ready(running).status == 200


def test_a_balancer_needs_no_prefill_server(start, backend) -> None:
    assert ready(start([], [backend("decode")])).status == 200


def test_without_servers_a_balancer_is_not_ready(start) -> None:
    assert ready(start([], [dead()])).status == 503


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_of_prefill_that_is_too_large_is_an_error_in_json(
    start, backend, chunked: bool
) -> None:
    def large(handler: Handler, seen: Seen) -> None:
        if not chunked:
            return handler.answer(200, json.dumps({"a": "x" * 200_000}))
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(200):
            handler.chunk("x" * 1000)
        return None

    prefill, decode = backend("prefill", behave=large), backend("decode")
    running = start([prefill], [decode])
    answer = running.post({"prompt": "x"})
    assert (answer.status, answer.json()["error"]["type"]) == (502, "prefill_answer_too_large")
    assert decode.seen == []


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_of_prefill_in_chunks_is_read_as_any_other(start, backend, chunked: bool) -> None:
    text = '{"kv_transfer_params":{"remote_engine_id":"chunked"}}'

    def answer(handler: Handler, seen: Seen) -> None:
        handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if chunked:
            for letter in text:
                handler.chunk(letter)
            handler.wfile.write(b"0\r\nTrailer: x\r\n\r\n")
        else:  # its end is that of the connection
            handler.wfile.write(text.encode())
            handler.cut()

    prefill, decode = backend("prefill", behave=answer), backend("decode")
    running = start([prefill], [decode])
    for _ in range(3):
        assert running.post({"prompt": "x"}).status == 200
    assert decode.seen[2].data["kv_transfer_params"] == {"remote_engine_id": "chunked"}


def test_clients_that_leave_while_prefill_computes_end_it(start, backend) -> None:
    """Its engine sees the connection end, drops the request and has its KV cache back."""
    left = []

    def slow(handler: Handler, seen: Seen) -> None:
        if wait_until(handler.closed_by_peer, 15, 0.01):
            left.append(seen)

    prefill, decode = backend("prefill", behave=slow), backend("decode")
    running = start([prefill], [decode])
    clients = []
    for i in range(40):
        client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
        client.request("POST", "/v1/completions", json.dumps({"prompt": str(i), "stream": True}))
        clients.append(client)
    assert wait_until(lambda: len(prefill.seen) == 40, 10, 0.01)
    assert left == []
    for client in clients:
        client.close()
    assert wait_until(lambda: len(left) == 40, 10, 0.01)
    assert [one["status"] for one in running.access(40)] == [499] * 40
    assert decode.seen == []
    # And nothing is thought to be with the server any longer: it is asked like the other.
    prefill.behave = None
    other = backend("prefill")
    running.write(spec := _with_prefill(running.spec, prefill, other))
    run.run(proxy.reload_command(spec))
    assert wait_until(
        lambda: running.post({"prompt": "x"}).status == 200 and bool(other.seen), 9, 0.05
    )
    before = len(prefill.seen)
    for _ in range(10):
        assert running.post({"prompt": "x"}).status == 200
    assert 3 <= len(prefill.seen) - before <= 7


def leaves(running: Any, **body: Any) -> http.client.HTTPConnection:
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    client.request("POST", "/v1/completions", json.dumps({"prompt": "x", **body}))
    return client


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_decode_answers_does_not_strand_the_kv(
    start, backend, stream: bool
) -> None:
    """Decode has the hand-over, and fetches the KV before it answers; until then it goes on."""
    gone = threading.Event()
    decode = backend("decode")

    def slow(handler: Handler, seen: Seen) -> None:
        if wait_until(handler.closed_by_peer, 1, 0.02):
            gone.set()  # too early: who fetches the KV now?
            return
        decode.go_on.wait(10)
        handler.stream(decode)

    decode.behave = slow
    running = start([backend("prefill")], [decode])
    client = leaves(running, stream=stream)
    assert wait_until(lambda: bool(decode.seen), 5, 0.01)
    client.close()
    assert not gone.wait(1.5)
    decode.go_on.set()
    assert wait_until(lambda: len(running.access(1)) == 1, 5, 0.02)


def test_a_client_that_leaves_when_nothing_was_handed_over_ends_decode_at_once(
    start, backend
) -> None:
    gone = threading.Event()

    def slow(handler: Handler, seen: Seen) -> None:
        if wait_until(handler.closed_by_peer, 5, 0.02):
            gone.set()

    decode = backend("decode", behave=slow)
    running = start([backend("prefill")], [decode])
    client = leaves(running, n=2)
    assert wait_until(lambda: bool(decode.seen), 5, 0.01)
    client.close()
    assert gone.wait(4)


def _with_prefill(spec: proxy.ProxySpec, *servers: Any) -> proxy.ProxySpec:
    from dataclasses import replace

    return replace(spec, prefill=tuple(one.address for one in servers))


def test_what_is_served_is_no_longer_held_by_its_server(start, backend) -> None:
    """However a request ends, least_conn forgets it: otherwise a server would starve."""
    servers = [backend("prefill"), backend("prefill")]
    decode = [backend("decode"), backend("decode")]
    running = start(servers, decode, max_fails=0)
    for one in (servers[0], decode[0]):
        one.behave = lambda handler, seen: handler.cut()
    for _ in range(10):
        running.post({"prompt": "x"})
    for one in (servers[0], decode[0]):
        one.behave = None
    before = [len(one.seen) for one in (*servers, *decode)]
    for _ in range(12):
        assert running.post({"prompt": "x"}).status == 200
    grown = [len(one.seen) - old for one, old in zip((*servers, *decode), before)]
    assert grown == [6, 6, 6, 6]


def test_a_reload_forgets_nobody_who_rests_or_works(start, backend) -> None:
    prefill, decode = backend("prefill"), backend("decode")
    running = start([prefill], [decode, dead()], decode_balance="round_robin")
    for _ in range(6):
        assert running.post({"prompt": "x"}).status == 200
    run.run(proxy.reload_command(running.spec))
    assert [running.post({"prompt": "x"}).status for _ in range(6)] == [200] * 6
