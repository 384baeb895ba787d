"""Requests for files: HTTP with ranges, redirects and proxies of the environment; local files. What
went wrong, in words, and what to do about it: name, token, network, disk.

health.request is for the toolkit's own servers and never goes through a proxy; this goes out.
"""

from __future__ import annotations

import errno
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Union
from urllib.parse import parse_qs, unquote, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from hostkit.base.errors import ActionError
from hostkit.base.values import whole
from hostkit.files import regular
from omnikit.weights.download.types import TransientError, host_of

_OUR_QUERY = {"Revision", "FilePath"}  # of a file on ModelScope
_TOKEN = "set weights.download.token to {file: FILE} or {variable: NAME}"
_NO_HEAD = (400, 403, 405, 501)
_WAIT_MOST_S = 120.0  # longer is not waited because a server asks for it
_MOST_AT_ONCE = 64  # as weights.download.workers allows


class RefusedError(ActionError):
    """A server's no, by its HTTP status."""

    def __init__(self, status: int, what: str, todo: str, where: str) -> None:
        super().__init__(what, where=where, todo=todo)
        self.status = status


def refused(status: int, where: str, *, token: bool, hub: bool = True) -> RefusedError:
    """A server's no. token: whether one was sent. hub: whether it has repositories."""
    what, todo = (_refusal if hub else _web_refusal)(status, token)
    return RefusedError(status, what, todo, plain(where))


def _web_refusal(status: int, token: bool) -> tuple[str, str]:
    """The same of a plain web server: no repositories, no terms, no mirror of a hub."""
    login = f"{_TOKEN}; its text is USER:PASSWORD, or a bearer's token"
    if status == 401:
        what = "does not accept the token" if token else "wants a login"
        return f"the server {what} (HTTP 401).", login
    if status in (403, 404, 410):
        no = "refuses access" if status == 403 else "has no such file"
        todo = "compare weights.download.source with the address that a browser opens"
        return f"the server {no} (HTTP {status}).", todo if token else f"{todo}; a login: {login}"
    return f"the server answers HTTP {status}.", "open the address in a browser"


def _refusal(status: int, token: bool) -> tuple[str, str]:
    """What, and what to do, with a hub."""
    if status == 401:
        what = "the server does not accept the token" if token else "the server wants a token"
        todo = "make a new token there" if token else "make one with the account that has access"
        return f"{what} (HTTP 401), or the name is wrong.", f"{todo}, then {_TOKEN}"
    if status == 403:
        terms = "open its page in a browser, accept its terms with"
        todo = f"{terms} the account of the token" if token else f"{terms} an account; {_TOKEN}"
        return "the server refuses access (HTTP 403): it is gated or private.", todo
    if status == 404:
        return (
            "there is no such file, repository or revision (HTTP 404), or it is private.",
            "compare weights.download.repository, .revision and .source with its page;"
            f" if it is private, {_TOKEN}",
        )
    return f"the server answers HTTP {status}.", "open the address in a browser"


def is_passing(status: int) -> bool:
    """Whether another attempt may have another answer."""
    # 501 is no overload: the server does not know the method.
    return status in (408, 425, 429) or (status >= 500 and status != 501)


def unreachable(
    error: BaseException, where: str, variable: str = ""
) -> Union[ActionError, TransientError]:
    """A request that failed: mostly worth another attempt, not with a wrong certificate.

    variable: of the environment that may name the hub, where it is one.
    """
    if isinstance(_innermost(error), ssl.SSLCertVerificationError):
        return ActionError(
            f"its certificate is not accepted: {cause(error)}.",
            where=plain(where),
            todo="let SSL_CERT_FILE and REQUESTS_CA_BUNDLE name a file with the certificates of"
            " your network's proxy or mirror",
        )
    if isinstance(error, ValueError):  # MissingSchema, InvalidSchema, InvalidURL
        if variable:  # it is from the environment: the setting's has a type
            what, todo = (
                "is no web address",
                f"mend {variable}, or set weights.download.endpoint to http(s)://HOST",
            )
        else:
            # The library's text repeats the address, with what may be a password.
            what = (
                "is no address that can be asked" if "@" in where else f"cannot be asked: {error}"
            )
            todo = "mend it"
        return ActionError(f"{what}.", where=plain(where), todo=todo)
    return TransientError(f"{where}: {cause(error)}" if variable else cause(error))


