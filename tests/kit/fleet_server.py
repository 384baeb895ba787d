"""A server process with the engine's endpoints, answers and metrics, for deployments in breadth.

It stands in for vLLM where there are more servers than this machine could run engines; the
deployments of real engines have tests of their own. Called like the engine: options that it does
not know are ignored. STAND_IN_DELAY_S: seconds until it is ready. STAND_IN_FAILS: it dies instead,
with that text as its last words. STAND_IN_REQUEST_S: seconds that a request takes.
STAND_IN_KV_USAGE: share of the KV cache that its metrics show. STAND_IN_DUMB: it is healthy, and
answers no request.
A streamed request with
stand_in_until ends when that file is there. With --profiler-config it records as the engine does
(stand_in_profile).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional

READY_AT = time.monotonic() + float(os.environ.get("STAND_IN_DELAY_S", "0"))


def option(name: str, default: str) -> str:
    words = sys.argv[1:]
    return words[words.index(name) + 1] if name in words else default


MODEL = option("--served-model-name", "tiny")
REQUEST_S = float(os.environ.get("STAND_IN_REQUEST_S", "0"))
KV_USAGE = float(os.environ.get("STAND_IN_KV_USAGE", "0"))
RUNNING = [0]
STEPS = [0]
PROFILER = json.loads(option("--profiler-config", "null"))
COUNTS = {"external_kv_transfer": 0, "local_compute": 0}
LOCK = threading.Lock()


# The engine loads the toolkit's guard, which asks for this key (hostkit.access.guard).
KEY = os.environ["VLLM_API_KEY"] if "--middleware" in sys.argv else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def parse_request(self) -> bool:
        whole = super().parse_request()
        sent = self.headers["Authorization"] if whole else ""
        if whole and KEY and self.path != "/health" and sent != f"Bearer {KEY}":
            self.close_connection = True
            self.answer(401, b"")
            return False
        return whole

    def log_message(self, *_: object) -> None:
        """The log is for what the server itself says."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200 if time.monotonic() >= READY_AT else 503, b"")
        elif self.path == "/v1/models":
            self.answer(200, json.dumps({"data": [{"id": MODEL}]}).encode())
        elif self.path == "/metrics":
            self.answer(200, self.metrics())
        else:
            self.answer(404, b"")

    def metrics(self) -> bytes:
        lines = [f"vllm:num_requests_running {RUNNING[0]}.0", "vllm:num_requests_waiting 0.0"]
        lines.append(f"vllm:iteration_tokens_total_count {STEPS[0]}.0")
        lines += [f"vllm:{name}_cache_usage_perc {KV_USAGE}" for name in ("kv", "gpu")]
        with LOCK:
            for source, count in COUNTS.items():
                name = "vllm:prompt_tokens_by_source_total"
                lines.append(f'{name}{{source="{source}"}} {count}.0')
        return ("\n".join(lines) + "\n").encode()

    def do_POST(self) -> None:
        if self.path in ("/start_profile", "/stop_profile"):
            import stand_in_profile  # late: it is not on hosts where nothing is profiled

            self.answer(stand_in_profile.switch(self.path, PROFILER, STEPS[0]), b"")
            return
        if not self.path.endswith("/completions"):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(404, b"")
            return
        with LOCK:
            RUNNING[0] += 1
        try:
            self.generate()
        finally:
            with LOCK:
                RUNNING[0] -= 1

    def generate(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if os.environ.get("STAND_IN_DUMB"):
            self.answer(500, b"not today")
            return
        chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        tokens = sum(map(len, prompt)) if isinstance(prompt, list) else len(prompt)
        handed = (body.get("kv_transfer_params") or {}).get("remote_engine_id")
        with LOCK:
            COUNTS["external_kv_transfer" if handed else "local_compute"] += tokens
        count = int(body.get("max_tokens", 1))
        with LOCK:
            STEPS[0] += count
        if PROFILER and os.environ.get("STAND_IN_PROFILE") == "dies":
            print("out of memory while profiling", flush=True)
            os._exit(9)
        if PROFILER and os.environ.get("STAND_IN_PROFILE") == "refuses":
            self.answer(503, b"not now")
            return
        made: dict[str, Any] = {
            "model": MODEL,
            "usage": {"prompt_tokens": tokens, "completion_tokens": count},
            "kv_transfer_params": {"remote_engine_id": f"pid {os.getpid()}"},
        }
        if body.get("stream"):
            self.stream(count, made, body.get("stand_in_until"))
            return
        time.sleep(REQUEST_S)  # what the engine computes
        if chat:
            made["choices"] = [{"message": {"role": "assistant", "content": "x" * count}}]
            self.answer(200, json.dumps(made).encode())
        else:
            choice = {"text": "x" * count, "finish_reason": "length"}
            made["choices"] = [choice] * (len(prompt) if isinstance(prompt, list) else 1)
            self.answer(200, json.dumps(made).encode())

    def stream(self, count: int, made: dict[str, Any], until: Optional[str]) -> None:
        chunks = [{"choices": [{"text": "x"}], "usage": None} for _ in range(count)]
        chunks.append({"choices": [], "usage": made["usage"]})  # type: ignore[typeddict-item]
        parts = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
        parts.append(b"data: [DONE]\n\n")
        self.head(200, sum(map(len, parts)), "text/event-stream")
        for part in parts:
            time.sleep(REQUEST_S / len(parts))
            while part is parts[-1] and until and not Path(until).exists():
                time.sleep(0.05)
            self.wfile.write(part)

    def answer(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.head(status, len(data), kind)
        self.wfile.write(data)

    def head(self, status: int, size: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()


def main() -> None:
    print(f"the stand-in serves {MODEL}", flush=True)
    if os.environ.get("STAND_IN_FAILS"):
        sys.exit(os.environ["STAND_IN_FAILS"])
    address = (option("--host", "0.0.0.0"), int(option("--port", "8000")))
    ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
