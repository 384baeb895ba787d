"""Who is in the pool: sick servers leave it at once, and come back after a real answer."""

from __future__ import annotations

import time
from typing import Any, Callable

import pytest
from proxy_backend import Backend, Handler, Seen

from hostkit.base.health import wait_until

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def never(handler: Handler, seen: Seen) -> None:
    """As a stopped process: connections are taken, nothing is said."""
    handler.server.backend.go_on.wait(30)
    handler.close_connection = True


def status(number: int) -> Callable[[Handler, Seen], None]:
    return lambda handler, seen: handler.answer(number, '{"error":{"message":"no"}}')


def no_http(handler: Handler, seen: Seen) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


def real(backend: Backend) -> list[Seen]:
    """The proxy's own requests for an answer of the model."""
    return [one for one in backend.probes if one.method == "POST"]


def name(backend: Backend) -> str:
    return ":".join(map(str, backend.address))


def says(running: Any, backend: Backend, words: str) -> bool:
    return wait_until(
        lambda: f"{backend.role} server {name(backend)} {words}" in running.log("error.log"),
        20,
        0.02,
    )


@pytest.fixture
def pd(start, backend):
    """A proxy before two servers of each role, asked in turn."""
    servers = {role: [backend(role), backend(role)] for role in ("prefill", "decode")}
    turns = {"prefill_balance": "round_robin", "decode_balance": "round_robin"}
    return start(*servers.values(), fail_timeout="4s", probe_timeout="2s", **turns), servers


@pytest.mark.parametrize(
    ("role", "sick"), [("prefill", never), ("decode", status(503)), ("decode", no_http)]
)
def test_a_sick_server_leaves_the_pool_and_is_back_after_a_real_answer(pd, role, sick):
    running, servers = pd
    bad, good = servers[role]
    bad.health = sick
    assert says(running, bad, "leaves the pool")
    assert [running.post({"prompt": "x"}).status for _ in range(6)] == [200] * 6
    assert (len(bad.seen), len(good.seen)) == (0, 6)
    assert real(bad) == []
    bad.go_on.set()
    bad.health = None
    assert says(running, bad, "is back in the pool")
    assert real(bad)[-1].data["max_tokens"] == 1
    assert [running.post({"prompt": "x"}).status for _ in range(4)] == [200] * 4
    assert len(bad.seen) == 2


@pytest.mark.parametrize("nonsense", [status(500), lambda h, s: h.answer(200, "<html>")])
def test_a_lying_health_does_not_bring_a_server_back(pd, nonsense):
    """It has to answer a real request; each time that it cannot, it is out for longer."""
    running, servers = pd
    bad, good = servers["decode"]
    asked: list[float] = []

    def behave(handler: Handler, seen: Seen) -> None:
        asked.append(time.monotonic())
        nonsense(handler, seen)

    bad.behave = behave
    bad.health = status(500)
    assert says(running, bad, "leaves the pool")
    bad.health = None
    assert wait_until(lambda: len(asked) >= 2, 20, 0.02)
    assert asked[1] - asked[0] > 1.5  # 1 s before the first, 2 s before this one
    assert [running.post({"prompt": "x"}).status for _ in range(4)] == [200] * 4
    assert (len(bad.seen), len(good.seen)) == (0, 4)
    bad.behave = None
    assert says(running, bad, "is back in the pool")


def test_a_server_that_answers_no_prompt_alone_is_back_with_its_health(start, backend):
    bad = backend("decode")
    running = start([backend("prefill")], [bad, backend("decode")], comeback="health")
    bad.health = status(503)
    assert says(running, bad, "leaves the pool")
    bad.health = None
    assert says(running, bad, "is back in the pool")
    assert real(bad) == []


def markup(handler, seen) -> None:
    handler.answer(200, "<html>")


def cut(handler, seen) -> None:
    """The head is well, the body breaks off."""
    handler.send_response(200)
    handler.send_header("Content-Length", "4000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (status(500), "it answers with 500"),
        (markup, "what it answers is no JSON"),
        (cut, "it ended a connection"),
    ],
    ids=["500", "markup", "cut"],
)
def test_failures_in_a_row_take_a_server_out_though_its_health_is_good(pd, role, behave, why):
    """A head that is well is no success."""
    running, servers = pd
    bad = servers[role][0]
    bad.behave = behave
    for _ in range(8):
        assert running.post({"prompt": "x"}).status in (200, 500, 502)
    assert says(running, bad, f"leaves the pool: {why}")
    before = len(bad.seen)
    assert [running.post({"prompt": "x"}).status for _ in range(4)] == [200] * 4
    assert len(bad.seen) == before


def test_when_all_are_sick_they_are_asked_all_the_same(pd):
    running, servers = pd
    for one in servers["decode"]:
        one.health = status(503)
        assert says(running, one, "leaves the pool")
    assert [running.post({"prompt": "x"}).status for _ in range(4)] == [200] * 4


def test_a_reload_does_not_bring_a_sick_server_back(pd):
    from hostkit.base import run
    from omnikit import proxy

    running, servers = pd
    bad = servers["decode"][0]
    bad.health = status(503)
    assert says(running, bad, "leaves the pool")
    run.run(proxy.reload_command(running.spec))
    assert [running.post({"prompt": "x"}).status for _ in range(6)] == [200] * 6
    assert bad.seen == []
