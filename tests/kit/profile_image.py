"""Images whose root's ~/.bashrc alone sets up what their server needs, as omni-infer's does."""

from __future__ import annotations

import ctypes
import io
import tarfile
import tempfile
from pathlib import Path

from docker_host import DockerHost
from server_image import SERVER, SERVER_IMAGE, save_server_image

LIBRARY = "libascendcl.so"
FOLDER = "/opt/cann/lib64"
# The server loads the library as torch_npu does, and dies of the loader's own error without it.
NEEDY_SERVER = "/opt/needy_server.py"
_NEEDY = f"""import ctypes, runpy, sys
ctypes.CDLL("{LIBRARY}")
sys.argv[0] = "{SERVER}"
runpy.run_path("{SERVER}", run_name="__main__")
"""
GOOD = f"export LD_LIBRARY_PATH={FOLDER}:$LD_LIBRARY_PATH\n"
# What such files do in the wild, and what they set nevertheless.
ROUGH = (
    "echo welcome\n"
    "no-such-program; false; : $UNSET_1\n"
    "PS1='\\u@\\h '; shopt -s expand_aliases; alias set=false exec=false\n"
    # Modules of these names are Python's own and the toolkit's.
    "mkdir -p /opt/shadow; export PYTHONPATH=/opt/shadow\n"
    "for name in secrets omnikit; do\n"
    "  echo 'raise SystemExit(\"not this module\")' >/opt/shadow/$name.py\n"
    "done\n"
    f"cd /opt; set -- other words\n{GOOD}"
    "export FROM_FILE=1 WHO_WINS=file\n"
    "false\n"
)
DEBIANS = f"# for people\ncase $- in\n    *i*) ;;\n      *) return;;\nesac\n{GOOD}"


def profile_image(host: DockerHost, tag: str, bashrc: str | None) -> str:
    """An image with this ~/.bashrc, or none, in an engine; its tag."""
    if host.docker("image", "inspect", SERVER_IMAGE, check=False).returncode != 0:
        with tempfile.TemporaryDirectory() as folder:
            save_server_image(host, Path(folder) / "server.tar")
    made = host.docker("create", SERVER_IMAGE, "bash").stdout.strip()
    files = {NEEDY_SERVER: _NEEDY.encode(), f"{FOLDER}/{LIBRARY}": _some_library()}
    if bashrc is not None:
        files["/root/.bashrc"] = bashrc.encode()
    try:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "files.tar"
            with tarfile.open(archive, "w") as packed:
                for name, data in files.items():
                    entry = tarfile.TarInfo(name.lstrip("/"))
                    entry.size, entry.mode = len(data), 0o644
                    packed.addfile(entry, io.BytesIO(data))
            with archive.open("rb") as content:
                host.docker("cp", "-", f"{made}:/", stdin=content)
        host.docker("commit", made, tag)
    finally:
        host.docker("rm", "--force", made)
    return tag


def _some_library() -> bytes:
    """A small shared library that loads in any process: what it holds does not matter."""
    ctypes.CDLL("libm.so.6")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/libm.so" in line or "/libm-" in line:
            return Path(line.split()[-1]).read_bytes()
    raise AssertionError("this machine's libm is not where the loader said")
