"""What went wrong with a download, in words, and what to do: name, token, network, disk."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path
from typing import Any, Union
from urllib.parse import parse_qs, urlsplit

from hostkit.base.errors import ActionError
from omnikit.weights.download.types import TransientError

_OUR_QUERY = {"Revision", "FilePath"}  # of a file on ModelScope
_TOKEN = "set weights.download.token to {file: FILE} or {variable: NAME}"


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
