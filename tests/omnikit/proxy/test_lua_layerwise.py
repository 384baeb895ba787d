"""Prefill pushes (kv_params layerwise): decode is asked first, its engine tells the metaserver."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ascend_decode import CHAT, COMPLETIONS, WHOLE, Decode, body, events, said
from port_rooms import free_port
from proxy_backend import Backend, Handler, Seen
from proxy_settings import LOCAL, SETTINGS

from hostkit.base.errors import InputError
from hostkit.base.health import wait_until
from omnikit import proxy

MESSAGE = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_block_ids": [[1, 2, 3]],
    "remote_block_size": [128],
    "remote_engine_id": "d-1",
    "remote_host": "127.0.0.2",
    "remote_port": 30000,
    "remote_cached_tokens": 0,
    "big": 9223372036854775807,
    "token_ids": [],
}
HOST = "127.0.0.2"  # of the decode servers, from which their engines ask


def tell(running: Any, message: Any, host: str = HOST, method: str = "POST") -> tuple[int, str]:
    """What the metaserver answers to a message from an address of this machine."""
    port = running.spec.listen_port
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(host, 0))
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    client.request(method, "/v1/metaserver", text, {"Content-Type": "application/json"})
    answer = client.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        client.close()


class Pulled(Decode):
    """A decode server whose engine first says where the KV shall go, and waits for it."""

    def __init__(self, *gives_up: int, times: int = 1, host: str = HOST) -> None:
        super().__init__(*gives_up)
        self.times, self.host = times, host
        self.told: list[tuple[int, str]] = []
        self.running: Any = None

    def __call__(self, handler: Handler, seen: Seen) -> None:
        params = seen.data.get("kv_transfer_params")
        if params:
            path = params["metaserver"]
            assert path == f"http://127.0.0.1:{self.running.spec.listen_port}/v1/metaserver"
            name = seen.headers["x-request-id"]
            name = f"chatcmpl-{name}" if seen.path.startswith(CHAT) else f"cmpl-{name}-0"
            for _ in range(self.times):
                self.told.append(tell(self.running, {"request_id": name, **MESSAGE}, self.host))
            if self.told[-1][0] != 200:  # the engine waits for KV for ever
                hangs(handler, seen)
                return
        super().__call__(handler, seen)


def hangs(handler: Handler, seen: Seen) -> None:
    handler.server.backend.hung_up.clear()
    wait_until(handler.closed_by_peer, 20, 0.01)
    handler.server.backend.hung_up.set()
    handler.close_connection = True


@pytest.fixture
def pd(start, backend):
    """A proxy before a prefill server and one decode server, which behaves as given."""

    def made(behave: Any, **settings: Any) -> tuple[Any, Backend, Backend]:
        prefill = backend("prefill")
        decode = backend("decode", host=HOST, behave=behave)
        given = {"kv_params": "layerwise", **settings}
        running = start([prefill], [decode], **given)
        if isinstance(behave, Pulled):
            behave.running = running
        return running, prefill, decode

    return made


@pytest.mark.slow
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [True, False])
def test_decode_is_asked_first_and_prefill_as_its_engine_says(pd, path, stream):
    engine = Pulled()
    running, prefill, decode = pd(engine)
    sent = body(path, stream=stream, max_tokens=6, kv_transfer_params={"remote_host": "evil"})
    answer = running.post(sent, path, X_Request_Id="mine")
    assert (answer.status, said(answer)) == (200, (WHOLE, ["length"]))
    port = running.spec.listen_port
    assert decode.seen[0].data == {
        **sent,
        "return_token_ids": True,
        "kv_transfer_params": {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "metaserver": f"http://127.0.0.1:{port}/v1/metaserver",
        },
    }
    name = decode.seen[0].headers["x-request-id"]
    assert name.startswith("mine-") and prefill.seen[0].headers["x-request-id"] == name
    asked = prefill.seen[0].data
    told = asked.pop("kv_transfer_params")
    assert told.pop("request_id") in (f"cmpl-{name}-0", f"chatcmpl-{name}")
    assert told == MESSAGE
    del sent["kv_transfer_params"]
    assert asked == {**sent, "max_tokens": 1, "min_tokens": 1, "stream": False}
    assert engine.told == [(200, '{"status":"ok"}\n')]
    assert running.access(2)[1]["handover"] == "pushed"


@pytest.mark.slow
def test_many_at_once_on_several_workers_and_under_one_name(pd):
    running, prefill, _ = pd(Pulled(), worker_processes=4)

    def one(k: int) -> Any:
        sent = {**body(COMPLETIONS), "user": f"u{k}"}
        return said(running.post(sent, X_Request_Id="same"))

    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(one, range(72))) == [(WHOLE, ["length"])] * 72
    names = [seen.data["kv_transfer_params"]["request_id"] for seen in prefill.seen]
    assert len(set(names)) == len(names) == 72
    assert sorted(seen.data["user"] for seen in prefill.seen) == sorted(f"u{k}" for k in range(72))


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_prefill_reaches_the_client_and_decode_gives_up(pd, stream):
    engine = Pulled()
    running, prefill, decode = pd(engine)
    text = '{"error":{"message":"too long","code":400}}'
    prefill.behave = lambda handler, seen: handler.answer(400, text)
    answer = running.post(body(COMPLETIONS, stream=stream))
    assert (answer.status, answer.text) == (400, text)
    assert decode.hung_up.wait(5)
    assert engine.told[0][0] == 502
    prefill.behave = None
    assert said(running.post(body(COMPLETIONS, stream=stream)))[0] == WHOLE


@pytest.mark.slow
def test_a_prefill_server_that_is_gone_is_told(start, backend):
    engine = Pulled()
    decode = backend("decode", host=HOST, behave=engine)
    dead = ("127.0.0.1", free_port())
    engine.running = running = start([dead], [decode], kv_params="layerwise")
    answer = running.post(body(COMPLETIONS))
    assert (answer.status, answer.json()["error"]["type"]) == (502, "prefill_unreachable")
    assert decode.hung_up.wait(5)


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 404, 503])
def test_an_error_of_decode_reaches_the_client(pd, status):
    text = '{"error":{"message":"too long"}}'
    running, prefill, _ = pd(lambda handler, seen: handler.answer(status, text))
    answer = running.post(body(COMPLETIONS, stream=True))
    assert (answer.status, answer.text) == (status, text)
    assert prefill.seen == []


@pytest.mark.slow
def test_a_decode_server_that_asks_for_nothing_is_not_waited_for(pd):
    running, prefill, _ = pd(Decode())
    assert said(running.post(body(COMPLETIONS)))[0] == WHOLE
    assert prefill.seen == []


@pytest.mark.slow
def test_a_prompt_that_cannot_be_handed_over_is_decodes(pd):
    running, prefill, decode = pd(Pulled())
    assert running.post(body(COMPLETIONS, n=2)).status == 200
    assert "kv_transfer_params" not in decode.seen[0].data
    assert prefill.seen == []


@pytest.mark.slow
def test_an_engine_that_asks_again_gets_the_same_answer(pd):
    engine = Pulled(times=2)
    running, prefill, _ = pd(engine)
    assert said(running.post(body(COMPLETIONS)))[0] == WHOLE
    assert [status for status, _ in engine.told] == [200, 200]
    assert len(prefill.seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [True, False])
def test_what_decode_gave_up_is_gone_on_with(pd, path, stream):
    engine = Pulled(2, 1)
    running, prefill, decode = pd(engine)
    assert said(running.post(body(path, stream=stream), path)) == (WHOLE, ["length"])
    assert len(engine.told) == len(prefill.seen) == len(decode.seen) == 3
    assert len({seen.headers["x-request-id"] for seen in decode.seen}) == 3


@pytest.mark.slow
def test_prefill_that_fails_for_the_rest_ends_the_stream_with_an_error(pd):
    running, prefill, _ = pd(Pulled(2))
    usual = '{"kv_transfer_params":null}'

    def once(handler: Handler, seen: Seen) -> None:
        more = len(prefill.seen) > 1
        handler.answer(500 if more else 200, '{"error":{"message":"no"}}' if more else usual)

    prefill.behave = once
    *_, last = events(running.post(body(COMPLETIONS, stream=True)).text)
    assert last["error"]["type"] == "decode_recomputed"
    assert "prefill server answered with status 500" in last["error"]["message"]


@pytest.mark.slow
def test_the_metaserver_is_open_to_decode_servers_alone(pd):
    running, _, _ = pd(Pulled())
    message = {"request_id": "cmpl-" + "0" * 32 + "-0", **MESSAGE}
    for host in ("127.0.0.1", "127.0.0.3"):
        status, text = tell(running, message, host)
        assert (status, json.loads(text)["error"]["type"]) == (403, "forbidden")
    assert tell(running, message)[0] == 404


@pytest.mark.slow
def test_an_engine_that_asks_from_elsewhere_is_no_hang(pd):
    """It takes every answer for success, and would wait for its KV for ever."""
    engine = Pulled(host="127.0.0.3")
    running, prefill, decode = pd(engine)
    answer = running.post(body(COMPLETIONS, stream=True))
    assert (answer.status, answer.json()["error"]["type"]) == (502, "metaserver_forbidden")
    assert "127.0.0.3" in answer.json()["error"]["message"]
    assert wait_until(lambda: bool(engine.told), 20, 0.02)  # its answer may come after ours
    assert engine.told[0][0] == 403
    assert decode.hung_up.wait(5) and prefill.seen == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"request_id": "cmpl-unknown-0"}, 404),
        ({"request_id": 7}, 404),
        ({"other": "x"}, 400),
        (b"", 400),
        (b"[]", 400),
        (b'{"request_id":"\xff"}', 400),
        ({"request_id": "x", "more": "y" * (2 << 20)}, 413),
    ],
)
def test_what_is_no_message_of_a_request_is_refused(pd, message, status):
    running, _, _ = pd(Pulled())
    assert tell(running, message)[0] == status
    assert tell(running, {"request_id": "x"}, method="PUT")[0] == 405


@pytest.mark.slow
def test_a_client_that_leaves_ends_it_at_decode_and_its_name_is_forgotten(pd):
    running, prefill, decode = pd(hangs)
    client = socket.create_connection(("127.0.0.1", running.spec.listen_port))
    text = json.dumps(body(COMPLETIONS))
    client.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(text)}\r\n\r\n{text}".encode()
    )
    assert wait_until(lambda: len(decode.seen) == 1, 5, 0.01)
    name = decode.seen[0].headers["x-request-id"]
    told: list[Any] = []
    prefill.behave = hangs
    asks = threading.Thread(target=lambda: told.append(tell(running, {"request_id": name})))
    asks.start()
    assert wait_until(lambda: len(prefill.seen) == 1, 5, 0.01)
    client.close()
    assert decode.hung_up.wait(5) and prefill.hung_up.wait(5)
    asks.join(5)
    assert told[0][0] == 404
    assert tell(running, {"request_id": name})[0] == 404


def test_where_the_engines_find_the_proxy_must_be_said():
    spec = dataclasses.replace(LOCAL, settings={**SETTINGS, "kv_params": "layerwise"})
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InputError) as caught:
            proxy.files(dataclasses.replace(spec, listen_host=host), "x")
        assert "proxy.listen_host" in str(caught.value)
        made = proxy.files(dataclasses.replace(spec, listen_host=host, address="10.0.0.1"), "x")
        assert "http://10.0.0.1:7000/v1/metaserver" in made["pd_proxy.lua"]


def test_it_is_refused_where_clients_speak_tls():
    tls = {"certificate": "/c.pem", "key": "/k.pem", "ca": None, "name": None}
    settings = {**SETTINGS, "kv_params": "layerwise", "tls": tls}
    with pytest.raises(InputError) as caught:
        proxy.files(dataclasses.replace(LOCAL, settings=settings), "x")
    assert "proxy.tls.certificate" in str(caught.value)
