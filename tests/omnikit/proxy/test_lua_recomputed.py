"""Decode servers that end a request as "recomputed", and what clients see of it: real nginx."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from ascend_decode import CHAT, COMPLETIONS, WHOLE, WORDS, Decode, body, events, said
from proxy_backend import Backend, Handler, Seen

from hostkit.base.health import request

# Real processes, seconds together.
pytestmark = pytest.mark.slow


@pytest.fixture
def pd(start, backend):
    """A proxy before one prefill server and decode servers that behave as given."""

    def made(*behave: Any, **settings: Any) -> tuple[Any, Backend, list[Backend]]:
        prefill = backend("prefill")
        decode = [backend("decode", behave=one) for one in behave]
        given = {"kv_params": "mooncake", **settings}
        return start([prefill], decode, **given), prefill, decode

    return made


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("gives_up", [(), (2,), (1, 2, 1), (0,), (0, 2), (3,)])
def test_the_client_gets_one_whole_answer(pd, path, stream, gives_up):
    running, prefill, (decode,) = pd(Decode(*gives_up))
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    answer = running.post(body(path, stream=stream, **usage), path)
    assert answer.status == 200
    assert said(answer) == (WHOLE, ["length"])
    assert "recomputed" not in answer.text
    whole = events(answer.text) if stream else [answer.json()]
    if stream:
        assert whole.pop() == "[DONE]"
    assert len({(one["id"], one["object"], one["created"], one["model"]) for one in whole}) == 1
    count = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    assert whole[-1]["usage"] == {**count, "prompt_tokens_details": None}
    assert len(decode.seen) == len(prefill.seen) == len(gives_up) + 1


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_an_answer_that_is_whole_is_what_the_server_said(pd, path):
    """But for tokens that the client did not ask for; nothing of the kind elsewhere changes."""
    running, _, (decode,) = pd(Decode())
    for stream in (True, False):
        text = running.post(body(path, stream=stream), path, X_Request_Id="one").text
        decode.behave, ours = Decode(), decode.seen[-1]
        assert ours.data["return_token_ids"] is True
        ours.data.pop("return_token_ids")
        plain = pd_plain(decode, ours)
        assert events(text) == events(plain) if stream else json.loads(text) == json.loads(plain)


def pd_plain(decode: Backend, seen: Seen) -> str:
    """What the server says to the same request when nobody asks for tokens."""
    sent = {k: v for k, v in seen.data.items() if k != "return_token_ids"}
    url = f"http://127.0.0.1:{decode.address[1]}{seen.path}"
    return request(url, body=sent, timeout_s=9, headers={"X-Request-Id": "one"}).text


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_the_rest_is_asked_for_with_the_tokens_themselves(pd, path):
    running, prefill, (decode,) = pd(Decode(3))
    more = {"temperature": 0.5, "min_tokens": 4, "logit_bias": {"1": 2.0}, "user": "u"}
    limit = {"max_completion_tokens": 6, "max_tokens": 9} if path == CHAT else {}
    running.post(body(path, **limit, **more), path, X_Request_Id="mine")
    (_, second), (_, pre) = decode.seen, prefill.seen
    assert second.path == pre.path == COMPLETIONS
    hand_over = json.loads(prefill.hand_over)
    given = second.data
    assert given.pop("kv_transfer_params") == hand_over
    assert given.pop("return_token_ids") is True
    # Of three tokens the last had no text yet when a whole answer ended: they all count.
    assert given == {"model": "m", "prompt": [5, 6, 7, 11, 12, 13], "max_tokens": 3, **more} | {
        "min_tokens": 1
    }
    assert (pre.data["prompt"], pre.data["max_tokens"]) == (given["prompt"], 1)
    assert second.headers["x-request-id"] == pre.headers["x-request-id"] == "mine-2"


def test_a_token_without_text_is_made_anew(pd):
    """Half a character: what reads the rest could not put it together."""
    running, _, (decode,) = pd(Decode(3))
    running.post(body(COMPLETIONS, stream=True))
    assert decode.seen[1].data["prompt"] == [5, 6, 7, 11, 12]
    assert decode.seen[1].data["max_tokens"] == 4


def test_usage_within_a_stream_counts_on(pd):
    running, _, _ = pd(Decode(2))
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = running.post(body(COMPLETIONS, stream=True, stream_options=options))
    counts = [one["usage"] for one in events(answer.text) if one != "[DONE]"]
    assert [one["completion_tokens"] for one in counts] == [1, 2, 3, 4, 5, 6, 6]
    assert {one["prompt_tokens"] for one in counts} == {3}


def test_limits_that_the_client_did_not_name(pd):
    """16 tokens for a completion, all that there is room for with chat."""
    running, _, (decode,) = pd(Decode(2))
    running.post({"model": "m", "prompt": "a"})
    assert decode.seen[1].data["max_tokens"] == 14
    decode.behave = Decode(2)
    running.post(body(CHAT), CHAT)
    assert decode.seen[3].data["max_tokens"] is None


CANNOT = [
    (COMPLETIONS, {"n": 2}, "with n"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "with prompt"),
    (COMPLETIONS, {"stop": ["x"]}, "with stop"),
    (COMPLETIONS, {"logprobs": 1}, "with logprobs"),
    (COMPLETIONS, {"seed": 0}, "with seed"),
    (COMPLETIONS, {"return_token_ids": True}, "with return_token_ids"),
    (COMPLETIONS, {"unheard_of": 1}, "with unheard_of"),
    (CHAT, {"tools": [{"type": "function"}]}, "with tools"),
    (CHAT, {"frequency_penalty": 0.5}, "with frequency_penalty"),
    (CHAT, {"response_format": {"type": "json_object"}}, "with response_format"),
    (CHAT, {"messages": [{"role": "user", "content": [{"image_url": "x"}]}]}, "image_url"),
    (CHAT, {"messages": [{"role": "user", "content": [{"image\\u005furl": "x"}]}]}, "image"),
]


@pytest.mark.parametrize(("path", "more", "why"), CANNOT)
@pytest.mark.parametrize("stream", [True, False])
def test_what_cannot_be_gone_on_with_is_an_error(pd, path, more, why, stream):
    running, _, (decode,) = pd(Decode(2))
    answer = running.post(body(path, stream=stream, **more), path)
    is_broken_off(answer, stream, why)
    assert len(decode.seen) == 1


def is_broken_off(answer: Any, stream: bool, why: str) -> None:
    if stream:
        *before, last = events(answer.text)
        assert [one for one in before if "error" in one or one == "[DONE]"] == []
        assert said(answer)[1] == []
    else:
        assert answer.status == 502
        last = answer.json()
    assert (last["error"]["code"], last["error"]["type"]) == (502, "decode_recomputed")
    assert why in last["error"]["message"]
    assert '"recomputed"' not in answer.text


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("tells", "asked"), [([False], 1), ([True, False], 2)])
def test_without_the_tokens_nothing_is_said_twice(pd, path, stream, tells, asked):
    """Older engines, and others, do not know return_token_ids."""
    running, _, (decode,) = pd(Decode(2, 2, tells=tells))
    answer = running.post(body(path, stream=stream), path)
    is_broken_off(answer, stream, "did not tell its tokens")
    assert len(decode.seen) == asked
    if stream:
        assert said(answer)[0] == "".join(word for _, word in WORDS[: 2 * asked])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        {"n": 1, "echo": False, "stop": [], "logprobs": None, "presence_penalty": 0.0},
        {"seed": 7, "temperature": 0},
        {"response_format": {"type": "text"}},
    ],
)
def test_what_says_nothing_forbids_nothing(pd, stream, more):
    running, _, _ = pd(Decode(2))
    assert said(running.post(body(COMPLETIONS, stream=stream, **more))) == (WHOLE, ["length"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("first", [{"reasoning": "hm"}, {"tool_calls": [{"id": "1"}]}])
def test_what_only_a_parser_can_tell_is_not_gone_on_with(pd, stream, first):
    running, _, _ = pd(Decode(0, **first))
    is_broken_off(running.post(body(CHAT, stream=stream), CHAT), stream, "the text of its answer")


def test_text_after_the_reasoning_is_gone_on_with(pd):
    """Of an answer that is no stream all is there; the reasoning stays in it."""
    running, _, _ = pd(Decode(2, reasoning="hm"))
    answer = running.post(body(CHAT), CHAT)
    assert said(answer) == (WHOLE, ["length"])
    assert answer.json()["choices"][0]["message"]["reasoning"] == "hm"


def test_events_that_a_server_sends_for_their_tokens_alone_are_left_out(pd):
    """One that is not asked for tokens says nothing where a parser waits. The tokens count."""
    running, _, (decode,) = pd(Decode(3, words=[(1, "a"), (2, None), (3, "b"), (4, "c")]))
    answer = running.post(body(CHAT, stream=True), CHAT)
    assert said(answer) == ("abc", ["length"])
    assert '"delta": {}' not in answer.text and '"delta":{}' not in answer.text
    assert decode.seen[1].data["prompt"] == [5, 6, 7, 1, 2, 3]


HOSTILE = [
    (1, '"stop_reason":"recomputed"'),
    (2, ',"token_ids":[9,9],"usage":{"prompt_tokens":7}'),
    (3, "%s %1 %% \n\u0000"),
    (4, '"finish_reason":"stop"}]}'),
    (5, '\n\ndata: {"choices":[]}\n\n'),
]


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("gives_up", [(), (2,), (1, 1, 1, 1)])
def test_no_word_of_an_answer_is_taken_for_its_end(pd, path, stream, gives_up):
    running, _, (decode,) = pd(Decode(*gives_up, words=HOSTILE))
    answer = running.post(body(path, stream=stream), path)
    assert said(answer) == ("".join(word for _, word in HOSTILE), ["length"])
    assert len(decode.seen) == len(gives_up) + 1


def test_long_messages_are_looked_through(pd):
    text = '"image_url": \\ \n' * 50_000
    running, _, _ = pd(Decode(2))
    sent = body(CHAT, messages=[{"role": "user", "content": [{"type": "text", "text": text}]}])
    assert said(running.post(sent, CHAT)) == (WHOLE, ["length"])


@pytest.mark.parametrize("stream", [True, False])
def test_it_ends_at_some_time(pd, stream):
    running, _, (decode,) = pd(Decode(*[0] * 100))
    is_broken_off(running.post(body(COMPLETIONS, stream=stream)), stream, "16 times")
    assert len(decode.seen) == 16


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_the_rest_is_an_error(pd, stream):
    running, _, _ = pd(Decode(2, status=400))
    is_broken_off(running.post(body(COMPLETIONS, stream=stream)), stream, "status 400")


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_the_second_prefill_is_an_error(pd, stream):
    running, prefill, (decode,) = pd(Decode(2))
    plain = decode.behave

    def then(handler: Handler, seen: Seen) -> None:
        prefill.behave = lambda other, _: other.answer(500, '{"error":{"message":"no"}}')
        plain(handler, seen)

    decode.behave = then
    is_broken_off(running.post(body(COMPLETIONS, stream=stream)), stream, "status 500")


def test_other_engines_are_passed_on_as_ever(pd):
    """Their stop reason may be a word of the client's."""
    running, _, (decode,) = pd(Decode(2), kv_params="nixl")
    answer = running.post(body(COMPLETIONS))
    assert answer.json()["choices"][0]["stop_reason"] == "recomputed"
    assert "return_token_ids" not in decode.seen[0].data


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 404, 422, 429, 500])
def test_an_error_of_decode_is_the_client_s(pd, status, stream):
    """Upstream's proxy makes 200 and an empty body of it."""
    running, _, (decode,) = pd(None)
    text = json.dumps({"error": {"message": "é too long", "code": status}}, ensure_ascii=False)
    decode.behave = lambda handler, seen: handler.answer(status, text, Retry_After="3")
    answer = running.post(body(COMPLETIONS, stream=stream))
    assert (answer.status, answer.text, answer.headers["retry-after"]) == (status, text, "3")


