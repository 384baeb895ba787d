"""Who gets a request: who has the least work, or the beginning of the prompt."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator

import pytest
from proxy_backend import Backend, Handler, Seen

from hostkit.base.health import wait_until

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def holds(handler: Handler, seen: Seen) -> None:
    handler.server.backend.go_on.wait(30)
    handler.answer(200, '{"kv_transfer_params":{},"choices":[{"text":"x"}]}')


@pytest.fixture
def held(start, backend) -> Iterator[Callable[..., Any]]:
    """A proxy before servers that keep what they get, and how to send them something."""
    pools: list[ThreadPoolExecutor] = []
    servers: list[Backend] = []

    def made(role: str, count: int, **settings: Any) -> Any:
        servers.extend(backend(role, behave=holds) for _ in range(count))
        other = [backend("decode" if role == "prefill" else "prefill")]
        sides = (servers, other) if role == "prefill" else (other, servers)
        running = start(*sides, **settings)
        pools.append(ThreadPoolExecutor(40))

        def send(prompt: str) -> None:
            before = sum(len(one.seen) for one in servers)
            pools[0].submit(running.post, {"prompt": prompt})
            assert wait_until(lambda: sum(len(one.seen) for one in servers) > before, 20, 0.01)

        return running, servers, send

    yield made
    for one in servers:
        one.go_on.set()
    for pool in pools:
        pool.shutdown()


@pytest.mark.parametrize(("role", "short"), [("prefill", 5), ("decode", 3)])
def test_a_long_prompt_is_as_much_work_as_many_short_ones(held, role, short):
    balance = {f"{role}_balance": "least_work"}
    _, servers, send = held(role, 2, **balance)
    send("x" * 100_000)
    for _ in range(short):
        send("y" * 100)
    assert sorted(len(one.seen) for one in servers) == [1, short]


def test_work_that_is_done_is_forgotten(held):
    running, servers, send = held("decode", 2, decode_balance="least_work")
    send("x" * 100_000)
    for one in servers:
        one.go_on.set()
    assert wait_until(lambda: len(running.access(1)) == 1, 10, 0.02)
    for one in servers:
        one.behave = None
    assert [running.post({"prompt": "y"}).status for _ in range(8)] == [200] * 8
    assert sorted(len(one.seen) for one in servers) in ([4, 5], [5, 4])


def share_of_known(start, backend, balance: str) -> float:
    """Of the prompts of conversations, the share that the server that got them had had before."""
    prefill = [backend("prefill") for _ in range(3)]
    running = start(prefill, [backend("decode")], prefill_balance=balance)
    chance = random.Random(5)
    told = [[f"You are helper {i}. {chance.random()}" * 20] for i in range(9)]
    turns = [talk for talk in told for _ in range(5)]
    chance.shuffle(turns)
    whole = known = 0
    had: dict[int, list[str]] = {i: [] for i in range(3)}
    for talk in turns:
        talk.append(f"{chance.random()} " * 30)
        counts = [len(one.seen) for one in prefill]
        assert running.post({"prompt": "".join(talk)}).status == 200
        [who] = [i for i, one in enumerate(prefill) if len(one.seen) > counts[i]]
        prompt = "".join(talk)
        whole += len(prompt)
        known += max((len(os.path.commonprefix([prompt, one])) for one in had[who]), default=0)
        had[who].append(prompt)
    return known / whole


@pytest.mark.parametrize(
    ("balance", "least", "most"), [("prefix", 0.65, 1), ("least_work", 0, 0.55)]
)
def test_the_beginnings_of_prompts_are_found_where_they_were_computed(
    start, backend, balance: str, least: float, most: float
) -> None:
    """The gain: 71 % of all prompts instead of 41 %."""
    assert least <= share_of_known(start, backend, balance) <= most


def test_the_same_beginning_does_not_overload_a_server(held):
    _, servers, send = held("prefill", 3, prefill_balance="prefix")
    for i in range(18):
        send("You are a helpful assistant." * 20 + str(i))
    counts = sorted(len(one.seen) for one in servers)
    assert counts[-1] <= 9 and counts[0] >= 4  # 1.25 of the average of 6, and one


def test_a_server_that_is_out_has_a_successor(start, backend):
    prefill = [backend("prefill") for _ in range(2)]
    running = start(prefill, [backend("decode")], prefill_balance="prefix")
    prompt = "You are a helpful assistant." * 40
    for i in range(6):
        assert running.post({"prompt": f"{prompt}{i}"}).status == 200
    home, other = sorted(prefill, key=lambda one: -len(one.seen))
    assert (len(home.seen), len(other.seen)) == (6, 0)
    home.close()
    for i in range(6):
        assert running.post({"prompt": f"{prompt}{i}"}).status == 200
    assert len(other.seen) == 6
