"""Python's own web server of a folder, as python -m http.server runs it."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional


class FolderServer:
    """head: a status that every HEAD gets. asked: each request."""

    def __init__(self, folder: Path, head: Optional[int] = None) -> None:
        self.head = head
        self.asked: list[tuple[str, str, Optional[str]]] = []
        made = partial(_Handler, self, directory=str(folder))
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), made)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, owner: FolderServer, *given: Any, **named: Any) -> None:
        self.owner = owner
        super().__init__(*given, **named)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.owner.asked.append(("GET", self.path, self.headers.get("Range")))
        super().do_GET()

    def do_HEAD(self) -> None:
        self.owner.asked.append(("HEAD", self.path, None))
        if self.owner.head:
            self.send_error(self.owner.head)
        else:
            super().do_HEAD()
