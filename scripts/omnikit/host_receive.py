"""Sent to a host as the text of "python -c": takes the host's archive, then runs the agent in it.

By standard input come the archive in base64, as many bytes as the second argument says, and behind
it what the agent reads. The archive is kept as the first argument, with the mode of the third; the
others are the agent's. That the archive is another one than before is the first line of the output.
Standard library only, and nothing that older versions of Python 3 cannot read.
"""

import base64
import gc
import os
import runpy
import sys

SHIPPED = "omnikit: shipped"


def take(size: int) -> bytes:
    """Exactly so many bytes of standard input: the rest is the agent's."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit("error: the connection was cut before the whole archive was here.")
        data += part
    return base64.b64decode(data)


def keep(path: str, data: bytes, mode: int) -> bool:
    """The archive appears whole, and only when it differs: whether it did."""
    beside = path + "." + str(os.getpid())
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        if os.path.isfile(path) and open(path, "rb").read() == data:  # noqa
            return False
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123
            file.write(data)
        os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        if os.path.exists(beside):  # noqa: PTH110
            os.unlink(beside)  # noqa: PTH108
        sys.exit("error: " + path + ": cannot be written: " + str(error.strerror) + ".")
    return True


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 (this is where older ones are told)
        sys.exit("error: Python 3.9 or newer is needed, found " + sys.version.split()[0] + ".")
    gc.disable()  # this process is short, and makes many small objects
    os.umask(0o022)
    archive = sys.argv[1]
    if keep(archive, take(int(sys.argv[2])), int(sys.argv[3], 8)):
        print(SHIPPED, flush=True)
    sys.argv = [archive, *sys.argv[4:]]
    runpy.run_path(archive, run_name="__main__")
