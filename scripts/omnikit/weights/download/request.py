"""Requests for files: HTTP with ranges, redirects and proxies of the environment; local files.

health.request is for the toolkit's own servers and never goes through a proxy; this goes out.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Union
from urllib.parse import unquote, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from hostkit.base.errors import ActionError
from hostkit.files import regular
from omnikit.weights.download import faults
from omnikit.weights.download.types import TransientError, host_of

_NO_HEAD = (400, 403, 405, 501)
_WAIT_MOST_S = 120.0  # longer is not waited because a server asks for it
_MOST_AT_ONCE = 64  # as weights.download.workers allows


@dataclass(eq=False)
class Answer:
    """An open file. offset: where its data begins. total: bytes of the whole file."""

    stream: Any
    offset: int
    total: Optional[int]
    version: str
    content_type: str = ""

    def some(self, size: int) -> bytes:
        """What is there, at most size bytes; none at the end. A slow line is seen to move, and
        nothing is held back. Raises TransientError: the connection failed.
        """
        try:
            data: bytes = self.stream.read1(size)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise TransientError(faults.cause(error)) from error
        return data

    def read(self, most: int) -> bytes:
        """The whole of a small file, and its end. Raises TransientError."""
        found = bytearray()
        try:
            while len(found) < most and (data := self.some(most - len(found))):
                found += data
        finally:
            self.close()
        if self.total is not None and len(found) < min(self.total, most):
            raise TransientError(f"the connection ended after {len(found)} of {self.total} bytes")
        return bytes(found)

    def close(self) -> None:
        """End the transfer, whether complete or not."""
        self.stream.close()

    def cut(self) -> None:
        """End it from another thread: one that reads from a silent server sees its end."""
        # Of an answer that was just read to its end, there is no connection any more.
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            self.stream.shutdown()


class _SystemTrust(HTTPAdapter):
    """Accepts what this machine does (SSL_CERT_FILE, the system's certificates), besides requests'
    own list, which REQUESTS_CA_BUNDLE replaces.
    """

    def init_poolmanager(self, *given: Any, **more: Any) -> None:
        more["ssl_context"] = ssl.create_default_context()
        super().init_poolmanager(*given, **more)  # type: ignore[no-untyped-call]

    def proxy_manager_for(self, proxy: Any, **more: Any) -> Any:
        more["ssl_context"] = ssl.create_default_context()
        return super().proxy_manager_for(proxy, **more)  # type: ignore[no-untyped-call]


class _Session(requests.Session):
    """Sends secret headers to their host, and to no other that it redirects to: a CDN has its own.
    A ~/.netrc is not asked.
    """

    def __init__(self, host: str, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.secret_of, self.secret = host, headers
        self.auth = self._signed
        for scheme in ("http://", "https://"):
            self.mount(scheme, _SystemTrust(pool_maxsize=_MOST_AT_ONCE))

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if host_of(request.url or "") == self.secret_of:
            request.headers.update(self.secret)
        return request

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        for name in self.secret:
            prepared_request.headers.pop(name, None)
        if urlsplit(prepared_request.url)[:2] == urlsplit(response.url)[:2]:
            self._signed(prepared_request)


class Requests:
    """Opens files of one source. headers: secrets, for host alone. hub: it has repositories."""

    def __init__(
        self,
        timeout_s: float,
        host: str = "",
        headers: Optional[Mapping[str, str]] = None,
        hub: bool = True,
    ) -> None:
        self.hub = hub
        self.timeout_s = timeout_s
        self.host = host
        self.headers = headers or {}
        self.session = _Session(host, self.headers)

    def look(self, url: str) -> Answer:
        """Size and version of a file, closed. Raises what open raises.

        Servers of signed addresses refuse HEAD, for it is not what was signed, and some do not know
        it: they are asked for one byte. An empty file has none, which is 416.
        """
        try:
            answer = self.open(url, method="HEAD")
        except faults.RefusedError as error:
            if error.status not in _NO_HEAD:
                raise
            try:
                answer = self.open(url, last=0)
            except faults.RefusedError as ranged:
                if ranged.status != 416:
                    raise
                answer = self.open(url)
        answer.close()
        return answer

    def open(
        self,
        url: str,
        offset: int = 0,
        version: str = "",
        method: str = "GET",
        last: Optional[int] = None,
    ) -> Answer:
        """A file from offset on, or from its beginning where the server knows no ranges.

        version: of the first part of the content; another answers from the beginning. last: the
        last byte that is wanted, None: to the end.
        Raises TransientError, or ActionError for what another attempt does not mend.
        """
        if urlsplit(url).scheme == "file":
            return _local(url, offset)
        headers = {"User-Agent": "omnikit", "Accept-Encoding": "identity"}
        if offset or last is not None:
            headers["Range"] = f"bytes={offset}-{'' if last is None else last}"
            if version.startswith(('etag:"', "date:")):
                headers["If-Range"] = version.partition(":")[2]
        try:
            response = self.session.request(
                method,
                url,
                headers=headers,
                timeout=self.timeout_s,
                stream=True,
                allow_redirects=True,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise faults.unreachable(error, url) from error
        if response.status_code >= 300:
            response.close()
            raise _no(response, url, offset, bool(self.headers), self.hub)
        return _answer(response, offset)


def _answer(response: requests.Response, offset: int) -> Answer:
    # One that ends early is told by whoever counts, with what was kept.
    response.raw.enforce_content_length = False
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdigit() else None
    begin = 0
    if response.status_code == 206:
        given, _, whole = response.headers.get("Content-Range", "").partition("/")
        first = given.replace("bytes ", "").partition("-")[0]
        begin = int(first) if first.isdigit() else -1
        size = int(whole) if whole.isdigit() else None
        if begin != offset:
            response.close()
            raise TransientError(f"asked for bytes from {offset}, got them from {begin}")
    etag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    version = f"etag:{etag}" if etag else f"date:{date}" if date else ""
    return Answer(response.raw, begin, size, version, response.headers.get("Content-Type", ""))


def _no(
    response: requests.Response, url: str, offset: int, token: bool, hub: bool
) -> Union[ActionError, TransientError]:
    status = response.status_code
    if status == 416 and offset:
        return TransientError("the file on the server is shorter than what is here")
    if faults.is_passing(status):
        after = response.headers.get("Retry-After", "")
        wait_s = min(_WAIT_MOST_S, float(after)) if after.isdigit() else 0.0
        return TransientError(f"HTTP {status} {response.reason}", wait_s)
    return faults.refused(status, url, token=token, hub=hub)


def _local(url: str, offset: int) -> Answer:
    path = Path(unquote(urlsplit(url).path))
    try:
        file = regular.opened(path)
        file.seek(offset)
        status = path.stat()
    except OSError as error:
        raise faults.unreadable(error, path) from error
    return Answer(file, offset, status.st_size, f"mtime:{status.st_mtime_ns}-{status.st_size}")
