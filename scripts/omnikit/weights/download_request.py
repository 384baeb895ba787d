"""Requests for files: HTTP with ranges, redirects and proxies of the environment; local files.

health.request is for the toolkit's own servers and never goes through a proxy; this goes out.
"""

from __future__ import annotations

import email.message
import http.client
import os
import shutil
import socket
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Mapping, Optional, Union
from urllib.parse import unquote, urlsplit

from omnikit.errors import ActionError
from omnikit.weights import download_faults
from omnikit.weights.download_types import TransientError, host_of

_NO_HEAD = (400, 403, 405, 501)
_WAIT_MOST_S = 120.0  # longer is not waited because a server asks for it


@dataclass(eq=False)
class Answer:
    """An open file. offset: where its data begins. total: bytes of the whole file."""

    stream: Any
    offset: int
    total: Optional[int]
    version: str
    content_type: str = ""

    def close(self) -> None:
        """End the transfer, whether complete or not."""
        self.stream.close()

    def cut(self) -> None:
        """End it from another thread: one that reads from a silent server sees its end."""
        with (
            # AttributeError: http.client's, of an answer that was just read to its end.
            suppress(OSError, ValueError, AttributeError),
            socket.socket(fileno=os.dup(self.stream.fileno())) as to,
        ):
            to.shutdown(socket.SHUT_RDWR)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Sends the secret headers on to the same host, and to no other: a CDN has its own."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Optional[urllib.request.Request]:
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None:
            made.method = req.method  # HEAD stays HEAD
            same = urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]
            for name, value in req.unredirected_hdrs.items() if same else ():
                made.add_unredirected_header(name, value)
        return made


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
        self.opener = urllib.request.build_opener(_Redirects())

    def look(self, url: str) -> Answer:
        """Size and version of a file, closed. Raises what open raises.

        Servers of signed addresses refuse HEAD, for it is not what was signed, and some do not know
        it: they are asked for one byte. An empty file has none, which is 416.
        """
        try:
            answer = self.open(url, method="HEAD")
        except download_faults.RefusedError as error:
            if error.status not in _NO_HEAD:
                raise
            try:
                answer = self.open(url, last=0)
            except download_faults.RefusedError as ranged:
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
        request = urllib.request.Request(url, method=method)
        request.add_header("User-Agent", "omnikit")
        request.add_header("Accept-Encoding", "identity")
        if offset or last is not None:
            request.add_header("Range", f"bytes={offset}-{'' if last is None else last}")
            if version.startswith(('etag:"', "date:")):
                request.add_header("If-Range", version.partition(":")[2])
        for name, value in self.headers.items() if host_of(url) == self.host else ():
            request.add_unredirected_header(name, value)
        try:
            answer = self.opener.open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise _no(error, url, offset, bool(self.headers), self.hub) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise download_faults.unreachable(error, url) from error
        return _answer(answer, offset)


def _answer(answer: Any, offset: int) -> Answer:
    headers: email.message.Message = answer.headers
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdigit() else None
    begin = 0
    if answer.status == 206:
        given, _, whole = headers.get("Content-Range", "").partition("/")
        first = given.replace("bytes ", "").partition("-")[0]
        begin = int(first) if first.isdigit() else -1
        size = int(whole) if whole.isdigit() else None
        if begin != offset:
            answer.close()
            raise TransientError(f"asked for bytes from {offset}, got them from {begin}")
    etag, date = headers.get("ETag", ""), headers.get("Last-Modified", "")
    version = f"etag:{etag}" if etag else f"date:{date}" if date else ""
    return Answer(answer, begin, size, version, headers.get("Content-Type", ""))


def _no(
    error: urllib.error.HTTPError, url: str, offset: int, token: bool, hub: bool
) -> Union[ActionError, TransientError]:
    if error.code == 416 and offset:
        return TransientError("the file on the server is shorter than what is here")
    # 501 is no overload: the server does not know the method.
    if error.code in (408, 425, 429) or (error.code >= 500 and error.code != 501):
        after = error.headers.get("Retry-After", "") if error.headers else ""
        wait_s = min(_WAIT_MOST_S, float(after)) if after.isdigit() else 0.0
        return TransientError(f"HTTP {error.code} {error.reason}", wait_s)
    return download_faults.refused(error.code, url, token=token, hub=hub)


def _local(url: str, offset: int) -> Answer:
    path = Path(unquote(urlsplit(url).path))
    try:
        file = path.open("rb")
        file.seek(offset)
        status = path.stat()
    except OSError as error:
        raise download_faults.unreadable(error, path) from error
    return Answer(file, offset, status.st_size, f"mtime:{status.st_mtime_ns}-{status.st_size}")


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is or will be."""
    absolute = folder.absolute()
    above = next(one for one in (absolute, *absolute.parents) if one.is_dir())
    return shutil.disk_usage(above).free
