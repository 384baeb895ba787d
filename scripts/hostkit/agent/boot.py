"""Sent to a host as the text of "python -c": takes the toolkit's code, then does one job with it.

By standard input come the archive in base64, as many bytes as the second argument says, and behind
it the job's parameters. The archive is kept as the first argument; the third names the job.
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
from typing import Any


def take(size: int) -> bytes:
    """Exactly so many bytes of standard input: the rest is the job's."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit("error: the connection was cut before all of the toolkit's code was here.")
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


def keep(path: str, data: bytes) -> str:
    """The archive appears whole, and only when it differs. Returns where it is: in memory, until
    this process ends, when the disk does not take it.
    """
    beside, folder = path + "." + str(os.getpid()), os.path.dirname(path)  # noqa: PTH120
    refuse_unsafe(folder, data)
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        if not os.path.isfile(path) or open(path, "rb").read() != data:  # noqa
            with open(beside, "wb") as file:  # noqa: PTH123
                file.write(data)
            os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        if os.path.exists(beside):  # noqa: PTH110
            os.unlink(beside)  # noqa: PTH108
        said = path + ": cannot be written: " + str(error.strerror) + "."
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            sys.exit("error: " + said)
        print(said, "This runs from memory.", file=sys.stderr)
        folder = tempfile.mkdtemp(prefix="omnikit-", dir="/dev/shm")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder + "/host.pyz"
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(data)
    return path


def do(name: str) -> int:
    """The job, as host_agent.py does it, but without what the agent needs besides."""
    import json

    from hostkit.agent.jobs import find
    from hostkit.base.errors import ToolkitError, of_disk

    try:
        with open(0, "rb", closefd=False) as rest:
            parameters = json.loads(base64.b64decode(rest.read()))
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


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 (this is where older ones are told)
        sys.exit("error: Python 3.9 or newer is needed, found " + sys.version.split()[0] + ".")
    gc.disable()  # this process is short, and makes many small objects
    os.umask(0o022)
    sys.path.insert(0, keep(sys.argv[1], take(int(sys.argv[2]))))
    sys.exit(do(sys.argv[3]))
