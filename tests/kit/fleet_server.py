"""A server process with the engine's endpoints, answers and metrics, for deployments in breadth.

It stands in for vLLM where there are more servers than this machine could run engines; the
deployments of real engines have tests of their own. Called like the engine: options that it does
not know are ignored. STAND_IN_DELAY_S: seconds until it is ready. STAND_IN_FAILS: it dies instead,
with that text as its last words. STAND_IN_REQUEST_S: seconds that a request takes.
STAND_IN_KV_USAGE: share of the KV cache that its metrics show. STAND_IN_DUMB: it is healthy, and
answers no request. STAND_IN_FAULTS: a file that says, as JSON and at any moment, what is wrong with
it (faults.py): start (last words), answer (500, nonsense, empty, cut, slow, hang, wrong, reset),
health (a status, or hang), running, waiting, kv and block_size (its metrics), version, tokens,
exit. STAND_IN_COMPILES: it leaves so many KiB in VLLM_CACHE_ROOT, as a compiler does, unless they
are there already, and its log says which. A streamed request with stand_in_until ends when that
file is there. With --profiler-config it records as the engine does (stand_in_profile).
"""

from __future__ import annotations

import json
import os
import socket
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
FAULTS = os.environ.get("STAND_IN_FAULTS", "")
RUNNING = [0]
STEPS = [0]
ANSWERED = [0]
PROFILER = json.loads(option("--profiler-config", "null"))
COUNTS = {"external_kv_transfer": 0, "local_compute": 0}
LOCK = threading.Lock()


# The engine loads the toolkit's guard, which asks for this key (hostkit.access.guard).
KEY = os.environ["VLLM_API_KEY"] if "--middleware" in sys.argv else ""


