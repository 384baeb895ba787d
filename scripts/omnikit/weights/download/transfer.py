"""Fetches one file: goes on where an earlier attempt ended, and is kept only when it is verified.

Until then it is NAME.incomplete in the staging folder. Beside it stands what tells its content
from another, so that parts of two versions are never put together.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Callable, Optional

from hostkit.base.errors import ActionError
from hostkit.base.health import wait_until
from omnikit.weights.checkpoint.hashes import Digest
from omnikit.weights.download import request
from omnikit.weights.download.request import Answer, Requests
from omnikit.weights.download.types import Patience, RemoteFile, TransientError

_BLOCK = 1 << 20
# A file that arrives whole with another content is fetched once more: a proxy may have cut it.
_WHOLE_ATTEMPTS = 2


class Stopped(Exception):
    """The run ends: another file failed, or somebody pressed Ctrl-C."""


class Fetch:
    """What all transfers of a run share. passed: gets bytes done, negative when they are lost."""

    def __init__(
        self,
        requests: Requests,
        patience: Patience,
        passed: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self.requests = requests
        self.patience = patience
        self.passed = passed
        self.say = say
        self.stop = threading.Event()
        self.open: set[Answer] = set()

    def halt(self) -> None:
        """All transfers end, also those that wait for a silent server."""
        self.stop.set()
        for answer in list(self.open):
            answer.cut()

    def file(self, wanted: RemoteFile, part: Path) -> str:
        """Fetch a file to part, whole and on the disk; returns its hash.

        Raises ActionError: the server's no, no network, another content, no space.
        Raises Stopped. What was fetched by then is kept for the next run.
        """
        whole = attempt = 0
        delay_s = self.patience.delay_s
        while True:
            attempt += 1
            before = _size(part)
            try:
                return self._attempt(wanted, part)
            except _OtherError as error:
                whole += 1
                self.passed(-_size(part))
                forget(part)
                if whole >= _WHOLE_ATTEMPTS:
                    raise _other(wanted, str(error)) from error
                self.say(f"{wanted.name}: {error}; fetching it again")
            except TransientError as error:
                if self.stop.is_set():
                    raise Stopped from error
                if _size(part) > before:  # it moves: count and delay begin anew
                    attempt, delay_s = 1, self.patience.delay_s
                if attempt >= self.patience.attempts:
                    raise request.given_up(
                        error, wanted.url, attempt, hub=self.requests.hub
                    ) from error
                pause_s = max(delay_s, error.wait_s)
                self.say(f"{wanted.name}: {error}; next attempt in {pause_s:.0f} s")
                wait_until(self.stop.is_set, pause_s, min(0.2, pause_s))
                delay_s *= 2
            if self.stop.is_set():
                raise Stopped

    def _attempt(self, wanted: RemoteFile, part: Path) -> str:
        part.parent.mkdir(parents=True, exist_ok=True)
        size = _size(part)
        beside = _version_file(part)
        known = _text(beside)
        identity = wanted.identity
        if size and (
            not identity or known != identity or (wanted.size is not None and size > wanted.size)
        ):
            forget(part)
            size = 0
        if size == 0 and known != identity:
            beside.write_text(identity, encoding="utf-8")
        if size and size == wanted.size:
            return self._finished(wanted, part, self._digest(wanted, part))
        version = "" if wanted.hash else wanted.version
        answer = self.requests.open(wanted.url, size, version)
        self.open.add(answer)
        try:
            told = wanted.version.startswith(("etag:", "date:", "mtime:"))
            if told and not wanted.hash and answer.version != wanted.version:
                raise _OtherError("the file changed on the server")
            if wanted.size is not None and answer.total not in (None, wanted.size):
                raise _OtherError(f"the server has {answer.total} bytes of it")
            if size and not answer.offset:
                self.passed(-size)  # the server knows no ranges: from the beginning
            with part.open("r+b" if answer.offset else "wb", buffering=0) as file:
                if not answer.offset:
                    digest = Digest(wanted.hash, wanted.size)
                else:
                    digest = self._digest(wanted, part)
                    file.seek(answer.offset)
                count = answer.offset + self._copy(answer, file, digest, wanted)
        finally:
            self.open.discard(answer)
            answer.close()
        total = wanted.size if wanted.size is not None else answer.total
        if total is not None and count < total:
            raise TransientError(f"the connection ended after {count} of {total} bytes")
        return self._finished(wanted, part, digest)

    def _digest(self, wanted: RemoteFile, part: Path) -> Digest:
        """The hash of what is here, which is counted as done."""
        digest = Digest(wanted.hash, wanted.size)
        digest.feed(part, self._go_on)
        return digest

    def _go_on(self, count: int) -> None:
        if self.stop.is_set():
            raise Stopped

    def _copy(self, answer: Answer, file: Any, digest: Digest, wanted: RemoteFile) -> int:
        count = 0
        while not self.stop.is_set():
            data = answer.some(_BLOCK)
            if not data:
                return count
            if wanted.size is not None and answer.offset + count + len(data) > wanted.size:
                raise _OtherError(f"the server sends more than {wanted.size} bytes")
            _write(file, data)
            digest.update(data)
            count += len(data)
            self.passed(len(data))
        raise Stopped

    def _finished(self, wanted: RemoteFile, part: Path, digest: Digest) -> str:
        found = digest.text()
        if wanted.hash and found != wanted.hash:
            raise _OtherError(f"its hash is {found}, published is {wanted.hash}")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        return found


class _OtherError(Exception):
    """Another content than the source has published."""


def _other(wanted: RemoteFile, what: str) -> ActionError:
    return ActionError(
        f"{wanted.name} is not what was published: {what}.",
        where=request.plain(wanted.url),
        todo="run again if it was just changed there; else name another mirror"
        " (weights.download.endpoint or .source)",
    )


def kept(wanted: RemoteFile, part: Path) -> int:
    """Bytes of a file that an earlier run left and this one can use."""
    size = _size(part)
    usable = wanted.identity and _text(_version_file(part)) == wanted.identity
    return size if usable and (wanted.size is None or size <= wanted.size) else 0


def forget(part: Path) -> None:
    """Remove what was fetched of a file."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def moved(part: Path, final: Path) -> None:
    """A verified file takes its place, whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part.replace(final)
    _version_file(part).unlink(missing_ok=True)


def taken_back(wanted: RemoteFile, final: Path, part: Path) -> None:
    """A verified file leaves its place for a while."""
    part.parent.mkdir(parents=True, exist_ok=True)
    _version_file(part).write_text(wanted.identity, encoding="utf-8")
    final.replace(part)


def _write(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.of")


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