def test_nobody_compresses_what_the_proxy_reads(pd):
    running, _, (decode,) = pd(Decode())
    running.post(body(COMPLETIONS), Accept_Encoding="gzip")
    assert "accept-encoding" not in decode.seen[0].headers


# A decode server that is lost in the middle of a stream: what it said is gone on with, too.


class Told:
    """Takes an answer in place of a connection; events: what it said, whole."""

    def __init__(self, server: Any) -> None:
        self.server, self.wfile = server, io.BytesIO()

    def send_response(self, status: int) -> None: ...

    def send_header(self, name: str, value: str) -> None: ...

    def end_headers(self) -> None: ...

    @property
    def events(self) -> list[bytes]:
        rest, text = self.wfile.getvalue(), b""
        while size := int(rest.partition(b"\r\n")[0], 16):
            rest = rest.partition(b"\r\n")[2]
            text, rest = text + rest[:size], rest[size + 2 :]
        return [one + b"\n\n" for one in text.split(b"\n\n")[:-1]]


def lost_after(count: int) -> Any:
    """Behaves as decode, and dies after so many events of a stream; those after it live."""

    def behave(handler: Handler, seen: Seen) -> None:
        told = Told(handler.server)
        Decode()(told, seen)  # type: ignore[arg-type]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for one in told.events[:count]:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(one), one))
        handler.wfile.flush()
        handler.server.socket.close()
        handler.cut()

    return behave


