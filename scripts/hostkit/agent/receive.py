"""Sent to a host as the text of "python -c": takes the host's archive, then runs the agent in it.

By standard input come the archive in base64, as many bytes as the second argument says, and behind
it what the agent reads. The archive is kept as the first argument, with the mode of the third; the
others are the agent's. That the archive is another one than before is the first line of the output.
Standard library only, and nothing that older versions of Python 3 cannot read.
"""

import atexit
import base64
import errno
import gc
import io
import os
import runpy
import shutil
import sys
import tempfile
import zipfile
from typing import Any

SHIPPED = "omnikit: shipped"
IN_MEMORY = (["stop"], ["status"])  # what works although the disk takes no archive
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def take(size: int) -> bytes:
    """Exactly so many bytes of standard input: the rest is the agent's."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit("error: the connection was cut before the whole archive was here.")
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


def keep(path: str, data: bytes, mode: int) -> bool:
    """The archive appears whole, and only when it differs: whether it did."""
    beside, folder = path + "." + str(os.getpid()), os.path.dirname(path)  # noqa: PTH120
    refuse_unsafe(folder, data)
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        if not mode & 0o077:
            os.chmod(folder, 0o700)  # noqa: PTH101
        if os.path.isfile(path) and open(path, "rb").read() == data:  # noqa
            return False
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123
            file.write(data)
        os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        if os.path.exists(beside):  # noqa: PTH110
            os.unlink(beside)  # noqa: PTH108
        said = path + ": cannot be written: " + str(error.strerror) + "."
        if error.errno not in DISK or sys.argv[4:5] not in IN_MEMORY:
            sys.exit("error: " + said)
        print(said, "This runs from memory.", file=sys.stderr)
        sys.argv[1] = in_memory(data)
        return False
    return True


def in_memory(data: bytes) -> str:
    """A file of this user alone that no disk has to take; it goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="omnikit-", dir="/dev/shm")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open(folder + "/agent.pyz", "wb") as file:  # noqa: PTH123
        file.write(data)
    return folder + "/agent.pyz"


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 (this is where older ones are told)
        sys.exit("error: Python 3.9 or newer is needed, found " + sys.version.split()[0] + ".")
    gc.disable()  # this process is short, and makes many small objects
    os.umask(0o022)
    if keep(sys.argv[1], take(int(sys.argv[2])), int(sys.argv[3], 8)):
        print(SHIPPED, flush=True)
    sys.argv = [sys.argv[1], *sys.argv[4:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
