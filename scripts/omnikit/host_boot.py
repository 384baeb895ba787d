"""Sent to a host as the text of "python -c": takes the toolkit's code, then does one job with it.

By standard input come the archive in base64, as many bytes as the second argument says, and behind
it the job's parameters. The archive is kept as the first argument; the third names the job.
Standard library only, and nothing that older versions of Python 3 cannot read.
"""

import base64
import gc
import os
import sys


def take(size: int) -> bytes:
    """Exactly so many bytes of standard input: the rest is the job's."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit("error: the connection was cut before all of the toolkit's code was here.")
        data += part
    return base64.b64decode(data)


def keep(path: str, data: bytes) -> None:
    """The archive appears whole, and only when it differs."""
    beside = path + "." + str(os.getpid())
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        if not os.path.isfile(path) or open(path, "rb").read() != data:  # noqa
            with open(beside, "wb") as file:  # noqa: PTH123
                file.write(data)
            os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        if os.path.exists(beside):  # noqa: PTH110
            os.unlink(beside)  # noqa: PTH108
        sys.exit("error: " + path + ": cannot be written: " + str(error.strerror) + ".")


def do(name: str) -> int:
    """The job, as host_agent.py does it, but without what the agent needs besides."""
    import json

    from omnikit.errors import ToolkitError
    from omnikit.host_jobs import find

    try:
        with open(0, "rb", closefd=False) as rest:
            parameters = json.loads(base64.b64decode(rest.read()))
        print(json.dumps(find(name)(parameters)))
    except ToolkitError as error:
        print("error: " + str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 (this is where older ones are told)
        sys.exit("error: Python 3.9 or newer is needed, found " + sys.version.split()[0] + ".")
    gc.disable()  # this process is short, and makes many small objects
    os.umask(0o022)
    keep(sys.argv[1], take(int(sys.argv[2])))
    sys.path.insert(0, sys.argv[1])
    sys.exit(do(sys.argv[3]))
