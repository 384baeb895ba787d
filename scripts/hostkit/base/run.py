"""The only place where processes are started. A command is a list of words, never shell text."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Callable, Iterator, Mapping, Optional, Sequence, Union

from hostkit.base.errors import ActionError, InputError

Words = Sequence[Union[str, Path]]


@dataclass(frozen=True)
class Result:
    """What a finished command left: exit status and its decoded output."""

    code: int
    out: str
    err: str

    @property
    def tail(self) -> str:
        """The last lines that the command said, for an error message."""
        said = (self.err.strip() or self.out.strip()).splitlines()
        return "\n".join(said[-8:])


class Outlasted(ActionError):
    """A command that took longer than it was given."""


def show(argv: Words, env: Optional[Mapping[str, str]] = None) -> str:
    """The command as a line that can be pasted into a shell."""
    words = [f"{key}={shlex.quote(value)}" for key, value in (env or {}).items()]
    return " ".join([*words, *(shlex.quote(str(word)) for word in argv)])


def _environment(env: Optional[Mapping[str, str]]) -> Optional[dict[str, str]]:
    return {**os.environ, **env} if env is not None else None


def _missing(argv: Words, error: OSError) -> InputError:
    return InputError(
        f"cannot start {argv[0]}: {error.strerror}.", todo=f"install it, or check PATH: {argv[0]}"
    )


def run(
    argv: Words,
    *,
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[Path] = None,
    stdin: str = "",
    timeout: Optional[float] = None,
    check: bool = True,
) -> Result:
    """Run a command to its end and capture its output.

    env is added to the current environment. Raises InputError when the program is missing,
    ActionError when it fails (unless check is false) or outlasts timeout (seconds).
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=_environment(env),
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except OSError as error:
        raise _missing(argv, error) from error
    except subprocess.TimeoutExpired as error:
        raise Outlasted(f"no answer within {timeout:g} s from: {show(argv)}") from error
    result = Result(done.returncode, done.stdout, done.stderr)
    if check and result.code != 0:
        raise ActionError(f"exit status {result.code} from: {show(argv)}\n{result.tail}")
    return result


def stream(
    argv: Words,
    on_line: Callable[[str], None],
    *,
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[Path] = None,
    redrawn: bool = False,
    stdin: Optional[Path] = None,
) -> int:
    """Run a command and hand each line of its output (both streams) on as it comes.

    redrawn: a carriage return ends a line too; so progress bars redraw theirs. stdin: a file that
    it reads. Returns the exit status. An interrupt ends the command's own process group first.
    """
    ends = REDRAWN if redrawn else _ENDS
    return stream_all(
        [argv], lambda _, line: on_line(line), env=env, cwd=cwd, ends=ends, stdin=stdin
    )[0]


_ENDS = re.compile(rb"\n")
REDRAWN = re.compile(rb"\n|\r(?=[^\n])")


def stream_all(
    commands: Sequence[Words],
    on_line: Callable[[int, str], None],
    *,
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[Path] = None,
    ends: re.Pattern[bytes] = _ENDS,
    stdin: Optional[Path] = None,
) -> list[int]:
    """Run commands side by side and hand each line on with its command's index.

    ends: what ends a line. Returns their exit statuses. An interrupt ends all their process
    groups first.
    """
    children: list[subprocess.Popen[bytes]] = []
    pending: dict[int, bytes] = {}
    try:
        for argv in commands:
            child = start(argv, output=subprocess.PIPE, env=env, cwd=cwd, tied=True, stdin=stdin)
            children.append(child)
        with selectors.DefaultSelector() as selector:
            for index, child in enumerate(children):
                assert child.stdout is not None
                selector.register(child.stdout, selectors.EVENT_READ, index)
                pending[index] = b""
            while selector.get_map():
                for key, _ in selector.select():
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    *lines, rest = ends.split(pending[key.data] + chunk)
                    if not chunk and rest:
                        lines, rest = [*lines, rest], b""
                    pending[key.data] = rest
                    for line in lines:
                        on_line(key.data, line.decode("utf-8", "replace").rstrip("\r"))
        return [child.wait() for child in children]
    except BaseException:
        for child in children:
            end_group(child.pid, signal.SIGTERM)
        for child in children:
            child.wait()
        raise
    finally:
        for child in children:
            if child.stdout is not None:
                child.stdout.close()


