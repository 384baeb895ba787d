"""What becomes of requests at a server that dies, hangs or answers nonsense: a real nginx.

Nothing was sent to the client: it is done again elsewhere. A stream has begun: it ends with an
error event, never as if it were whole.
"""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from proxy_backend import Backend, Handler, Seen

# Real processes, seconds together.
pytestmark = pytest.mark.slow

FIRST = '{"choices":[{"text":"one"}]}'


def dies(handler: Handler, seen: Seen) -> None:
    """As a killed process: nobody listens any longer, all connections end."""
    handler.server.socket.close()
    handler.cut()


def hangs(handler: Handler, seen: Seen) -> None:
    """As a stopped process, whose /health gives no answer either."""
    backend = handler.server.backend
    backend.health = stopped
    stopped(handler, seen)


def stopped(handler: Handler, seen: Seen) -> None:
    handler.server.backend.go_on.wait(30)
    handler.close_connection = True


def engine_hangs(handler: Handler, seen: Seen) -> None:
    """As vLLM's API server when its engine stands still: /health knows nothing of it."""
    handler.server.backend.metrics = 'steps_total{engine="0"} 7.0\n'
    stopped(handler, seen)


def engine_dead(handler: Handler, seen: Seen) -> None:
    """As vLLM's API server when its engine has ended."""
    handler.server.backend.health = lambda other, _: other.answer(503, "")
    handler.answer(500, '{"error":{"message":"EngineCore encountered an issue."}}')


def dies_in_the_answer(handler: Handler, seen: Seen) -> None:
    begin(handler, "application/json", 200)
    dies(handler, seen)


def html(handler: Handler, seen: Seen) -> None:
    handler.answer(200, "<html>oh</html>", "text/html")


def empty(handler: Handler, seen: Seen) -> None:
    handler.answer(200, "")


def half_json(handler: Handler, seen: Seen) -> None:
    handler.answer(200, '{"choices":[{"te')


def wrong_status(handler: Handler, seen: Seen) -> None:
    handler.answer(500, "oh")


def no_http(handler: Handler, seen: Seen) -> None:
    handler.server.socket.close()
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


