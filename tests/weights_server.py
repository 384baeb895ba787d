"""A web server that publishes a folder: plainly, and as the two hubs' interfaces do.

The hubs themselves cannot be reached from test machines; their real client libraries talk to this,
which answers the few requests that they make (huggingface_hub 0.36: hf_api.model_info; modelscope
1.31: HubApi.get_model_files).
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "deepseek-ai/Small"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret-of-the-test"


@dataclass
class Publisher:
    """faults: of a file's name, what the next answers to its GETs are, in order: a status, "cut"
    (half of what is asked for, then the connection ends), "wrong" (other bytes) or "hold" (half,
    then nothing until go is set). asked: (method, name, range) of all requests.
    """

    folder: Path
    port: int = 0
    token: str | None = None
    faults: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self, name: str) -> list[str]:
        """The ranges of all GETs for a file."""
        return [span for method, path, span in self.asked if (method, path) == ("GET", name)]


@contextmanager
def publish(folder: Path, token: str | None = None) -> Iterator[Publisher]:
    """Serve a folder on a port of the loopback. token: refuse who does not show it."""
    site = Publisher(folder, token=token)
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    site.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield site
    finally:
        site.go.set()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Publisher

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if self.site.token and not self._known():
            self._send(401, b"who are you")
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            self._json(self._hub())
        elif path == f"/api/v1/models/{REPOSITORY}/repo/files":
            self._json({"Code": 200, "Data": {"Files": self._modelscope()}})
        elif path == f"/api/v1/models/{REPOSITORY}/repo":
            self._file(query["FilePath"][0])
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            self._file(path.split(f"/{COMMIT}/", 1)[1])
        else:
            self._file(path.lstrip("/"))

    def _known(self) -> bool:
        said = f"{self.headers.get('Authorization')} {self.headers.get('Cookie')}"
        return str(self.site.token) in said

    def _hub(self) -> dict[str, Any]:
        siblings = []
        for path in sorted(self.site.folder.iterdir()):
            data = path.read_bytes()
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            one: dict[str, Any] = {"rfilename": path.name, "size": len(data), "blobId": blob}
            if path.suffix == ".safetensors":
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                one["lfs"] = {"sha256": digest, "size": one["size"], "pointerSize": 134}
            siblings.append(one)
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}

    def _modelscope(self) -> list[dict[str, Any]]:
        return [
            {
                **{"Name": path.name, "Path": path.name, "Type": "blob"},
                "Size": path.stat().st_size,
                "Sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(self.site.folder.iterdir())
        ]

    def _json(self, data: Any) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str) -> None:
        span = self.headers.get("Range", "")
        self.site.asked.append((self.command, name, span))
        path = self.site.folder / name
        fault = None
        if self.command == "GET" and self.site.faults.get(name):
            fault = self.site.faults[name].pop(0)
        if isinstance(fault, int):
            self._send(fault, b"not now")
            return
        if not path.is_file():
            self._send(404, b"no such file")
            return
        data = path.read_bytes()
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        status, first = 200, 0
        if span and self.headers.get("If-Range", tag) == tag:
            first = int(span[len("bytes=") :].rstrip("-"))
            if first >= len(data):
                self._send(416, b"")
                return
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        data = data[first:]
        if fault == "wrong":
            data = bytes(byte ^ 1 for byte in data)
        self._send(status, data, headers, fault)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, fault: Any = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "hold"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "hold":
                self.site.held.set()
                self.site.go.wait(60)
            self.close_connection = True
            return
        self.wfile.write(data)
