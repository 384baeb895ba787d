"""A small real server process with the engine's endpoints.

It stands in for vLLM where the supervision of processes is tested: the real engine takes a minute
to start and cannot be told to misbehave. The slow tests use the real one.
Usage: stand_in_server.py --port PORT …
or: stand_in_server.py PORT [ready-after=S] [exit-after=S] [status=N] [deaf] [child] [model=NAME]
    [broken=FILE: ends at once while there is such a file] [refuses=FILE: answers 401 then]
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def main() -> None:
    if "--port" in sys.argv:  # called like the engine: what is no option of ours is ignored
        port = int(sys.argv[sys.argv.index("--port") + 1])
        options: dict[str, str] = {}
    else:
        port = int(sys.argv[1])
        options = dict(word.partition("=")[::2] for word in sys.argv[2:])
    if os.path.exists(options.get("broken", "")):  # noqa: PTH110
        sys.exit("the stand-in is broken")
    if "deaf" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in options and os.fork() == 0:
        os.setpgid(0, 0)  # a worker in a group of its own, as engines have them
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    if "last-words" in options:
        signal.signal(signal.SIGTERM, lambda *_: (print("these are the last words"), sys.exit(0)))
    if "exit-after" in options:
        status = int(options.get("status", "1"))
        print("the stand-in ends as told", flush=True)
        threading.Timer(float(options["exit-after"]), os._exit, [status]).start()
    ready_at = time.monotonic() + float(options.get("ready-after", "0"))
    model = options.get("model", "tiny")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the log for what the tests print."""

        def do_GET(self) -> None:
            if self.path == "/health":
                self.answer(200 if time.monotonic() >= ready_at else 503, "")
            elif os.path.exists(options.get("refuses", "")):  # noqa: PTH110
                self.answer(401, "")
            elif self.path == "/v1/models":
                self.answer(200, json.dumps({"data": [{"id": model}]}))
            elif self.path.startswith("/say"):
                print(f"say {self.path[5:]} " + "a line that it says " * 60, flush=True)
                self.answer(200, "")
            elif self.path == "/metrics":
                steps = f"vllm:steps {options['steps']}\n" if "steps" in options else ""
                self.answer(200, steps + 'vllm:num_requests_running{engine="0"} 2.0\n')
            else:
                self.answer(404, "")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    print("the stand-in listens", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
