"""A decode server of vllm-ascend as the proxy sees it, and its answers as a client reads them.

It gives the same words whoever asks: from where the prompt ends, with the tokens if they are
wanted, and gives a request up as "recomputed" where a test says so.
"""

from __future__ import annotations

import json
from typing import Any, Optional, Sequence

from proxy_backend import Handler, Seen

from hostkit.base.health import request

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPT = [5, 6, 7]
# An answer of tokens and texts; one character is of two tokens, of which the first has no text.
WORDS = [(11, "Once"), (12, ' "upon"'), (13, ""), (14, "好"), (15, "\\n"), (16, " time")]
ENDS = {"finish_reason": "stop", "stop_reason": "recomputed"}


WHOLE = "".join(word for _, word in WORDS)


class Decode:
    """Behaves as decode: gives WORDS from where the prompt ends, and gives up after so many tokens.

    gives_up: how many tokens each of the first requests gets. words: what it says (None: nothing
    yet). status: of what goes on. tells: whether it knows return_token_ids, for each request (the
    last counts on). first: members of the first delta.
    """

    def __init__(
        self,
        *gives_up: int,
        status: int = 200,
        tells: Sequence[bool] = (True,),
        words: Sequence[tuple[int, Optional[str]]] = tuple(WORDS),
        **first: Any,
    ) -> None:
        self.gives_up = list(gives_up)
        self.status = status
        self.tells = list(tells)
        self.words = list(words)
        self.first = first

    def __call__(self, handler: Handler, seen: Seen) -> None:
        data = seen.data
        self.is_chat = seen.path.startswith(CHAT)
        tells = self.tells.pop(0) if len(self.tells) > 1 else self.tells[0]
        self.asked = tells and bool(data.get("return_token_ids"))
        told = data.get("prompt")
        done = len(told) - len(PROMPT) if isinstance(told, list) else 0
        if done and self.status != 200:
            handler.answer(self.status, '{"error":{"message":"no"}}')
            return
        self.prompt = PROMPT + [token for token, _ in self.words[:done]]
        left = self.words[done:]
        if data.get("max_tokens") is not None:
            left = left[: data["max_tokens"]]
        some = self.gives_up.pop(0) if self.gives_up else None
        self.id = seen.headers["x-request-id"]
        if data.get("stream"):
            self.stream(handler, data, left, some)
        else:
            handler.answer(200, json.dumps(self.whole(left, some), ensure_ascii=False))

    def usage(self, count: int) -> dict[str, Any]:
        prompt = len(self.prompt)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + count,
            "completion_tokens": count,
            "prompt_tokens_details": None,
        }

    def ids(self, tokens: list[int]) -> Optional[list[int]]:
        return tokens if self.asked else None

    def head(self, kind: str) -> dict[str, Any]:
        name = f"chat.{kind}" if self.is_chat else "text_completion"
        return {"id": f"x-{self.id}", "object": name, "created": len(self.prompt), "model": "m"}

    def whole(self, left: list[tuple[int, Optional[str]]], some: Optional[int]) -> dict[str, Any]:
        given = left[:some]
        text = "".join(word or "" for _, word in given)
        end = ENDS if some is not None else {"finish_reason": "length", "stop_reason": None}
        said = {"message": {"role": "assistant", **self.first, "content": text}}
        choice = {
            "index": 0,
            **(said if self.is_chat else {"text": text}),
            "logprobs": None,
            **end,
            "token_ids": self.ids([token for token, _ in given]),
        }
        made = {**self.head("completion"), "choices": [choice], "usage": self.usage(len(given))}
        place = made if self.is_chat else choice
        place["prompt_token_ids"] = self.ids(self.prompt)
        return made

    def stream(
        self,
        handler: Handler,
        data: Any,
        left: list[tuple[int, Optional[str]]],
        some: Optional[int],
    ) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        given = left[:some]
        last = {"finish_reason": "length", "stop_reason": None}
        none = {"finish_reason": None, "stop_reason": None}
        options = data.get("stream_options") or {}
        events: list[Any] = []

        def add(text: Any, tokens: list[int], end: dict[str, Any], **top: Any) -> None:
            said = {"delta": text} if self.is_chat else {"text": text}
            choice = {"index": 0, **said, "logprobs": None, **end, "token_ids": self.ids(tokens)}
            if not self.is_chat:
                choice["prompt_token_ids"] = top.pop("prompt_token_ids", None)
            events.append({**self.head("completion.chunk"), "choices": [choice], **top})

        start = {"prompt_token_ids": self.ids(self.prompt)}
        if self.is_chat:
            add({"role": "assistant", "content": "", **self.first}, [], none, **start)
            start = {}
        for k, (token, word) in enumerate(given):
            end = last if some is None and k == len(given) - 1 else none
            usage = {"usage": self.usage(k + 1)} if options.get("continuous_usage_stats") else {}
            silent: dict[str, str] = {}  # its parser waits for more
            text = (silent if word is None else {"content": word}) if self.is_chat else word
            add(text, [token], end, **start, **usage)
            start = {}
        if some is not None:
            add({} if self.is_chat else "", [], ENDS)
        if options.get("include_usage"):
            count = self.usage(len(given))
            events.append({**self.head("completion.chunk"), "choices": [], "usage": count})
        text = "".join(
            f"data: {json.dumps(one, ensure_ascii=False, separators=(',', ':'))}\n\n"
            for one in events
        )
        raw = (text + "data: [DONE]\n\n").encode()
        for at in range(0, len(raw), 37):  # pieces that end anywhere
            piece = raw[at : at + 37]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")


