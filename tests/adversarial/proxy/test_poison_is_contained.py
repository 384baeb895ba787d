"""A request at which servers die reaches two at most, and one where servers live on."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import pytest
from port_rooms import free_port
from proxy_backend import Handler, Seen

from hostkit.base.health import wait_until

# Real processes, seconds together.
pytestmark = pytest.mark.slow

POISON = {"prompt": "poison"}


def dies(handler: Handler, seen: Seen) -> None:
    """Hangs up at a poisonous request, as a server that dies does; else as its role says."""
    if b"poison" in seen.body:
        handler.cut()
    elif handler.server.backend.role == "prefill":
        handler.answer(200, '{"kv_transfer_params":{"remote_engine_id":"e"}}')
    else:
        handler.answer(200, '{"choices":[{"text":"good"}]}')


def refuses(handler: Handler, seen: Seen) -> None:
    handler.answer(503, json.dumps({"error": {"message": f"busy {handler.server.backend.role}"}}))


def got(servers: list[Any], text: bytes = b"") -> list[int]:
    return [sum(text in seen.body for seen in one.seen) for one in servers]


@pytest.mark.parametrize("where", ["prefill", "decode"])
@pytest.mark.parametrize("balance", ["least_conn", "round_robin"])
def test_one_poison_request_reaches_one_server(start, backend, where: str, balance: str) -> None:
    roles = ["prefill", "decode"]
    servers = {
        r: [backend(r, behave=dies if r == where else None) for _ in range(4)] for r in roles
    }
    running = start(*servers.values(), prefill_balance=balance, decode_balance=balance)
    answer = running.post(POISON)
    assert (answer.status, answer.json()["error"]["type"]) == (502, f"{where}_died")
    assert sum(got(servers[where])) == 1


@pytest.mark.parametrize("where", ["prefill", "decode"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_poison_takes_the_service_from_nobody(start, backend, where: str, count: int) -> None:
    """Servers that live on are asked on: one that ended a connection does not rest for it."""
    prefill = [backend("prefill", behave=dies) for _ in range(count if where == "prefill" else 1)]
    decode = [backend("decode", behave=dies) for _ in range(count if where == "decode" else 1)]
    if where == "decode":
        prefill[0].behave = None
    running = start(prefill, decode)
    for _ in range(3):
        for _ in range(3):
            assert running.post(POISON).status == 502
        assert running.post({"prompt": "good"}).status == 200


def test_poison_in_a_balancer_without_prefill_reaches_one_server(start, backend) -> None:
    servers = [backend("decode", behave=dies) for _ in range(3)]
    running = start([], servers)
    for sent in range(1, 4):
        assert running.post(POISON).status == 502
        assert sum(got(servers, b"poison")) == sent
    assert running.post({"prompt": "good"}).status == 200


@pytest.mark.parametrize("where", ["prefill", "decode"])
@pytest.mark.parametrize(("retries", "tried"), [(0, 1), (1, 2), (5, 2)])
def test_where_servers_die_one_more_gets_the_request_and_no_other(
    start, backend, where: str, retries: int, tried: int
) -> None:
    """Most die of something else, so it is done again; but a second death is one too many."""
    servers = {r: [backend(r) for _ in range(3)] for r in ("prefill", "decode")}
    turns = {"prefill_balance": "round_robin", "decode_balance": "round_robin"}
    running = start(*servers.values(), retries=retries, **turns)
    for _ in range(6):  # now there are idle connections to each
        assert running.post({"prompt": "good"}).status == 200
    for one in servers[where]:
        one.behave = lambda handler, seen: (handler.server.socket.close(), handler.cut())
    before = got(servers[where])
    answer = running.post(POISON)
    assert (answer.status, answer.json()["error"]["type"]) == (502, f"{where}_lost")
    assert sum(got(servers[where])) - sum(before) == tried
    if tried > 1:  # what OpenAI's clients go by, who would try it again themselves
        assert answer.headers["x-should-retry"] == "false"


def test_a_connection_that_the_server_closed_while_it_was_idle_costs_no_request(
    start, backend
) -> None:
    prefill, decode = backend("prefill"), backend("decode")
    running = start([prefill], [decode])
    for _ in range(5):
        assert running.post({"prompt": "x"}).status == 200
        for server in (prefill, decode):
            for connection in list(server._server.connections):
                with contextlib.suppress(OSError):  # nginx closed it first
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_a_time_out_is_not_tried_elsewhere(start, backend, where: str) -> None:
    roles = ["prefill", "decode"]
    servers = {r: [backend(r) for _ in range(3)] for r in roles}
    for one in servers[where]:
        one.behave = lambda handler, seen: handler.server.backend.go_on.wait(10)
    running = start(*servers.values(), read_timeout="200ms")
    answer = running.post({"prompt": "x"})
    assert (answer.status, answer.json()["error"]["type"]) == (504, f"{where}_timeout")
    assert sum(got(servers[where])) == 1


@pytest.mark.parametrize("where", ["prefill", "decode"])
@pytest.mark.parametrize(("retries", "tried"), [(0, 1), (1, 2), (3, 4), (9, 5)])
def test_refusals_are_tried_elsewhere_so_often_as_set(
    start, backend, where: str, retries: int, tried: int
) -> None:
    servers = {r: [backend(r) for _ in range(5)] for r in ("prefill", "decode")}
    for one in servers[where]:
        one.behave = refuses
    running = start(*servers.values(), retries=retries)
    answer = running.post({"prompt": "x"})
    # In the words of the last one.
    assert (answer.status, answer.json()["error"]["message"]) == (503, f"busy {where}")
    assert sum(got(servers[where])) == tried


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_servers_that_cannot_be_reached_count_for_nothing(start, backend, where: str) -> None:
    """They never got the request: it may go on to the one that lives, however many are dead."""
    dead = [("127.0.0.1", free_port()) for _ in range(6)]
    prefill, decode = backend("prefill"), backend("decode")
    lists = {"prefill": [prefill], "decode": [decode]}
    lists[where] = [*dead[:3], *lists[where], *dead[3:]]
    running = start(*lists.values(), prefill_balance="round_robin", decode_balance="round_robin")
    assert [running.post({"prompt": "x"}).status for _ in range(12)] == [200] * 12


def test_a_server_that_comes_back_is_asked_again_although_all_rest(start, backend) -> None:
    """Only dead servers: after some failures all rest, and still the first that is back serves."""
    import threading

    decode = backend("decode")
    port = free_port()
    running = start([("127.0.0.1", port)], [decode], fail_timeout="1h")
    for _ in range(5):
        assert running.post({"prompt": "x"}).status == 502
    listener = socket.create_server(("127.0.0.1", port))
    text = b'{"kv_transfer_params":{}}'
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(head + text)
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert running.post({"prompt": "x"}).status == 200
    thread.join(5)
    listener.close()


def test_what_decode_began_to_answer_is_never_asked_for_again(start, backend) -> None:
    def half(handler: Handler, seen: Seen) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.chunk("data: one\n\n")
        handler.cut()

    servers = [backend("decode", behave=half) for _ in range(3)]
    running = start([backend("prefill")], servers)
    running.post({"prompt": "x", "stream": True})
    assert wait_until(lambda: len(running.access(1)) == 1, 5, 0.01)
    assert sum(got(servers)) == 1
