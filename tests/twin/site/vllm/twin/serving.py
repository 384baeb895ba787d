"""The API: answers, metrics, and the hand-over in both roles.

The text of an answer follows from the prompt whose KV the engine has: KV of another prompt shows.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Optional

from vllm.twin.log import say
from vllm.twin.release import RELEASE

Body = dict[str, Any]
_WORDS = ("the", "a", "one", "so", "we", "go", "on", "in", "to", "of", "it", "is", "as", "by")


def text_of(prompt: str, count: int) -> str:
    """What the "model" says to a prompt, count tokens of it."""
    seed = hashlib.sha256(prompt.encode()).digest()
    return "".join(f" {_WORDS[seed[i % 32] % len(_WORDS)]}" for i in range(count))


class State:
    """What all requests share. pull: of decode with KV, None where a request comes without; keep:
    of prefill, which hands nothing over of some requests. ended: why an answer ends.
    """

    def __init__(self, name: str, max_len: int) -> None:
        self.name, self.max_len = name, max_len
        self.ready = False
        self.number = 0
        self.running = 0
        self.prompt_tokens = self.generation_tokens = self.steps = self.pulled = 0
        self.lock = threading.Lock()
        self.sources = {"external_kv_transfer": 0, "local_compute": 0, "local_cache_hit": 0}
        self.pull: Optional[Callable[[Body], Optional[str]]] = None
        self.keep: Optional[Callable[[str, str, Body], Optional[Body]]] = None
        self.ended: Callable[[Body], str] = lambda body: "length"

    def metrics(self) -> str:
        """v1/metrics/loggers.py, PrometheusStatLogger."""
        rows = (
            ("num_requests_running", "gauge", self.running),
            ("num_requests_waiting", "gauge", 0),
            (RELEASE["kv_usage"], "gauge", 0),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("generation_tokens_total", "counter", self.generation_tokens),
            ("iteration_tokens_total_count", "counter", self.steps),
        )
        # The twin's own: how often KV came from prefill. The real one tells nobody.
        twin = f"omni_twin_kv_pulled_total {float(self.pulled)}\n"
        label = f'engine="0",model_name="{self.name}"'
        shown = [
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{{{label}}} {float(value)}\n"
            for name, kind, value in rows
        ]
        if RELEASE["tells_sources"]:
            name = "vllm:prompt_tokens_by_source_total"
            shown.append(f"# TYPE {name} counter\n")
            shown += [
                f'{name}{{{label},source="{source}"}} {float(value)}\n'
                for source, value in self.sources.items()
            ]
        return twin + "".join(shown)


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, form: str, *words: Any) -> None:
        """uvicorn's access log."""
        say("access", f'{self.client_address[0]} - "{self.requestline}" {words[1]}')

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        if self.path not in ("/health", "/metrics"):
            super().log_request(code, size)

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/v1/models":
            card = {"id": self.state.name, "object": "model", "max_model_len": self.state.max_len}
            self._json(200, {"object": "list", "data": [card]})
        elif self.path == "/metrics":
            self._send(200, self.state.metrics().encode(), "text/plain")
        elif self.path == "/version":
            self._json(200, {"version": RELEASE["version"]})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            self._json(404, {"detail": "Not Found"})
            return
        with self.state.lock:
            self.state.running += 1
        try:
            self._generate(json.loads(data))
        except Refused as error:
            self._error(error.status, str(error))
        except ValueError as error:
            self._error(400, f"JSON decode error: {error}")
        finally:
            with self.state.lock:
                self.state.running -= 1

    def _generate(self, body: Body) -> None:
        chat = self.path.endswith("/chat/completions")
        if body.get("model") not in (None, self.state.name):
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        prompts = _prompts(body, chat)
        tokens = max(1, sum(len(prompt) for prompt in prompts) // 4)
        count = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        if tokens + count > self.state.max_len:
            raise Refused(
                400,
                f"This model's maximum context length is {self.state.max_len} tokens. However, you"
                f" requested {tokens + count} tokens.",
            )
        params = body.get("kv_transfer_params")
        found = None
        if params and self.state.pull:
            try:
                found = self.state.pull(params)
            except OSError as error:
                say(RELEASE["transfer_log"], f"KV transfer task failed: {error}", "ERROR")
                raise Refused(500, f"KV transfer task failed: {error}") from error
        with self.state.lock:
            self.state.number += 1
            number = f"{'chatcmpl' if chat else 'cmpl'}-{self.state.number}"
            self.state.prompt_tokens += tokens
            self.state.pulled += found is not None
            self.state.sources["local_compute" if found is None else "external_kv_transfer"] += (
                tokens
            )
            self.state.generation_tokens += count
            self.state.steps += count
        asked = self.headers.get("X-Request-Id")
        kept = f"{asked or ''}{number}"
        handed = self.state.keep(kept, prompts[0], body) if self.state.keep else None
        answer = {
            "id": asked or number,
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": self.state.name,
            "usage": {
                "prompt_tokens": tokens,
                "completion_tokens": count,
                "total_tokens": tokens + count,
            },
        }
        # As in the real one, all prompts of a request get the KV that comes with it.
        texts = [text_of(prompt if found is None else found, count) for prompt in prompts]
        if body.get("stream"):
            self._stream(answer, texts[0], chat, body)
        else:
            answer["kv_transfer_params"] = handed
            ended = self.state.ended(body)
            choices = [_choice(text, chat, ended, k) for k, text in enumerate(texts)]
            self._json(200, {**answer, "choices": choices})

    def _stream(self, answer: Body, text: str, chat: bool, body: Body) -> None:
        usage = answer.pop("usage")
        answer["object"] = "chat.completion.chunk" if chat else answer["object"]
        parts = [{**answer, "choices": [_choice(f" {w}", chat, None)]} for w in text.split()]
        parts[-1]["choices"][0]["finish_reason"] = "length"
        if (body.get("stream_options") or {}).get("include_usage"):
            parts.append({**answer, "choices": [], "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in [*map(json.dumps, parts), "[DONE]"]:
            data = f"data: {part}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _error(self, status: int, text: str) -> None:
        kind = "NotFoundError" if status == 404 else "BadRequestError"
        self._json(status, {"object": "error", "message": text, "type": kind, "code": status})

    def _json(self, status: int, data: Any) -> None:
        self._send(status, json.dumps(data).encode())

    def _send(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _prompts(body: Body, chat: bool) -> list[str]:
    try:
        if chat:
            return ["\n".join(f"{m['role']}: {m['content']}" for m in body["messages"])]
        prompt = body["prompt"]
        several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
        listed = prompt if several else [prompt]
        return [one if isinstance(one, str) else json.dumps(one) for one in listed]
    except (KeyError, TypeError) as error:
        raise Refused(400, f"Field required: {error}") from error


def _choice(text: str, chat: bool, end: Optional[str], index: int = 0) -> Body:
    if chat and end:
        said: Body = {"message": {"role": "assistant", "content": text}}
    elif chat:
        said = {"delta": {"content": text}}
    else:
        said = {"text": text}
    return {"index": index, **said, "logprobs": None, "finish_reason": end}


class Server(ThreadingHTTPServer):
    """On a socket that is bound already."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, bound: Any, state: State) -> None:
        handler = type("Bound", (Handler,), {"state": state})
        super().__init__(bound.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_activate()
