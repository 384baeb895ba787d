"""Where a source is: an address, or a folder of this machine; refused when it can be neither.

An address may hold a secret (a password, a token in its query): no message repeats such a part.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from omnikit.errors import InputError

_SETTING = "weights.download.source"
_WEB = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(https?|file):", re.IGNORECASE)
_KNOWN = "http://HOST/FOLDER, https://HOST/FOLDER, file:///FOLDER, or a folder's path"


def scheme(source: str) -> str:
    """http, https, file, another one, or empty for a path."""
    found = _SCHEME.match(source)
    return (found[1] or found[2]).lower() if found else ""


def is_web(source: str) -> bool:
    """Whether it is asked for by HTTP."""
    return scheme(source) in _WEB


def check(source: str) -> None:
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


def folder(source: str) -> Path:
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
