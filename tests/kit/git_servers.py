"""Real git servers on the loopback: git's own daemon, and git over HTTP with a log-in."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator

from docker_host import wait_for
from port_rooms import free_port

USER, PASSWORD = "reader", "s3cret-pass"


@contextmanager
def git_daemon(folder: Path) -> Iterator[int]:
    """Serve every repository below a folder by git://127.0.0.1:PORT/NAME; yields the port."""
    port = free_port()
    words = ["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={folder}"]
    daemon = subprocess.Popen(
        [*words, "--listen=127.0.0.1", f"--port={port}", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    name = next(folder.iterdir()).name
    try:
        wait_for(
            lambda: not subprocess.run(
                ["git", "ls-remote", f"git://127.0.0.1:{port}/{name}"], capture_output=True
            ).returncode,
            "git daemon answers",
        )
        yield port
    finally:
        daemon.terminate()
        daemon.wait(timeout=20)


@contextmanager
def git_over_http(folder: Path, *, busy: int = 0) -> Iterator[str]:
    """git's own HTTP backend for the repositories below a folder, behind a log-in.

    Yields HOST:PORT. busy: so many requests get a 503 first.
    """
    left = [busy]

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if left[0] > 0:
                left[0] -= 1
                self.send_error(503)
                return
            if self.headers.get("Authorization") != f"Basic {login}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            size = int(self.headers.get("Content-Length") or 0)
            done = subprocess.run(
                ["git", "http-backend"],
                input=self.rfile.read(size),
                capture_output=True,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                },
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            fields = [line.split(": ", 1) for line in head.decode().splitlines()]
            status = next((value for name, value in fields if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, value in fields:
                if name != "Status":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _serve

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is for the test."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
