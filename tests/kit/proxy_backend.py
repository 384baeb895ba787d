"""A small real HTTP server that stands where a vLLM server would, for tests of the proxy.

It records what arrived byte for byte and can be told to misbehave at a chosen point, which the
engine cannot; the slow tests put the real engine behind the proxy.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Mapping, Optional


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. headers: names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class Backend:
    """A server on a port of its own. behave, when set, answers instead of the default.

    The proxy's own looks are not recorded as seen. health, when set, answers those at /health.
    """

    role: str
    seen: list[Seen] = field(default_factory=list)
    behave: Optional[Callable[[Handler, Seen], None]] = None
    health: Optional[Callable[[Handler, Seen], None]] = None
    probes: list[Seen] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    host: str = "127.0.0.1"
    metrics: str = ""
    hand_over: str = '{"remote_engine_id":"e-1","remote_block_ids":[7,8],"big":9223372036854775807}'

    def __post_init__(self) -> None:
        made = _Server6 if ":" in self.host else _Server
        self._server = made((self.host, 0), Handler)
        self._server.backend = self
        self.address = (self.host, int(self._server.server_address[1]))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End, and cut every connection, as a killed process would."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    backend: Backend

    def __init__(self, *given: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections cut on purpose are no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def answer(self, status: int, body: str, kind: str = "application/json", **more: str) -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def cut(self) -> None:
        """Hang up without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def stream(self, backend: Backend) -> None:
        """Two events; the second one only when the test says go on."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk('data: {"choices":[{"text":"one"}]}\n\n')
        while not backend.go_on.wait(0.01):
            if self.closed_by_peer():
                backend.hung_up.set()
                self.close_connection = True
                return
        self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def closed_by_peer(self) -> bool:
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def _serve(self) -> None:
        backend = self.server.backend
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, body)
        is_look = self.path == "/health"
        is_probe = is_look or "omnikit" in (
            headers.get("host"),
            headers.get("x-request-id", "")[:7],
        )
        (backend.probes if is_probe else backend.seen).append(seen)
        if is_look:
            (backend.health or well)(self, seen)
        elif is_probe and self.path == "/metrics":
            self.answer(200, backend.metrics, "text/plain")
        elif backend.behave:
            backend.behave(self, seen)
        elif self.command == "POST" and backend.role == "prefill":
            self.answer(200, f'{{"id":"p","kv_transfer_params": {backend.hand_over} ,"n":1}}')
        elif self.command == "POST" and json.loads(body).get("stream"):
            self.stream(backend)
        else:
            text = json.dumps({"choices": [{"text": f"from {backend.role}"}], "path": self.path})
            self.answer(200, text, X_Request_Id="the backend's own")

    do_GET = do_POST = do_DELETE = do_PUT = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read what was seen instead."""


def well(handler: Handler, seen: Seen) -> None:
    """As a healthy server answers at /health."""
    handler.answer(200, "")
