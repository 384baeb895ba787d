"""Sent to a host as the text of "python -c": takes an archive of the toolkit, runs what is in it.

By standard input come the archive in base64, as many bytes as the second argument says, and behind
it what is run reads. The archive is kept as the first argument. The third is its mode, the others
are then the agent's: that the archive is another one than before is the first line of the output.
Or the third names a job, whose parameters come behind the archive in base64, as one line.
Standard library only, and nothing that older versions of Python 3 cannot read.
"""

import atexit
import base64
import errno
import gc
import io
import os
import shutil
import sys
import tempfile
import zipfile
from typing import Any, List, Tuple

SHIPPED = "omnikit: shipped"
IN_MEMORY = (["stop"], ["status"])  # what of the agent works although the disk takes no archive
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def take(size: int, what: str) -> bytes:
    """Exactly so many bytes of standard input: the rest is for what is run."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit("error: the connection was cut before " + what + " was here.")
        data += part
    return base64.b64decode(data)


def refuse_unsafe(folder: str, data: bytes) -> None:
    """Write nothing where other users could have put a link, or run nothing that they replaced."""
    judge: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        exec(archive.read("hostkit/base/folders.py"), judge)
    fault = judge["problem"](folder, False)
    if fault:
        print("error: paths.work_dir: " + fault, file=sys.stderr)
        sys.exit(2)


def keep(path: str, data: bytes, mode: int, spare: bool) -> Tuple[str, bool]:
    """The archive appears whole, and only when it differs: where it is, and whether it did.

    spare: when the disk does not take it, it is in memory until this process ends.
    """
    beside, folder = path + "." + str(os.getpid()), os.path.dirname(path)  # noqa: PTH120
    refuse_unsafe(folder, data)
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        if not mode & 0o077:
            os.chmod(folder, 0o700)  # noqa: PTH101
        if os.path.isfile(path) and open(path, "rb").read() == data:  # noqa
            return path, False
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123
            file.write(data)
        os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        if os.path.exists(beside):  # noqa: PTH110
            os.unlink(beside)  # noqa: PTH108
        said = path + ": cannot be written: " + str(error.strerror) + "."
        if error.errno not in DISK or not spare:
            sys.exit("error: " + said)
        print(said, "This runs from memory.", file=sys.stderr)
        return in_memory(data), False
    return path, True


def in_memory(data: bytes) -> str:
    """A file of this user alone that no disk has to take; it goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="omnikit-", dir="/dev/shm")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open(folder + "/host.pyz", "wb") as file:  # noqa: PTH123
        file.write(data)
    return folder + "/host.pyz"


def do(name: str) -> int:
    """The job, as host_agent.py does it, but without what the agent needs besides."""
    import json

    from hostkit.agent.jobs import find
    from hostkit.base.errors import ToolkitError, of_disk

    try:
        with open(0, "rb", closefd=False) as rest:
            # A line, or all: the job may be told more while it works.
            parameters = json.loads(base64.b64decode(rest.readline()))
        print(json.dumps(find(name)(parameters)))
    except ToolkitError as error:
        print("error: " + str(error), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        refused = of_disk(error)
        if refused is None:
            raise
        print("error: " + str(refused), file=sys.stderr)
        return refused.exit_code
    return 0


def main(path: str, size: int, what: str, words: List[str]) -> None:
    """Keep the archive, and run the agent or a job."""
    if not what.isdigit():
        data = take(size, "all of the toolkit's code")
        sys.path.insert(0, keep(path, data, 0o644, True)[0])
        sys.exit(do(what))
    import runpy

    data = take(size, "the whole archive")
    path, shipped = keep(path, data, int(what, 8), words[:1] in IN_MEMORY)
    if shipped:
        print(SHIPPED, flush=True)
    sys.argv = [path, *words]
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 (this is where older ones are told)
        sys.exit("error: Python 3.9 or newer is needed, found " + sys.version.split()[0] + ".")
    gc.disable()  # this process is short, and makes many small objects
    os.umask(0o022)
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
