"""No body holds a worker up, none makes it large, and one client leaves room for the others."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator

import pytest

from hostkit.base.health import request, wait_until

# Real processes, seconds together.
pytestmark = pytest.mark.slow

MILLION = 1_000_000
LARGEST = {"client_max_body_size": "100m", "client_body_buffer_size": "100m"}


def members() -> bytes:
    return b",".join(b'"k%d":1' % i for i in range(2_600_000))


# Tens of megabytes each, so made by the test that sends it.
HOSTILE: dict[str, tuple[int, Callable[[], bytes]]] = {
    "many members": (413, lambda: b"{" + members() + b"}"),
    "many members further down": (413, lambda: b'{"a":{' + members() + b"}}"),
    "many brackets": (400, lambda: b"[" * 40 * MILLION),
    "depth": (413, lambda: b'{"a":' + b"[" * 40 * MILLION),
    "depth that is closed": (
        413,
        lambda: b'{"a":' + b"[" * 20 * MILLION + b"]" * 20 * MILLION + b"}",
    ),
    "many quotes in a string": (413, lambda: b'{"a":"' + b'\\"' * 20 * MILLION + b'"}'),
    "many strings": (413, lambda: b'{"a":[' + b'"",' * 10 * MILLION + b'""]}'),
    "a long number": (400, lambda: b'{"a":' + b"1" * 40 * MILLION + b"}"),
    "a word without end": (400, lambda: b'{"a":' + b"true" * 10 * MILLION + b"}"),
    "a key without end": (400, lambda: b'{"' + b"\\u0041" * 6 * MILLION),
    "spaces": (400, lambda: b" " * 40 * MILLION),
    "no UTF-8 at the very end": (400, lambda: b'{"a":"' + b"x" * 40 * MILLION + b'\xff"}'),
    "zeros": (400, lambda: b'{"a":[' + bytes(40 * MILLION) + b"]}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_at_once(start, backend, name: str) -> None:
    prefill, decode = backend("prefill"), backend("decode")
    running = start([prefill], [decode], **LARGEST)
    status, make = HOSTILE[name]
    body = make()
    began = time.monotonic()
    answer = running.raw(body)
    took = time.monotonic() - began
    assert answer.status == status, answer.text
    assert answer.json()["error"]["code"] == status
    assert prefill.seen == decode.seen == []
    # It was 42 s. Most of what it takes now is the sending of the body.
    assert took < 5


def test_others_are_served_meanwhile(start, backend) -> None:
    running = start([backend("prefill")], [backend("decode")], **LARGEST)
    bodies = [(status, make()) for status, make in HOSTILE.values()]
    stop = threading.Event()

    def attack() -> int:
        count = 0
        while not stop.is_set():
            for status, body in bodies:
                assert running.raw(body).status == status
                count += 1
                if stop.is_set():
                    break
        return count

    with ThreadPoolExecutor(2) as pool:
        attacks = [pool.submit(attack) for _ in range(2)]
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert running.post({"prompt": "x"}).status == 200
            took.append(time.monotonic() - began)
        stop.set()
        assert all(one.result() for one in attacks)
    assert sorted(took)[len(took) // 2] < 0.5, took
    assert running.process.poll() is None


@pytest.mark.parametrize("depth", [1, 100, 500])
def test_what_is_deep_but_sane_passes(start, backend, depth: int) -> None:
    decode = backend("decode")
    running = start([backend("prefill")], [decode])
    assert running.raw(b'{"prompt":"x","a":' + b"[" * depth + b"]" * depth + b"}").status == 200
    assert decode.seen[0].body.endswith(b"]" * depth + b"}")


def test_a_long_conversation_with_many_quotes_passes(start, backend) -> None:
    decode = backend("decode")
    running = start([backend("prefill")], [decode], **LARGEST)
    messages = [{"role": "user", "content": 'say "\\" ' * 1000} for _ in range(250)]
    assert running.post({"messages": messages}, "/v1/chat/completions").status == 200
    assert decode.seen[0].data["messages"] == messages


@pytest.fixture
def half_sent() -> Iterator[Callable[[Any], socket.socket]]:
    """Sends the beginning of a request and keeps the connection."""
    opened: list[socket.socket] = []

    def begin(running: Any) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", running.spec.listen_port), 20)
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        opened.append(client)
        return client

    yield begin
    for client in opened:
        client.close()


def test_half_sent_requests_of_one_client_are_limited(start, backend, half_sent) -> None:
    running = start([backend("prefill")], [backend("decode")], client_half_sent=3)
    waiting = [half_sent(running) for _ in range(3)]
    # nginx may see our next request before it has seen these.
    assert wait_until(lambda: running.post({"prompt": "x"}).status == 429, 5, 0.05)
    answer = running.post({"prompt": "x"})
    assert answer.json()["error"]["type"] == "too_many_requests"
    waiting[0].close()
    assert wait_until(lambda: running.post({"prompt": "x"}).status == 200, 5, 0.05)


def test_whole_requests_are_not_counted_as_half_sent(start, backend) -> None:
    running = start([backend("prefill")], [backend("decode")], client_half_sent=64)
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda i: running.post({"prompt": "x" * 1000}).status, range(300)))
    assert set(found) == {200}


def test_a_client_that_stops_sending_is_dropped(start, backend, half_sent) -> None:
    running = start([backend("prefill")], [backend("decode")], client_timeout="200ms")
    client = half_sent(running)
    assert b"408" in client.recv(100) or client.recv(100) == b""


def test_open_requests_of_one_client_are_limited(start, backend) -> None:
    prefill = backend("prefill")
    prefill.behave = lambda handler, seen: (
        prefill.go_on.wait(20),
        handler.answer(200, '{"kv_transfer_params":{}}'),
    )
    running = start([prefill], [backend("decode")], client_connections=4)
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(running.post, {"prompt": "x"}) for _ in range(4)]
        assert wait_until(lambda: len(prefill.seen) == 4, 10, 0.01)
        answer = running.post({"prompt": "x"})
        assert (answer.status, answer.json()["error"]["type"]) == (429, "too_many_requests")
        # Whoever watches the proxy is let in.
        assert request(running.url + "/health", timeout_s=5).status == 200
        prefill.go_on.set()
        assert {one.result().status for one in held} == {200}


def test_requests_of_one_client_in_a_second_are_limited(start, backend) -> None:
    running = start([backend("prefill")], [backend("decode")], client_requests=5)
    found = [running.post({"prompt": "x"}).status for _ in range(40)]
    assert set(found) == {200, 429} and found[0] == 200


def test_limits_can_be_left_out(start, backend) -> None:
    off = {"client_connections": 0, "client_requests": 0, "client_half_sent": 0}
    running = start([backend("prefill")], [backend("decode")], **off)
    assert [running.post({"prompt": "x"}).status for _ in range(20)] == [200] * 20


@pytest.mark.parametrize("identity", ["x" * 60_000, "x" * 257])
def test_a_very_long_request_id_is_replaced(start, backend, identity: str) -> None:
    decode = backend("decode")
    running = start([backend("prefill")], [decode])
    answer = running.post({"prompt": "x"}, X_Request_Id=identity)
    assert answer.status == 200
    assert len(answer.headers["x-request-id"]) == 32
    assert decode.seen[0].headers["x-request-id"] == answer.headers["x-request-id"]
    assert len(json.dumps(running.access(1)[0])) < 1000