@pytest.mark.parametrize(
    ("path", "count"), [(COMPLETIONS, 1), (COMPLETIONS, 3), (COMPLETIONS, 4), (CHAT, 1), (CHAT, 4)]
)
@pytest.mark.parametrize("more", [{}, {"temperature": 0, "seed": 7}])
def test_a_stream_whose_server_is_lost_goes_on_from_the_tokens_so_far(pd, path, count, more):
    running, prefill, decode = pd(lost_after(count), Decode())
    answer = running.post(body(path, stream=True, **more), path)
    assert said(answer) == (WHOLE, ["length"])
    assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text
    assert [len(one.seen) for one in (prefill, *decode)] == [2, 1, 1]
    told = decode[1].seen[0].data.get("prompt")
    said_before = count - 1 if path == CHAT else count
    assert said_before == 0 or len(told) > 3  # the prompt's tokens, and those of the answer


@pytest.mark.parametrize(("path", "count"), [(COMPLETIONS, 6), (CHAT, 7)])
@pytest.mark.parametrize("after_done", [0, 1])
def test_a_stream_that_lacks_but_the_word_that_it_is_all_is_whole(pd, path, count, after_done):
    running, _, decode = pd(lost_after(count + after_done), Decode())
    answer = running.post(body(path, stream=True), path)
    assert said(answer) == (WHOLE, ["length"])
    assert answer.text.endswith("data: [DONE]\n\n") and answer.text.count("[DONE]") == 1
    assert '"error"' not in answer.text and decode[1].seen == []


