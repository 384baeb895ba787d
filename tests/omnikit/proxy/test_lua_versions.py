"""Servers of two versions behind one proxy: a prefill and a decode of two are never paired."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from proxy_backend import Backend, Handler, Seen

from hostkit.base import run
from hostkit.base.health import wait_until
from hostkit.nodes import proxy_run
from omnikit import proxy

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def name(backend: Backend) -> str:
    return ":".join(map(str, backend.address))


def give(running: Any, words: dict[str, list[Backend]]) -> None:
    """Have the running proxy know the versions of its servers; it has taken them over then."""
    conf = Path(running.spec.run_dir) / "nginx.conf"
    known = {name(one): word for word, servers in words.items() for one in servers}
    conf.write_text(proxy_run.with_versions(conf.read_text(), known))
    old = workers(running)
    run.run(proxy.reload_command(running.spec))
    assert wait_until(lambda: bool(workers(running) - old), 10, 0.02)
    assert wait_until(lambda: all(proxy_run.is_leaving(pid) for pid in old), 10, 0.02)


def workers(running: Any) -> set[int]:
    pid = running.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.fixture
def pd(start, backend):
    """Two servers of each role; what a prefill server hands over says which one it is."""
    prefill = [backend("prefill", hand_over=json.dumps({"of": i})) for i in range(2)]
    decode = [backend("decode") for _ in range(2)]
    turns = {"prefill_balance": "round_robin", "decode_balance": "round_robin"}
    return start(prefill, decode, **turns), prefill, decode


def pairs(decode: list[Backend]) -> set[tuple[int, int]]:
    return {
        (seen.data["kv_transfer_params"]["of"], i)
        for i, one in enumerate(decode)
        for seen in one.seen
    }


def test_without_versions_any_two_are_paired(pd):
    running, _, decode = pd
    for _ in range(2):
        running.post({"prompt": "x"})
    decode[0].close()
    for _ in range(4):
        assert running.post({"prompt": "x"}).status == 200
    assert {(0, 1), (1, 1)} <= pairs(decode)
    assert running.access(1)[0]["versions"] == ""


def test_pairs_are_of_one_version(pd):
    running, prefill, decode = pd
    give(running, {"v1": [prefill[0], decode[1]], "v2": [prefill[1], decode[0]]})
    assert [running.post({"prompt": "x"}).status for _ in range(8)] == [200] * 8
    assert pairs(decode) == {(0, 1), (1, 0)}
    told = {one["versions"] for one in running.access(8)}
    assert told == {"v1, v1", "v2, v2"}


def test_a_version_that_decode_does_not_have_is_not_asked(pd):
    running, prefill, decode = pd
    give(running, {"v1": [prefill[0], *decode], "v2": [prefill[1]]})
    assert [running.post({"prompt": "x"}).status for _ in range(6)] == [200] * 6
    assert prefill[1].seen == []
    # What needs no hand-over needs no partner.
    give(running, {"v2": [decode[0]], "v1": [prefill[1]]})
    before = [len(one.seen) for one in decode]
    assert [running.post({"prompt": "x", "n": 2}).status for _ in range(4)] == [200] * 4
    assert [len(one.seen) - old for one, old in zip(decode, before)] == [2, 2]


def test_a_version_whose_decode_is_out_of_the_pool_waits(pd):
    running, prefill, decode = pd
    give(running, {"v1": [prefill[0], decode[0]], "v2": [prefill[1], decode[1]]})
    decode[1].health = lambda handler, seen: handler.answer(503, "")
    assert wait_until(
        lambda: f"{name(decode[1])} leaves the pool" in running.log("error.log"), 10, 0.02
    )
    assert [running.post({"prompt": "x"}).status for _ in range(6)] == [200] * 6
    assert prefill[1].seen == decode[1].seen == []


def test_what_prefill_began_before_a_change_is_not_ended_by_another_version(start, backend):
    """An old worker still has the request; its list says that decode is of the old version."""
    decode, asked = backend("decode"), []

    def slow(handler: Handler, seen: Seen) -> None:
        asked.append(seen)
        prefill.go_on.wait(20)
        handler.answer(200, '{"kv_transfer_params":{"of":0}}')

    prefill = backend("prefill", behave=slow)
    running = start([prefill], [decode])
    answers: list[Any] = []
    client = threading.Thread(target=lambda: answers.append(running.post({"prompt": "x"})))
    client.start()
    assert wait_until(lambda: bool(asked), 10, 0.01)
    give(running, {"v2": [decode]})
    prefill.go_on.set()
    client.join(20)
    assert [one.status for one in answers] == [502]
    assert decode.seen == []
