"""A server of model files on the loopback: a plain folder, and what the two hubs' clients ask.

Tests have no Internet, so the hubs are stood in for; their clients, huggingface_hub and modelscope,
are the real ones. The paths and fields below are those that they ask for and read.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator, Optional
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "some/model"
LARGE = 1000  # bytes from which a hub keeps a file apart, with a SHA-256


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class WeightsServer:
    """files: name to content. faults: name to what happens to its next requests, in order; those
    of "list" are for requests for the list of files: a hub's, or a folder's SHA256SUMS.

    A fault: a status ("503"), "cut:N" (the connection ends after N bytes), "hold:N" (silence after
    N bytes until released), "wrong" (other content), "whole" (no ranges). asked: each request.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.faults: dict[str, list[str]] = {}
        self.head_faults: dict[str, int] = {}  # a status for each HEAD of a file
        self.asked: list[tuple[str, str, Optional[str]]] = []
        self.token: Optional[str] = None  # wanted from hubs' clients
        self.gated = False
        self.secrets_at_cdn: list[str] = []
        self.etags = True
        self.page = b""  # answers everything, as a login page does
        self.lengths = True
        self.released = threading.Event()
        self.held = threading.Event()
        server = self

        class Handler(_Handler):
            owner = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> str:
        return f"{self.url}/files"

    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [name for method, name, _ in self.asked if method == "GET"]

    def ranges(self, name: str) -> list[Optional[str]]:
        return [given for method, one, given in self.asked if (method, one) == ("GET", name)]

    def close(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: WeightsServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.owner.page:
            self._send(self.owner.page, "text/html")
            return
        path = unquote(urlsplit(self.path).path)
        query = parse_qs(urlsplit(self.path).query)
        lists = path.startswith("/api/models/") or path.endswith(("/repo/files", "/SHA256SUMS"))
        if lists and self.owner.faults.get("list"):
            self._status(self.owner.faults["list"].pop(0))
            return
        for route in (self._plain, self._huggingface, self._modelscope):
            if route(path, query):
                return
        self._status("404")

    def _plain(self, path: str, query: dict[str, list[str]]) -> bool:
        if path.startswith(("/files/", "/cdn/")):
            if path.startswith("/cdn/"):
                given = (self.headers.get("Authorization"), self.headers.get("Cookie"))
                self.owner.secrets_at_cdn += [one for one in given if one]
            self._file(path.split("/", 2)[2])
            return True
        return False

    def _huggingface(self, path: str, query: dict[str, list[str]]) -> bool:
        if re.fullmatch(rf"/api/models/{REPOSITORY}(/revision/(main|{COMMIT}))?", path):
            if self._hf_allowed():
                siblings = [_sibling(name, data) for name, data in self.owner.files.items()]
                if query.get("blobs") != ["True"]:
                    siblings = [{"rfilename": one["rfilename"]} for one in siblings]
                self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
            return True
        prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
        if path.startswith(prefix):
            name = path[len(prefix) :]
            if not self._hf_allowed():
                return True
            if len(self.owner.files.get(name, b"")) >= LARGE:  # lies with another host
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.owner.port}/cdn/{name}")
                self.end_headers()
            else:
                self._file(name)
            return True
        if path.startswith("/api/models/"):
            missing = "/revision/" in path and path.startswith(f"/api/models/{REPOSITORY}/")
            self._status("404", {"X-Error-Code": "RevisionNotFound" if missing else "RepoNotFound"})
            return True
        return False

    def _hf_allowed(self) -> bool:
        given = self.headers.get("Authorization")
        if self.owner.token and given != f"Bearer {self.owner.token}":
            self._status("401", {"X-Error-Code": "GatedRepo"} if self.owner.gated else {})
            return False
        if self.owner.gated:
            self._status("403", {"X-Error-Code": "GatedRepo"})
            return False
        return True

    def _modelscope(self, path: str, query: dict[str, list[str]]) -> bool:
        if not path.startswith(f"/api/v1/models/{REPOSITORY}/repo"):
            return False
        cookie = self.headers.get("Cookie") or ""
        if self.owner.token and f"m_session_id={self.owner.token}" not in cookie:
            self._status("403")
        elif query["Revision"] != ["master"]:
            self._json({"Code": 10010204007, "Success": False, "Message": "no such revision"})
        elif path.endswith("/repo/files"):
            assert query["Recursive"] == ["True"]
            files = [_entry(name, data) for name, data in self.owner.files.items()]
            folder = {"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0}
            self._json({"Code": 200, "Success": True, "Data": {"Files": [folder, *files]}})
        else:
            self._file(query["FilePath"][0])
        return True

    def _file(self, name: str) -> None:
        owner = self.owner
        given = self.headers.get("Range")
        owner.asked.append((self.command, name, given))
        data = owner.files.get(name)
        faults = owner.faults.get(name, [])
        fault = faults.pop(0) if faults and self.command == "GET" else ""
        if self.command == "HEAD" and name in owner.head_faults:
            self._status(str(owner.head_faults[name]))
            return
        if data is None or fault.isdigit():
            self._status(fault or "404")
            return
        etag = f'"{sha256(data)[:16]}"' if owner.etags else ""
        if fault == "wrong":
            data = bytes(len(data))
        begin = 0
        same = self.headers.get("If-Range") in (None, etag)
        whole = len(data)
        ranged = given is not None and fault != "whole" and same
        if given and ranged:
            first, _, last = given[len("bytes=") :].partition("-")
            begin = int(first)
            if begin >= whole:
                self._status("416")
                return
            data = data[: int(last) + 1] if last else data
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{whole}")
        if self.owner.lengths:
            self.send_header("Content-Length", str(len(data) - begin))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        if self.command == "GET":
            for part in _parts(data[begin:], fault):
                self.wfile.write(part)
            if fault.startswith("hold"):
                owner.held.set()
                owner.released.wait(60)

    def _json(self, data: Any) -> None:
        self._send(json.dumps(data).encode(), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _status(self, status: str, headers: Optional[dict[str, str]] = None) -> None:
        self.send_response(int(status))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _parts(data: bytes, fault: str) -> Iterator[bytes]:
    kind, _, count = fault.partition(":")
    yield data[: int(count)] if kind in ("cut", "hold") else data


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    made: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
    if len(data) >= LARGE:
        made["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
    return made


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {
        "Name": name.rpartition("/")[2],
        "Path": name,
        "Type": "blob",
        "Size": len(data),
        "Sha256": sha256(data),
        "Revision": COMMIT,
    }