def fault(name: str, default: Any = None) -> Any:
    """What is wrong with it now."""
    try:
        return json.loads(Path(FAULTS).read_text()).get(name, default) if FAULTS else default
    except (OSError, ValueError):
        return default


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
            while fault("health") == "hang":
                time.sleep(0.1)
            self.answer(fault("health", 200 if time.monotonic() >= READY_AT else 503), b"")
        elif self.path == "/v1/models":
            self.answer(200, json.dumps({"data": [{"id": MODEL}]}).encode())
        elif self.path == "/metrics":
            self.answer(200, self.metrics())
        elif self.path == "/version" and FAULTS:
            self.answer(200, json.dumps({"version": fault("version", "0.23.0")}).encode())
        else:
            self.answer(404, b"")

    def metrics(self) -> bytes:
        running, waiting = fault("running", RUNNING[0]), fault("waiting", 0)
        lines = [f"vllm:num_requests_running {running}.0"]
        lines.append(f"vllm:num_requests_waiting {waiting}.0")
        lines.append(f"vllm:iteration_tokens_total_count {STEPS[0]}.0")
        lines.append(f"vllm:generation_tokens_total {STEPS[0]}.0")
        lines.append(f'vllm:request_success_total{{finished_reason="length"}} {ANSWERED[0]}.0')
        lines.append(f"vllm:time_to_first_token_seconds_count {ANSWERED[0]}.0")
        lines.append(f"vllm:time_to_first_token_seconds_sum {ANSWERED[0] * REQUEST_S}")
        used = fault("kv", KV_USAGE)
        lines += [f"vllm:{name}_cache_usage_perc {used}" for name in ("kv", "gpu")]
        if FAULTS:
            size = fault("block_size", 128)
            labels = f'block_size="{size}",cache_dtype="auto"'
            lines.append(f"vllm:cache_config_info{{{labels}}} 1.0")
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
        if self.path == "/tokenize" and FAULTS:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(200, json.dumps({"tokens": list(body)[:: fault("tokens", 1)]}).encode())
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
                ANSWERED[0] += 1

    def generate(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if os.environ.get("STAND_IN_DUMB"):
            self.answer(500, b"not today")
            return
        if (wrong := fault("answer")) and self.answers_wrong(wrong):
            return
        chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        # A text's tokens are its bytes; there may be several texts, or tokens.
        tokens = sum(1 if isinstance(one, int) else len(one) for one in prompt)
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
            if body.get("return_token_ids") and not chat:
                made["ids"] = list(prompt.encode()) if isinstance(prompt, str) else prompt
            self.stream(count, made, body.get("stand_in_until"))
            return
        time.sleep(REQUEST_S)  # what the engine computes
        if chat:
            made["choices"] = [{"message": {"role": "assistant", "content": self.text(count)}}]
            self.answer(200, json.dumps(made).encode())
        else:
            choice = {"text": self.text(count), "finish_reason": "length"}
            made["choices"] = [choice] * (len(prompt) if isinstance(prompt, list) else 1)
            self.answer(200, json.dumps(made).encode())

    def answers_wrong(self, how: str) -> bool:
        """Whether that was the answer."""
        if how == "500":
            self.answer(500, b"Internal Server Error", "text/plain")
        elif how in ("nonsense", "empty"):
            self.answer(200, b"<html>" if how == "nonsense" else b"")
        elif how == "cut":
            self.head(200, 4000, "application/json")
            self.wfile.write(b'{"choices": [{"te')
            self.close_connection = True
        elif how == "reset":
            # With an answer of no time the kernel sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
        while fault("answer") == "hang":
            time.sleep(0.1)
        if how == "slow":
            time.sleep(1)
        return how not in ("slow", "wrong")

    def stream(self, count: int, made: dict[str, Any], until: Optional[str]) -> None:
        choices: list[dict[str, Any]] = [{"text": "x"} for _ in range(count)]
        choices[-1]["finish_reason"] = "length"
        if "ids" in made:
            choices[0]["prompt_token_ids"] = made["ids"]
            choices = [{**one, "token_ids": [ord("x")]} for one in choices]
        chunks: list[Any] = [{"choices": [one], "usage": None} for one in choices]
        chunks.append({"choices": [], "usage": made["usage"]})
        parts = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
        parts.append(b"data: [DONE]\n\n")
        self.head(200, sum(map(len, parts)), "text/event-stream")
        for part in parts:
            time.sleep(REQUEST_S / len(parts))
            while part is parts[-1] and until and not Path(until).exists():
                time.sleep(0.05)
            self.wfile.write(part)

    def text(self, count: int) -> str:
        return ("y" if fault("answer") == "wrong" else "x") * count

    def answer(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.head(status, len(data), kind)
        self.wfile.write(data)

    def head(self, status: int, size: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()


def ends_when_told() -> None:
    """Once, with the exit status that the file has."""
    while (code := fault("exit")) is None:
        time.sleep(0.1)
    Path(FAULTS).unlink()
    os._exit(code)


def compile_graphs(kib: int) -> None:
    """As compilers do: a file of some size, an empty one that locks, and a hidden one."""
    place = Path(os.environ["VLLM_CACHE_ROOT"]) / "torch_compile_cache"
    graph = place / "rank_0" / "graph.bin"
    if graph.is_file():
        print(f"the stand-in found what was compiled: {graph.read_bytes()[:20]!r}", flush=True)
        return
    print(f"the stand-in compiles into {place}", flush=True)
    graph.parent.mkdir(parents=True, exist_ok=True)
    (place / "graph.lock").touch()
    (place / ".index").write_text("graph.bin\n")
    graph.write_bytes(f"by pid {os.getpid():<13}".encode() + os.urandom(kib << 10))


def main() -> None:
    print(f"the stand-in serves {MODEL}", flush=True)
    if os.environ.get("STAND_IN_FAILS"):
        sys.exit(os.environ["STAND_IN_FAILS"])
    if words := fault("start"):
        sys.exit(words)
    if kib := os.environ.get("STAND_IN_COMPILES"):
        compile_graphs(int(kib))
    if FAULTS:
        threading.Thread(target=ends_when_told, daemon=True).start()
    address = (option("--host", "0.0.0.0"), int(option("--port", "8000")))
    ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
