"""The source that the settings name: a hub, a web address or a folder of this machine. Refused when
it can be none; asked for its files, again when the network fails.

An address may hold a secret (a password, a token in its query): no message repeats such a part.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar
from urllib.parse import quote, unquote, urlsplit

from hostkit.base.errors import InputError
from hostkit.base.health import wait_until
from omnikit.weights.download import published, request
from omnikit.weights.download.request import Requests
from omnikit.weights.download.types import (
    Listing,
    Patience,
    RemoteFile,
    TransientError,
    host_of,
)

HUBS: dict[str, Callable[..., Listing]] = {
    "modelscope": published.modelscope,
    "huggingface": published.huggingface,
}
Asked = TypeVar("Asked")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SETTING = "weights.download.source"
_WEB = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(https?|file):", re.IGNORECASE)
_KNOWN = "http://HOST/FOLDER, https://HOST/FOLDER, file:///FOLDER, or a folder's path"
_SMALL = 64 << 20  # of an index


def listing(given: Any, token: Optional[str], say: Callable[[str], None]) -> Listing:
    """The files of the source in the settings weights.download. Raises InputError, ActionError."""
    sums = None
    if given.checksums:
        path = expanded(given.checksums, "weights.download.checksums")
        sums = published.read_sums(path, "mend weights.download.checksums (--checksums)")
    hub = given.source in HUBS
    where = given.endpoint or given.source if hub else given.source
    return _patiently(lambda: _listing(given, token, sums), given, say, where=where, hub=hub)


def text_of(
    file: RemoteFile, listed: Listing, patience: Patience, say: Callable[[str], None]
) -> bytes:
    """The content of a small file, in memory. Raises ActionError."""

    def ask() -> bytes:
        requests = Requests(patience.timeout_s, listed.host, listed.headers, listed.hub)
        return requests.open(file.url).read(_SMALL)

    return _patiently(ask, patience, say, where=file.url, hub=listed.hub)


def _patiently(
    ask: Callable[[], Asked],
    patience: Patience,
    say: Callable[[str], None],
    *,
    where: str,
    hub: bool,
) -> Asked:
    attempt, delay_s = 1, patience.delay_s
    while True:
        try:
            return ask()
        except TransientError as error:
            if attempt >= patience.attempts:
                raise request.given_up(error, where, attempt, hub=hub) from error
            pause_s = max(delay_s, error.wait_s)
            say(f"{error}; next attempt in {pause_s:.0f} s")
            wait_until(lambda: False, pause_s, pause_s)
        attempt, delay_s = attempt + 1, delay_s * 2


def check(given: Any) -> None:
    """Raises InputError: the settings name no source that could be asked."""
    if given.source not in HUBS:
        check_place(given.source)
        if given.repository:
            raise InputError(
                f"repository is set, but {request.plain(given.source)} is no hub.",
                where="weights.download.repository",
                todo=f"--source {' or '.join(HUBS)}, or leave the repository out",
            )
    elif not given.repository or not _REPOSITORY.fullmatch(given.repository):
        raise InputError(
            f"found {given.repository or 'none'}, expected a repository's name,"
            " for example deepseek-ai/DeepSeek-R1.",
            where="weights.download.repository",
            todo="--repository OWNER/NAME, as on its page",
        )


def _listing(given: Any, token: Optional[str], sums: Optional[dict[str, str]]) -> Listing:
    if given.source in HUBS:
        found = HUBS[given.source](given, token)
        return found if sums is None else _with_sums(found, sums)
    if is_web(given.source):
        base = address(given.source)
        headers = {"Authorization": _authorization(token)} if token else {}
        requests = Requests(given.timeout_s, host_of(base), headers, hub=False)
        return published.of_url(base, requests, sums)
    return published.of_folder(folder_named(given.source), sums)


def folder(given: Any) -> Optional[Path]:
    """The folder that is the source, None for hubs and addresses. Raises InputError."""
    remote = given.source in HUBS or is_web(given.source)
    return None if remote else folder_named(given.source)


def _authorization(token: str) -> str:
    """USER:PASSWORD is HTTP's basic way, anything else a bearer's token."""
    if ":" in token:
        return f"Basic {base64.b64encode(token.encode()).decode()}"
    return f"Bearer {token}"


def _with_sums(found: Listing, sums: dict[str, str]) -> Listing:
    published.all_there(sums, {file.name for file in found.files}, found.origin, {})
    files = [replace(file, hash=sums.get(file.name, file.hash)) for file in found.files]
    return replace(found, files=files)


def scheme(source: str) -> str:
    """http, https, file, another one, or empty for a path."""
    found = _SCHEME.match(source)
    return (found[1] or found[2]).lower() if found else ""


def is_web(source: str) -> bool:
    """Whether it is asked for by HTTP."""
    return scheme(source) in _WEB


def check_place(source: str) -> None:
    """Raises InputError: it is no address or path that could name the folder of a checkpoint."""
    kind = scheme(source)
    if not kind:
        return
    if kind not in (*_WEB, "file"):
        raise InputError(
            f"found the scheme {kind}://, known are http://, https:// and file://.",
            where=_SETTING,
            todo=f"give {_KNOWN}",
        )
    if "?" in source or "#" in source:
        raise InputError(
            "found an address with a query or a fragment (? or #); one of a folder has none,"
            " for the files' names are put behind it.",
            where=_SETTING,
            todo="leave it out; a token goes into weights.download.token, as a file or a variable;"
            " in a folder's name, ? is written %3F and # is %23",
        )
    if kind == "file":
        _check_file(source)
    else:
        _check_web(source)


def _check_web(source: str) -> None:
    try:
        parts = urlsplit(source)
        host = parts.hostname if parts.port != 0 else None
        address(source)
    except ValueError:  # its text may repeat a password
        host = None
    if not host or "@" in parts.netloc:
        raise InputError(
            "found an address with a user's name or without a host and port that can be read.",
            where=_SETTING,
            todo="give USER:PASSWORD by weights.download.token, as a file or a variable",
        ) from None


def _check_file(source: str) -> None:
    host, path = urlsplit(source)[1:3]
    if host not in ("", "localhost") or not path.startswith("/"):
        raise InputError(
            f"found file: with the host {host.rpartition('@')[2] or 'none'} and no whole path;"
            " only files of this machine can be read so.",
            where=_SETTING,
            todo="give file:///FOLDER with the whole path, or the folder's path alone",
        )


def address(source: str) -> str:
    """A web address with its end slash, as it is sent: what is not yet encoded is encoded.

    So blanks and names in any script can be given as they are read. Raises ValueError.
    """
    parts = urlsplit(source)
    encoded = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", encoded).rstrip("/") + "/"
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return parts._replace(netloc=host, path=path).geturl()


def folder_named(source: str) -> Path:
    """The folder that a path or a file: address names. Raises InputError: no such user's home."""
    if scheme(source) == "file":
        return Path(unquote(urlsplit(source).path))
    return expanded(source, _SETTING)


def expanded(text: str, where: str) -> Path:
    """A path with the home folder in place of ~. Raises InputError: it is nobody's."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"found {text.partition('/')[0]}, and there is no such user with a home folder here.",
            where=where,
            todo="write the whole path",
        ) from error


def check_apart(source: Path, target: Path) -> None:
    """Raises InputError: one folder is the other, or lies in it."""
    if not source.is_dir():
        return  # is told when it is asked
    above, below = source.resolve(), target.resolve()
    if above == below:
        raise InputError("source and target are the same folder.", where=str(target))
    if above in below.parents or below in above.parents:
        inner, outer = ("target", "source") if above in below.parents else ("source", "target")
        raise InputError(
            f"the {inner} lies in the {outer}, {min(above, below, key=lambda one: len(one.parts))}:"
            " one run would fetch what another has written.",
            where=str(target if inner == "target" else source),
            todo="choose a --target beside the source",
        )
