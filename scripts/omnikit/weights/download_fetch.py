"""One file, fetched: where a cut left it, the next attempt goes on."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from omnikit.errors import ActionError, InputError
from omnikit.weights.download_sources import Remote, refusal, unreachable

_STEP = 1 << 16  # at most as much is lost when a connection is cut
# What may pass by itself: time-outs, too many requests, a server or gateway in trouble.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class Stopped(ActionError):
    """Another file's failure ended this one."""


class _TryAgain(Exception):
    """A fault that may pass. delay_s: as the server asked, if it did."""

    def __init__(self, error: Exception, delay_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.delay_s = delay_s


@dataclass
class Fetcher:
    """attempts: that bring nothing new, in a row. stop: set when all shall end. on_bytes: told of
    bytes that came, or (negative) that were thrown away.
    """

    headers: Mapping[str, str]
    attempts: int
    delay_s: float
    timeout_s: float
    stop: threading.Event
    on_bytes: Callable[[int], None]
    say: Callable[[str], None]

    def fetch(self, remote: Remote, part: Path) -> str:
        """Bring a file into part, whole; returns its SHA-256.

        Raises InputError, ActionError: refused, not there, not to be had, not what was published.
        """
        failures = 0
        while True:
            before = _size(part)
            try:
                if "://" in remote.url:
                    self._from_web(remote, part)
                else:
                    self._from_disk(remote, part)
                return self._checked(remote, part)
            except _TryAgain as again:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= self.attempts:
                    raise again.error from again
                delay = max(self.delay_s * 2 ** (failures - 1), again.delay_s)
                self.say(f"{remote.name}: {_line(again.error)}; again in {delay:g} s")
                if self.stop.wait(delay):
                    raise Stopped(f"{remote.name}: stopped.") from again

    def _checked(self, remote: Remote, part: Path) -> str:
        size = _size(part)
        if remote.size is not None and size < remote.size:
            raise _TryAgain(
                ActionError(f"{remote.name}: ended after {size} of {remote.size} bytes.")
            )
        found = sha256(part)
        wrong = None
        if remote.size is not None and size != remote.size:
            wrong = f"has {size} bytes, published are {remote.size}"
        elif remote.sha256 and found != remote.sha256:
            wrong = f"has SHA-256 {found[:12]}…, published is {remote.sha256[:12]}…"
        if wrong is None:
            return found
        self._drop(part)
        raise _TryAgain(
            ActionError(
                f"{remote.name}: {wrong}: not taken.",
                todo="run again; if it stays so, the mirror has another file: try another one",
            )
        )

    def _drop(self, part: Path) -> None:
        self.on_bytes(-_size(part))
        part.unlink(missing_ok=True)
        _tag_file(part).unlink(missing_ok=True)

    def _from_disk(self, remote: Remote, part: Path) -> None:
        try:
            with Path(remote.url).open("rb") as source:
                told = os.fstat(source.fileno())
                self._begin(part, f"{told.st_size} {told.st_mtime_ns}")
                source.seek(_size(part))
                self._append(part, iter(lambda: source.read(_STEP), b""))
        except OSError as error:
            raise _disk(error, part) from error

    def _from_web(self, remote: Remote, part: Path) -> None:
        import requests

        there = _size(part)
        if remote.size is not None and there == remote.size:
            return
        headers = {**self.headers, "Accept-Encoding": "identity"}
        tag = _tag_file(part).read_text() if _tag_file(part).exists() else ""
        if there and tag:
            headers.update({"Range": f"bytes={there}-", "If-Range": tag})
        try:
            with requests.get(
                remote.url, headers=headers, stream=True, timeout=self.timeout_s
            ) as answer:
                self._answered(remote, part, answer)
        except requests.RequestException as error:
            raise _TryAgain(unreachable(remote.name, error)) from error
        except OSError as error:
            raise _disk(error, part) from error

    def _answered(self, remote: Remote, part: Path, answer: Any) -> None:
        status = answer.status_code
        if status == 416:  # there is more here than there: another file
            self._drop(part)
            raise _TryAgain(ActionError(f"{remote.name}: has changed on the server."))
        if status not in (200, 206):
            if status in _PASSING:
                after = answer.headers.get("Retry-After", "")
                delay = float(after) if after.isdigit() else 0.0
                raise _TryAgain(refusal(status, remote.url), min(delay, 300.0))
            raise refusal(status, remote.url)
        if status == 200:
            self._drop(part)
            tag = answer.headers.get("ETag", "")
            # A weak tag does not promise the same bytes; without a tag a cut file begins anew.
            self._begin(part, "" if tag.startswith("W/") else tag)
        self._append(part, answer.iter_content(_STEP))

    def _begin(self, part: Path, tag: str) -> None:
        """A part of another state of the source is thrown away."""
        kept = _tag_file(part)
        if part.exists() and (not kept.exists() or kept.read_text() != tag):
            self._drop(part)
        part.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(tag)

    def _append(self, part: Path, pieces: Iterator[bytes]) -> None:
        with part.open("ab") as file:
            for piece in pieces:
                if self.stop.is_set():
                    raise Stopped("stopped.")
                file.write(piece)
                self.on_bytes(len(piece))
            file.flush()
            os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Of a whole file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(8 << 20):
            digest.update(data)
    return digest.hexdigest()


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _line(error: Exception) -> str:
    return getattr(error, "what", str(error)).rstrip(".")


def _disk(error: OSError, part: Path) -> Exception:
    if isinstance(error, (FileNotFoundError, PermissionError)) and error.filename != str(part):
        return InputError(f"cannot be read: {error.strerror}.", where=str(error.filename))
    return ActionError(
        f"{error.strerror or error}; what came is kept.",
        where=str(part.parent),
        todo="free some space, then run again",
    )