def cause(error: BaseException) -> str:
    """What happened in the end, without the wrappers of urllib3 and requests."""
    inner = _innermost(error)
    return str(inner) or type(inner).__name__


def _innermost(error: BaseException) -> BaseException:
    inner: Any = error
    while True:
        below = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(below, BaseException):
            found: BaseException = inner
            return found
        inner = below


def no_hub(where: str, variable: str) -> ActionError:
    """Something answers, in another language than the hub's: a web page, mostly."""
    return ActionError(
        "answers, but not as this hub does: it sends no list of a repository's files.",
        where=plain(where),
        todo=f"mend weights.download.endpoint or {variable}: the address of the hub or of a mirror,"
        " without a repository; or look whether a proxy puts its own page in between. A plain"
        " folder of files is named by --source ADDRESS",
    )


def given_up(error: TransientError, where: str, attempts: int, *, hub: bool = True) -> ActionError:
    """The last attempt failed too."""
    setting = "endpoint" if hub else "source"
    return ActionError(
        f"{error}, also at attempt {attempts}.",
        where=plain(where),
        todo="look at the network and at HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or name a mirror"
        f" (weights.download.{setting}); then run again: what is here is kept",
    )


def unreadable(error: OSError, path: Path) -> ActionError:
    """A local file that cannot be read."""
    return ActionError(f"cannot be read: {error.strerror}.", where=str(path), todo="look at it")


def unwritable(error: OSError, folder: Path) -> ActionError:
    """The disk says no."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, todo = (
            "the disk is full; what was fetched is kept.",
            "free some space, then run again",
        )
    else:
        what, todo = f"cannot be written: {error.strerror or error}.", "mend it, then run again"
    return ActionError(what, where=str(error.filename or folder), todo=todo)


def plain(where: str) -> str:
    """An address without what may be a secret: a query that is not ours, a fragment, a password."""
    try:
        parts = urlsplit(where)
    except ValueError:
        return "an address that cannot be read"
    if not parts.netloc and parts.scheme not in ("http", "https"):
        return where
    ours = set(parse_qs(parts.query, keep_blank_values=True)) <= _OUR_QUERY
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query=parts.query if ours else "", fragment="").geturl()


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
            raise TransientError(cause(error)) from error
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
        except RefusedError as error:
            if error.status not in _NO_HEAD:
                raise
            try:
                answer = self.open(url, last=0)
            except RefusedError as ranged:
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
            raise unreachable(error, url) from error
        if response.status_code >= 300:
            response.close()
            raise _no(response, url, offset, bool(self.headers), self.hub)
        return _answer(response, offset)


def _answer(response: requests.Response, offset: int) -> Answer:
    # One that ends early is told by whoever counts, with what was kept.
    response.raw.enforce_content_length = False
    size = whole(response.headers.get("Content-Length"))
    begin = 0
    if response.status_code == 206:
        given, _, total = response.headers.get("Content-Range", "").partition("/")
        first = whole(given.replace("bytes ", "").partition("-")[0])
        begin = -1 if first is None else first
        size = whole(total)
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
    if is_passing(status):
        wait_s = min(_WAIT_MOST_S, float(whole(response.headers.get("Retry-After")) or 0))
        return TransientError(f"HTTP {status} {response.reason}", wait_s)
    return refused(status, url, token=token, hub=hub)


def _local(url: str, offset: int) -> Answer:
    path = Path(unquote(urlsplit(url).path))
    try:
        file = regular.opened(path)
        file.seek(offset)
        status = path.stat()
    except OSError as error:
        raise unreadable(error, path) from error
    return Answer(file, offset, status.st_size, f"mtime:{status.st_mtime_ns}-{status.st_size}")