def begin(handler: Handler, kind: str = "text/event-stream", length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    if length is None:
        handler.send_header("Transfer-Encoding", "chunked")
    else:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def end(handler: Handler) -> None:
    handler.wfile.write(b"0\r\n\r\n")


FAULTS = [
    dies,
    hangs,
    engine_hangs,
    engine_dead,
    dies_in_the_answer,
    html,
    empty,
    half_json,
    wrong_status,
    no_http,
]


@pytest.fixture
def pd(start, backend):
    """A proxy before two servers of each role, of which the first in turn is the bad one."""

    def made(role: str, fault: Any, **settings: Any) -> tuple[Any, Backend, Backend, Any]:
        servers = {one: [backend(one), backend(one)] for one in ("prefill", "decode")}
        for each in servers["decode"]:
            each.go_on.set()  # streams end by themselves
        turns = {"prefill_balance": "round_robin", "decode_balance": "round_robin"}
        if "engine_hangs" in fault.__name__:
            settings.update(stall="1s", stall_metric="steps_total")
        elif "hangs" in fault.__name__:
            settings.update(silence="1s", probe_timeout="1s")
        running = start(*servers.values(), max_fails=0, **turns, **settings)
        bad, good = servers[role]
        bad.go_on.clear()
        bad.behave = fault
        return running, bad, good, servers

    return made


def until_asked(running: Any, bad: Backend, **body: Any) -> Any:
    """The answer to the request that the bad server got: it is asked in turn."""
    for _ in range(3):
        answer = running.post({"prompt": "x", **body})
        if bad.seen:
            return answer
        assert answer.status == 200
    raise AssertionError("it was never asked")


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_has_sent_nothing_is_done_again_elsewhere(pd, role, fault):
    running, bad, good, servers = pd(role, fault)
    answer = until_asked(running, bad)
    assert (answer.status, answer.json()["choices"][0]["text"]) == (200, "from decode")
    assert len(bad.seen) == 1
    # Each try has a name of its own: a server may still hold what it had under the first.
    names = {one.headers["x-request-id"] for one in (bad.seen[0], good.seen[-1])}
    assert len(names) == 2
    again = servers["prefill"][0].seen + servers["prefill"][1].seen
    assert len([one for one in again if one.headers["x-request-id"] in names]) == 2


@pytest.mark.parametrize(
    ("role", "more"),
    [
        ("prefill", {"stream": True}),
        ("decode", {"stream": True}),
        ("decode", {"prompt": ["a", "b"]}),  # for which prefill is not asked
        ("decode", {"seed": 1, "temperature": 1}),
    ],
)
def test_whatever_its_shape(pd, role, more):
    running, bad, _, _ = pd(role, dies)
    answer = until_asked(running, bad, **more)
    assert answer.status == 200
    assert answer.text.endswith("data: [DONE]\n\n") == bool(more.get("stream"))
    assert answer.text.count("data: [DONE]") <= 1


def test_a_stream_that_has_said_nothing_yet_is_done_again(pd):
    def head_alone(handler: Handler, seen: Seen) -> None:
        begin(handler)
        handler.chunk('data: {"choices":[{"te')
        dies(handler, seen)

    running, bad, _, _ = pd("decode", head_alone)
    answer = until_asked(running, bad, stream=True)
    assert answer.text == f"data: {FIRST}\n\ndata: [DONE]\n\n"


def broken(then: Any) -> Any:
    def behave(handler: Handler, seen: Seen) -> None:
        begin(handler)
        handler.chunk(f"data: {FIRST}\n\n")
        then(handler, seen)

    behave.__name__ = f"broken_{then.__name__}"
    return behave


def half_event(handler: Handler, seen: Seen) -> None:
    handler.chunk('data: {"choices":[{"te')
    dies(handler, seen)


def ends_early(handler: Handler, seen: Seen) -> None:
    end(handler)


def own_error(handler: Handler, seen: Seen) -> None:
    """As vLLM says it: an error, and then as if it were whole."""
    handler.chunk('data: {"error":{"message":"engine","code":500}}\n\ndata: [DONE]\n\n')
    end(handler)


def cut(handler: Handler, seen: Seen) -> None:
    handler.cut()


@pytest.mark.parametrize(
    "then", [dies, hangs, engine_hangs, cut, half_event, ends_early, own_error]
)
def test_a_stream_that_has_begun_ends_with_an_error_event(pd, then):
    running, bad, good, _ = pd("decode", broken(then))
    answer = until_asked(running, bad, stream=True)
    first, last, nothing = answer.text.split("\n\n")
    assert (answer.status, first, nothing) == (200, f"data: {FIRST}", "")
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] in (500, 502)
    assert bad.seen[0].headers["x-request-id"] not in [
        one.headers["x-request-id"] for one in good.seen
    ]


def test_openais_client_hears_of_it(pd):
    running, bad, _, _ = pd("decode", broken(dies))
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="k", max_retries=0)

    def read() -> None:
        for _ in range(3):
            for _ in client.completions.create(model="m", prompt="x", stream=True):
                pass

    with client, pytest.raises(openai.APIError, match="not whole"):
        read()
    assert len(bad.seen) == 1


@pytest.mark.parametrize("fault", [dies, broken(dies)])
def test_of_a_balancer_too(start, backend, fault):
    servers = [backend("decode", behave=fault), backend("decode")]
    servers[1].go_on.set()
    running = start([], servers, decode_balance="round_robin")
    text = until_asked(running, servers[0], stream=True).text
    begun = fault is not dies
    assert text.startswith(f"data: {FIRST}\n\n")
    assert text.endswith("data: [DONE]\n\n") == (not begun)
    assert ('"error"' in text) == begun


def test_where_nobody_is_left_the_client_hears_the_first_reason(start, backend):
    running = start([backend("prefill", behave=dies)], [backend("decode")])
    answer = running.post({"prompt": "x"})
    assert (answer.status, answer.json()["error"]["type"]) == (502, "prefill_lost")


def test_no_retries_no_second_try(pd):
    running, bad, _, _ = pd("decode", dies, retries=0)
    answer = until_asked(running, bad)
    assert (answer.status, answer.json()["error"]["type"]) == (502, "decode_lost")
    assert "x-should-retry" not in answer.headers