@pytest.mark.parametrize("options", [{"include_usage": True}, {"continuous_usage_stats": True}])
def test_usage_that_is_told_is_not_left_out(pd, options):
    """The second: as of a server that tells it unasked."""
    running, _, _ = pd(lost_after(6), Decode())
    answer = running.post(body(COMPLETIONS, stream=True, stream_options=options))
    *_, last = events(answer.text)
    assert "it has all the tokens" in last["error"]["message"]


@pytest.mark.parametrize(
    ("more", "why"), [({"seed": 7, "temperature": 1}, "seed"), ({"stop": ["x"]}, "stop")]
)
def test_what_cannot_be_gone_on_with_exactly_ends_with_an_error(pd, more, why):
    """A seed's next number depends on all before it, which a new request does not have."""
    running, _, decode = pd(lost_after(2), Decode())
    answer = running.post(body(COMPLETIONS, stream=True, **more))
    *_, last = events(answer.text)
    assert (last["error"]["type"], last["error"]["code"]) == ("decode_lost", 502)
    assert f"with {why}" in last["error"]["message"]
    assert decode[1].seen == []


def test_the_second_loss_is_the_last(pd):
    running, _, decode = pd(lost_after(2), lost_after(2), Decode())
    answer = running.post(body(COMPLETIONS, stream=True))
    *_, last = events(answer.text)
    assert last["error"]["type"] == "decode_lost"
    assert [len(one.seen) for one in decode] == [1, 1, 0]
