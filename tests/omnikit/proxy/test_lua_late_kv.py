"""An answer that may have been computed with another prompt's KV does not reach the client.

Prefill gives KV up that is not fetched in time; a decode engine that stood still fetches what is
there by then, and does not notice. Prefill counts both.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Optional

import pytest
from docker_host import wait_for
from proxy_backend import Backend, Handler, Seen

# Real processes, seconds together.
pytestmark = pytest.mark.slow

SETTINGS = {
    "kv_expired_metric": "nixl:expired_total",
    "kv_late_metric": "nixl:late_total",
    "running_metric": "vllm:running",
    "kv_safe": "1s",
}


def counts(expired: int, late: int, running: int = 1) -> str:
    return (
        f'# HELP nixl:expired_total that\nnixl:expired_total{{engine="0"}} {expired}.0\n'
        f'nixl:late_total{{engine="0"}} {late}.0\nvllm:running{{engine="0"}} {running}.0\n'
    )


BEFORE = counts(3, 1)
ANSWER = '{"choices":[{"text":"answer %d"}]}'


class StandsStill:
    """A decode server that answers after kv_safe, as often as there is something that prefill
    counts by then, and after that at once.
    """

    def __init__(self, prefill: Backend, *then: Optional[str]) -> None:
        self.prefill, self.then, self.asked = prefill, list(then), 0

    def __call__(self, handler: Handler, seen: Seen) -> None:
        self.asked += 1
        if self.then:
            threading.Event().wait(1.3)  # it stands still: nothing tells that it goes on
            self.prefill.metrics = self.then.pop(0) or self.prefill.metrics
        text = ANSWER % self.asked
        if json.loads(seen.body).get("stream"):
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.chunk(f"data: {text}\n\ndata: [DONE]\n\n")
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.answer(200, text)


@pytest.fixture
def late(start, backend):
    def made(*then: Optional[str], **settings: Any) -> tuple[Any, StandsStill]:
        prefill, decode = backend("prefill", metrics=BEFORE), backend("decode")
        decode.behave = StandsStill(prefill, *then)
        running = start([prefill], [decode], **{**SETTINGS, **settings})
        looked = [one.path for one in prefill.probes]
        wait_for(lambda: "/metrics" in [one.path for one in prefill.probes], f"a look: {looked}")
        return running, decode.behave

    return made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("then", "whole", "begins"),
    [
        (None, 1, 1),  # a slow one
        (counts(3, 2), 2, 2),  # fetched after it was given up
        (counts(4, 2), 2, 2),
        (counts(4, 1), 1, 2),  # given up, and not fetched: of whom nobody knows, but when
        (counts(4, 1, running=0), 2, 2),  # prefill stands still too, and does not count
        (counts(0, 0), 2, 2),  # prefill was started again
        ("other_total 7\n", 1, 1),  # it does not say
    ],
)
def test_what_may_be_wrong_is_done_again(late, stream, then, whole, begins):
    running, decode = late(then)
    answer = running.post({"prompt": "x", "stream": stream})
    wanted = begins if stream else whole
    assert answer.status == 200 and f"answer {wanted}" in answer.text
    assert decode.asked == wanted and answer.text.count("answer") == 1
    assert ("the answer may be wrong" in running.log("error.log")) == (wanted == 2)


def test_what_is_fast_is_not_looked_at(late):
    running, decode = late()
    assert "answer 1" in running.post({"prompt": "x"}).text
    assert decode.asked == 1


@pytest.mark.parametrize("stream", [False, True])
def test_when_it_is_always_so_there_is_an_error_and_no_answer(late, stream):
    running, decode = late(*(counts(3, 2 + n) for n in range(9)), retries=2)
    answer = running.post({"prompt": "x", "stream": stream})
    assert "answer" not in answer.text.replace("the answer may be", "").replace("the answer is", "")
    assert "kv_given_up" in answer.text and decode.asked == 3
    assert answer.status == (200 if stream else 502)
