"""Git on this host: its commands, what it may be asked for, and what its failures mean."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence
from urllib.parse import unquote, urlsplit, urlunsplit

from hostkit.base import faults, run
from hostkit.base.command import Ended
from hostkit.base.errors import ActionError, InputError
from hostkit.base.faults import NETWORK, REFUSED, SPACE, Fault, Meaning

COMMIT = re.compile(r"[0-9a-f]{40}")
VLLM = Path("infer_engines/vllm")  # in omni-infer's source
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_URL = re.compile(r"(https?|ssh|git|file)://[^\s]+|[A-Za-z0-9][\w.@-]*:(?!//)[^:\s-][^\s]*|/[^\s]*")
_PASSWORD = re.compile(r"(://)[^/\s@]*@")
# Nothing of the folder's own may start programs, and nothing goes on behind our back.
_SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false")
_BY_HAND = "look whether it answers from here: git ls-remote {url}"
_FULL = Meaning(
    SPACE,
    "no space left on device|disk quota exceeded|out of diskspace",
    "no space is left on the disk",
    "make room (df -h {folder}) and run this again: it goes on",
)
_SILENT = Meaning(NETWORK, "", "nothing came for a long time", _BY_HAND)
_MEANINGS = (
    _FULL,
    Meaning(
        REFUSED,
        "detected dubious ownership|unsafe repository",
        "the folder belongs to another user, and git does not trust it",
        "run this as its owner, or trust that folder: git config --global --add safe.directory DIR",
    ),
    Meaning(
        REFUSED,
        "authentication failed|could not read username|could not read password"
        r"|permission denied \(|returned error: 401|returned error: 403|access denied",
        "the server does not let this host have it (no or wrong log-in, or no such repository)",
        "try it by hand: git ls-remote {url}; a log-in goes into git's credential store"
        " (git help credentials)",
    ),
    Meaning(
        REFUSED,
        "host key verification failed",
        "the host key of the git server is not known here, or has changed",
        "log in to it once by hand and compare its key: ssh {url}",
    ),
    Meaning(
        REFUSED,
        "certificate|ssl: no alternative|unable to get local issuer",
        "the server's certificate is not trusted here",
        "add its CA to this host's trusted ones, or: git config --global http.sslCAInfo FILE",
    ),
    Meaning(
        REFUSED,
        "not our ref|unadvertised object",
        "the server has no such commit, or gives commits only by a tag or branch",
        "set the reference to a tag or branch, and the commit to what it must be",
    ),
    Meaning(
        NETWORK,
        "could not resolve host|connection refused|connection timed out|connection reset"
        "|early eof|rpc failed|hung up|failed to connect|network is unreachable|timed out"
        "|returned error: 5|returned error: 429|gnutls_handshake|ssl_read|couldn't connect"
        "|unexpected disconnect|empty reply|no route to host|invalid index-pack output"
        "|temporary failure|name or service not known|ssl_error_syscall|unexpected eof"
        "|broken pipe|connection closed by|curl 18|fetch-pack: unexpected|unable to connect to",
        "the server cannot be reached, or the connection was cut",
        _BY_HAND,
    ),
    Meaning(
        REFUSED,
        "not found|does not appear to be a git|does not exist|returned error: 404",
        "there is no such repository",
        _BY_HAND,
    ),
    Meaning(REFUSED, "", "git failed", _BY_HAND),
)


@dataclass(frozen=True)
class Source:
    """A URL as git is told it. env: its log-in, which is in no argv and in no file of the clone."""

    url: str
    env: dict[str, str]


def program(timeout_s: float) -> None:
    """Raise InputError when there is no git that works."""
    if shutil.which("git") is None:
        raise InputError(
            "git is not installed here.",
            todo="install it (openEuler: dnf install git; Debian, Ubuntu: apt-get install git)",
        )
    run.run(["git", "--version"], timeout=timeout_s)


def words(folder: Optional[Path], *more: str) -> list[str]:
    """A git command, in a folder's clone or without one."""
    argv = ["git", *(word for setting in _SAFE for word in ("-c", setting))]
    if folder is not None:
        # Named outright: a folder without a clone of its own must not mean one that is above it.
        argv += [f"--git-dir={folder}/.git", f"--work-tree={folder}", "-C", str(folder)]
    return [*argv, *more]


def environment(timeout_s: float, proxy: Optional[str] = None) -> dict[str, str]:
    """Variables for git: it asks nobody, in English, and only by protocols that fetch."""
    ssh = f"ssh -oBatchMode=yes -oConnectTimeout={timeout_s:.0f} -oServerAliveInterval=15"
    env = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "SSH_ASKPASS": "true",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", ssh),
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }
    if proxy:
        env.update(http_proxy=proxy, https_proxy=proxy)
    return env


def check_url(url: str) -> None:
    """Raise InputError when a URL is none that may be fetched from."""
    if not _URL.fullmatch(url) or "::" in url.split("/")[0]:
        raise InputError(
            f"{hide(url)!r} is no address to clone from.",
            todo="write https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, git://HOST/PATH,"
            " file:///PATH or /PATH",
        )


def check_ref(ref: str) -> None:
    """Raise InputError when a reference is none that may be asked for."""
    if not _REF.fullmatch(ref) or ".." in ref or "//" in ref or ref.endswith((".lock", "/", ".")):
        raise InputError(
            f"{ref!r} is not a tag, branch or commit.",
            todo="write a name of letters, digits, / . _ + -, beginning with a letter or digit",
        )


def source(url: str) -> Source:
    """A URL whose password, if it has one, is handed over by a variable."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.password:
        return Source(url, {})
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    place = host + (f":{parts.port}" if parts.port else "")
    bare = urlunsplit(parts._replace(netloc=place))
    login = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
    value = base64.b64encode(login.encode()).decode()
    return Source(
        bare,
        {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{bare}.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {value}",
        },
    )


def hide(text: str) -> str:
    """Text in which no URL shows a log-in."""
    return _PASSWORD.sub(r"\1", text)


def same(one: str, other: str) -> bool:
    """Whether two URLs mean the same place, apart from log-in and ending."""

    def bare(url: str) -> str:
        return re.sub(r"(\.git)?/*$", "", hide(url).removeprefix("file://"))

    return bare(one) == bare(other)


def fault(ended: Ended, url: str, folder: Optional[Path] = None) -> Fault:
    """What a failed fetch means."""
    seen = hide(url)
    table = (_FULL, _SILENT) if ended.stalled else _MEANINGS
    known = {"url": shlex.quote(seen), "folder": folder}
    return faults.read(ended.said, seen, table, known, ended.tail)


def ask(folder: Path, *more: str, timeout_s: float) -> str:
    """The answer of a quick command in a clone. Raises ActionError."""
    argv = words(folder, *more)
    done = run.run(argv, env=environment(timeout_s), check=False, timeout=timeout_s)
    if done.code != 0:
        failed = fault(Ended(done.code, hide(done.err + done.out)), str(folder), folder)
        raise ActionError(
            f"{failed.why}: {run.show(['git', *more])}\n{hide(done.tail)}",
            where=str(folder),
            todo=failed.todo if failed.why != "git failed" else f"git -C {folder} status",
        )
    return done.out


def entries(text: str) -> Sequence[str]:
    """The parts of an answer that is separated by NUL."""
    return [part for part in text.split("\0") if part]