def start(
    argv: Words,
    *,
    output: Union[int, IO[bytes]],
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[Path] = None,
    tied: bool = False,
    stdin: Union[Path, int, None] = None,
    keep: Sequence[int] = (),
    group: Optional[Path] = None,
    errors: Optional[IO[bytes]] = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a session (and so a process group) of its own and return at once.

    tied: when this process dies, even by SIGKILL, the kernel sends the command a SIGTERM.
    stdin: a file that it reads, or subprocess.PIPE; None: it reads nothing. keep: descriptors that
    it gets as well.
    group: the file of a control group's members, which it becomes one of if that can be.
    errors: where its standard error goes; None: where its output goes.
    """

    def prepare() -> None:
        if group is not None:
            with suppress(OSError):
                group.write_text("0")
        if tied:
            _tie()

    given = stdin.open("rb") if isinstance(stdin, Path) else None
    try:
        return subprocess.Popen(
            [str(word) for word in argv],
            env=_environment(env),
            cwd=cwd,
            stdin=given or (stdin if isinstance(stdin, int) else subprocess.DEVNULL),
            stdout=output,
            stderr=subprocess.STDOUT if errors is None else errors,
            start_new_session=True,
            preexec_fn=prepare if tied or group is not None else None,
            pass_fds=keep,
        )
    except OSError as error:
        raise _missing(argv, error) from error
    finally:
        if given is not None:
            given.close()


@contextmanager
def reading(argv: Words) -> Iterator[IO[bytes]]:
    """The bytes that a command writes, as they come. Raises ActionError when it fails, with what it
    said, whatever came of reading them; one that is not read to its end is ended.
    """
    with tempfile.TemporaryFile() as errors:
        child = start(argv, output=subprocess.PIPE, tied=True, errors=errors)
        assert child.stdout is not None
        fault: Optional[Exception] = None
        try:
            yield child.stdout
            while child.stdout.read(1 << 20):  # what is behind the end of an archive
                pass
        except Exception as error:
            fault = error
            ended = child.poll() is None and end_group(child.pid, signal.SIGTERM)
            if ended:
                raise
        except BaseException:
            end_group(child.pid, signal.SIGTERM)
            raise
        finally:
            child.stdout.close()
            code = child.wait()
        errors.seek(0)
        said = Result(code, "", errors.read()[-65536:].decode("utf-8", "replace"))
        if code != 0:
            raise ActionError(f"exit status {code} from: {show(argv)}\n{said.tail}") from fault
        if fault is not None:
            raise fault


class Talk:
    """A command that is told things while it runs, and ends when nobody is there to tell more."""

    def __init__(self, argv: Words, env: Optional[Mapping[str, str]] = None) -> None:
        self._lock = threading.Lock()
        self._child = start(argv, output=subprocess.PIPE, env=env, tied=True, stdin=subprocess.PIPE)

    def tell(self, text: str) -> None:
        """Write to its standard input; nothing when it has ended."""
        child = self._child.stdin
        with self._lock, suppress(OSError, ValueError):
            assert child is not None
            child.write(text.encode())
            child.flush()

    def lines(self) -> Iterator[str]:
        """What it says, on both streams, as it comes."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            yield line.decode("utf-8", "replace").rstrip("\r\n")

    def end(self, now: bool = False) -> int:
        """Close its standard input and wait for its end: the exit status. now: by a signal."""
        if now:
            end_group(self._child.pid, signal.SIGTERM)
        with self._lock, suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        code = self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        return code


def _tie() -> None:
    """Run in the child between fork and exec: clean signal mask, SIGTERM when the parent dies."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError when the kernel refuses."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def adopt_orphans() -> None:
    """Make this process the parent of orphans below it, so that it can reap them."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_group(pgid: int, number: int) -> bool:
    """Send a signal to a process group that we started; False when it is gone already."""
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        return False
    return True


def _interrupt(number: int, frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt


@contextmanager
def as_interrupt() -> Iterator[None]:
    """While this holds, SIGTERM and SIGHUP raise KeyboardInterrupt: a command cleans up as after
    Ctrl-C.
    """
    before = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