def events(text: str) -> list[Any]:
    found = [one[len("data: ") :] for one in text.split("\n\n") if one]
    return [one if one == "[DONE]" else json.loads(one) for one in found]


def said(answer: Any) -> tuple[str, list[Any]]:
    """The text of an answer, and its ends."""
    whole = events(answer.text) if answer.text.startswith("data:") else [answer.json()]
    choices = [one["choices"][0] for one in whole if isinstance(one, dict) and one.get("choices")]
    texts = [
        (one.get("delta") or one.get("message") or {}).get("content") or one.get("text") or ""
        for one in choices
    ]
    ends = [one["finish_reason"] for one in choices if one["finish_reason"]]
    return "".join(texts), ends


def body(path: str, **more: Any) -> dict[str, Any]:
    if path == CHAT:
        return {"model": "m", "messages": [{"role": "user", "content": "a"}], **more}
    return {"model": "m", "prompt": "a", "max_tokens": 6, **more}


class Cut:
    """A real server's answers, of which the first end as "recomputed" after so many tokens.

    That is how vllm-ascend's scheduler ends them: no token comes with the end.
    """

    def __init__(self, port: int, *tokens: int) -> None:
        self.port, self.tokens = port, list(tokens)

    def __call__(self, handler: Handler, seen: Seen) -> None:
        data = seen.data
        some = self.tokens.pop(0) if self.tokens else None
        if some is not None:
            limits = {"max_tokens", "max_completion_tokens"} & set(data)
            data.update(dict.fromkeys(limits, some), min_tokens=0)
        answer = request(
            f"http://127.0.0.1:{self.port}{seen.path}", body=data, timeout_s=120, method="POST"
        )
        text = answer.text
        if some is not None and data.get("stream"):
            text = "".join(self.cut_event(one) for one in text.split("\n\n") if one)
        elif some is not None:
            made = json.loads(text)
            made["choices"][0].update(ENDS)
            text = json.dumps(made)
        handler.answer(answer.status, text, answer.headers["content-type"])

    def cut_event(self, event: str) -> str:
        made = {} if event.endswith("[DONE]") else json.loads(event[len("data: ") :])
        if not made.get("choices") or made["choices"][0]["finish_reason"] is None:
            return f"{event}\n\n"
        goes_on = event.replace('"finish_reason":"length"', '"finish_reason":null')
        last = made["choices"][0]
        last.update(ENDS, token_ids=[], **({"delta": {}} if "delta" in last else {"text": ""}))
        return f"{goes_on}\n\ndata: {json.dumps(made)}\n\n"
