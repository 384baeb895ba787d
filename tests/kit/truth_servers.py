"""Small real servers that answer as engines do, prefill and decode, and can be told to be wrong.

What one says follows from its weights and from the prompt whose KV it has: its own, or the one that
was handed over. So whatever goes wrong with KV shows in the text, as with a real engine, which
cannot be told to fail; the real one is asked in tests/adversarial/proxy/test_same_as_colocated.py.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from proxy_backend import Backend, Handler, Seen

_WORDS = ("the", "a", "one", "so", "we", "go", "on", "in", "to", "of", "it", "is", "as", "by")
KEPT: dict[str, tuple[str, str]] = {}  # KV by its name: (weights, prompt)
_NAMES = itertools.count()


def words(weights: str, prompt: str, count: int) -> list[str]:
    """What weights say to a prompt."""
    seed = hashlib.sha256(f"{weights}\0{prompt}".encode()).digest()
    return [f" {_WORDS[seed[i % 32] % len(_WORDS)]}" for i in range(count)]


@dataclass
class Engine:
    """A server, or what stands for the whole of them: the proxy.

    weights: their name. spelling: of its tokenizer. kv: what it makes of KV that is handed over to
    it, or that it hands over. noise: by so much its log-probabilities are off.
    """

    role: str
    weights: str = "w"
    spelling: str = "s"
    version: Optional[str] = "0.32.0"
    block_size: str = "128"
    kv: Callable[[str], str] = str
    keeps: bool = True
    cut: bool = False
    noise: float = 0.0
    backend: Backend = field(init=False)

    def __post_init__(self) -> None:
        self.backend = Backend(self.role)
        self.backend.behave = self.behave

    @property
    def port(self) -> int:
        return self.backend.address[1]

    def behave(self, handler: Handler, seen: Seen) -> None:
        """One request."""
        if seen.path == "/ready" and self.role == "proxy":
            handler.answer(200, "{}")
        elif seen.path == "/version" and self.version:
            handler.answer(200, json.dumps({"version": self.version}))
        elif seen.path == "/metrics":
            labels = f'block_size="{self.block_size}",cache_dtype="auto"'
            handler.answer(200, f"vllm:cache_config_info{{{labels}}} 1.0\n", "text/plain")
        elif seen.path == "/tokenize":
            handler.answer(200, json.dumps({"tokens": self.tokens(self.prompt(seen.data))}))
        elif seen.method == "POST":
            self.generate(handler, seen.data, "chat" in seen.path)
        else:
            handler.answer(404, "{}")

    def tokens(self, prompt: str) -> list[int]:
        spelled = [ord(c) for c in prompt]
        return spelled if self.spelling == "s" else spelled[::2]

    def prompt(self, body: dict[str, Any]) -> str:
        text = body.get("prompt")
        return json.dumps(body["messages"]) if text is None else text

    def generate(self, handler: Handler, body: dict[str, Any], chat: bool) -> None:
        given = body.get("kv_transfer_params") or {}
        prompt, count = self.prompt(body), body["max_tokens"]
        weights, of = self.weights, prompt
        if given.get("remote"):
            weights, of = KEPT[given["remote"]]
            of = self.kv(of) if self.role == "decode" else of
        prompts = of if isinstance(of, list) else [of]
        said = [words(weights, one, count) for one in prompts]
        handed = None
        if self.role == "prefill" and self.keeps and given.get("do_remote_decode"):
            name = f"kv-{next(_NAMES)}"
            KEPT[name] = (self.weights, self.kv(prompt))
            handed = {"remote": name}
        usage = {"prompt_tokens": sum(len(self.tokens(one)) for one in prompts)}
        if body.get("stream"):
            self.stream(handler, said[0], usage, chat)
            return
        choices = [
            {"index": k, **self.choice("".join(one), chat), "logprobs": self.logs(one, chat)}
            for k, one in enumerate(said)
        ]
        answer = {"choices": choices, "usage": usage, "kv_transfer_params": handed}
        handler.answer(200, json.dumps(answer))

    def choice(self, text: str, chat: bool) -> dict[str, Any]:
        return {"message": {"content": text}} if chat else {"text": text}

    def logs(self, said: list[str], chat: bool) -> dict[str, Any]:
        log = -1.0 - self.noise
        if chat:
            top = [{"token": " the", "logprob": log}]
            return {"content": [{"token": t, "logprob": log, "top_logprobs": top} for t in said]}
        tops = [{one: log, " other": log - 0.01} for one in said]
        return {"tokens": said, "token_logprobs": [log] * len(said), "top_logprobs": tops}

    def stream(self, handler: Handler, said: list[str], usage: Any, chat: bool) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for text in said:
            one = {"delta": {"content": text}} if chat else {"text": text}
            choice = {**one, "logprobs": self.logs([text], chat)}
            handler.chunk(f"data: {json.dumps({'choices': [choice]})}\n\n")
        handler.chunk(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n")
        if not self.cut:
            handler.chunk("data: [DONE]\n\n")
        handler.wfile.write(b"0\r\n\r\n")
