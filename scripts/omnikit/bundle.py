"""One archive per host: its rendered files and the code that runs there. Python runs it as is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Mapping

from omnikit.layers import PROJECT

SCRIPTS = PROJECT / "scripts"
# Standard library only, Python 3.9: all that a host needs.
_SHIPPED = ("gen_ranktable.py", "host_agent.py", "launch_servers.py", "wait_for_ray.py")
_SHIPPED_MODULES = (
    *("__init__", "cli", "errors", "health", "log", "run", "supervisor", "terminate"),
    *("device_facts", "device_query", "ranktable", "ranktable_check", "ranktable_files"),
    *("proxy_record", "ranktable_modes", "ranktable_read"),
)
_MAIN = "import sys\n\nfrom host_agent import main\n\nsys.exit(main())\n"


def host_code() -> dict[str, bytes]:
    """The shipped code by its path below scripts/."""
    modules = [f"omnikit/{name}.py" for name in _SHIPPED_MODULES]
    modules += [f"omnikit/{path.name}" for path in sorted((SCRIPTS / "omnikit").glob("host_*.py"))]
    modules.remove("omnikit/host_file.py")  # runs on the control host
    return {name: (SCRIPTS / name).read_bytes() for name in [*_SHIPPED, *modules]}


def archive(files: Mapping[str, str], code: Mapping[str, bytes]) -> bytes:
    """The archive's bytes: equal input gives equal bytes.

    files: rendered files by path below bundle/. Shell scripts become executable, all else not;
    nobody but the owner reads what is rendered.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        _add(made, "__main__.py", _MAIN.encode(), 0o644)
        for name in sorted(code):
            _add(made, name, code[name], 0o644)
        for name in sorted(files):
            _add(
                made,
                f"bundle/{name}",
                files[name].encode(),
                0o700 if name.endswith(".sh") else 0o600,
            )
    return buffer.getvalue()


def _add(made: zipfile.ZipFile, name: str, data: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = (0o100000 | mode) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    made.writestr(entry, data)


def write(path: Path, data: bytes) -> bool:
    """Write an archive or file only when it differs; True when it did."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)
    return True
