"""The proxy answers rightly or not at all: one hand-over is for one prompt and one answer, and
no two requests have one name, by which engines know whose KV is whose.

The servers here record what they get; test_same_as_colocated.py asks real engines.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hostkit.base.health import wait_until

# Real processes, seconds together.
pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
EVIL = {"do_remote_prefill": True, "remote_host": "evil", "remote_block_ids": [0]}

ALONE: list[dict[str, Any]] = [
    {"prompt": "x"},
    {"prompt": ["x"]},
    {"prompt": [1, 2, 3]},
    {"prompt": [[1, 2, 3]]},
    {"prompt": ['["a", "b"]']},
    {"prompt": "x", "n": 1, "best_of": None, "echo": True, "logprobs": None},
    {"prompt": "x", "echo": False, "logprobs": 2, "prompt_logprobs": None},
]
NOT_ALONE: list[dict[str, Any]] = [
    {"prompt": ["x", "y"]},
    {"prompt": ["x", "x", "x"]},
    {"prompt": [[1, 2], [3]]},
    {"prompt": [[1, 2], [1, 2]]},
    {"prompt": "x", "n": 2},
    {"prompt": "x", "n": "2"},
    {"prompt": "x", "n": 2.0},
    {"prompt": "x", "best_of": 3},
    {"prompt": "x", "use_beam_search": True},
    {"prompt": "x", "prompt_logprobs": 0},
    {"prompt": "x", "echo": True, "logprobs": 0},
    {"prompt_embeds": ["a", "b"]},
]


@pytest.fixture
def pd(start, backend):
    """One prefill server, one decode server, and the proxy before them."""
    prefill, decode = backend("prefill"), backend("decode")
    return start([prefill], [decode]), prefill, decode


@pytest.mark.parametrize("body", ALONE, ids=str)
def test_one_prompt_is_handed_over(pd, body: dict[str, Any]) -> None:
    running, prefill, decode = pd
    assert running.post(body).status == 200
    assert len(prefill.seen) == 1
    assert decode.seen[0].data["kv_transfer_params"]["remote_engine_id"] == "e-1"


@pytest.mark.parametrize("body", NOT_ALONE, ids=str)
def test_what_one_hand_over_does_not_fit_is_computed_by_decode(pd, body: dict[str, Any]) -> None:
    running, prefill, decode = pd
    assert running.post(body).status == 200
    assert prefill.seen == []  # whose KV nobody would fetch
    assert decode.seen[0].data == body
    assert running.access(1)[0]["handover"] == "not asked for"


def test_several_answers_of_a_chat_are_computed_by_decode(pd) -> None:
    running, prefill, decode = pd
    body = {"messages": [{"role": "user", "content": "x"}], "n": 2}
    assert running.post(body, CHAT).status == 200
    assert prefill.seen == [] and decode.seen[0].data == body


def test_of_equal_keys_the_last_one_counts(pd) -> None:
    """As in Python's reader, pydantic's and every other that the engines use."""
    running, prefill, _ = pd
    several, one = b'{"prompt":"a","prompt":["b","c"]}', b'{"prompt":["b","c"],"prompt":"a"}'
    for body in (several, one):
        assert running.raw(body).status == 200
    assert [seen.data["prompt"] for seen in prefill.seen] == ["a"]


@pytest.mark.parametrize("body", [*ALONE, *NOT_ALONE], ids=str)
@pytest.mark.parametrize("hand_over", ['{"remote_engine_id":"e-2"}', "null"])
def test_a_client_s_own_kv_transfer_params_reach_no_server(
    start, backend, body: dict[str, Any], hand_over: str
) -> None:
    prefill, decode = backend("prefill", hand_over=hand_over), backend("decode")
    running = start([prefill], [decode])
    assert running.post({"kv_transfer_params": EVIL, **body}).status == 200
    for seen in (*prefill.seen, *decode.seen):
        assert b"evil" not in seen.body


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("disaggregated", [True, False])
def test_two_requests_at_once_never_have_one_name(
    start, backend, workers: int, disaggregated: bool
) -> None:
    """vLLM 0.9.0 gives the KV of the one to the other, or refuses the second."""
    prefill, decode = backend("prefill"), backend("decode")
    running = start([prefill] if disaggregated else [], [decode], worker_processes=workers)
    body = {"prompt": "x", "stream": True}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(running.post, body, X_Request_Id="mine") for _ in range(4)]
        assert wait_until(lambda: len(decode.seen) == 4, 10, 0.01)
        decode.go_on.set()
        told = sorted(one.result().headers["x-request-id"] for one in asked)
    seen = sorted(one.headers["x-request-id"] for one in decode.seen)
    assert seen == told and len(set(seen)) == 4 and "mine" in seen
    assert all(name == "mine" or name.startswith("mine-") for name in seen)
    if disaggregated:
        assert sorted(one.headers["x-request-id"] for one in prefill.seen) == seen
    assert sorted(line["request_id"] for line in running.access(4)) == seen

    def is_free() -> bool:
        return running.post({"prompt": "x"}, X_Request_Id="mine").headers["x-request-id"] == "mine"

    assert wait_until(is_free, 10, 0.01)
