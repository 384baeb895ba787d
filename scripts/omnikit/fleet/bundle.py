"""One archive per host: its rendered files and the code that runs there. Python runs it as is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Mapping

from hostkit.base.writing import write_private
from omnikit.config.layers import PROJECT, control_folder

SCRIPTS = PROJECT / "scripts"
# Standard library only, Python 3.9: all that a host needs.
_SHIPPED = (
    *("check_placement.py", "gen_ranktable.py", "host_agent.py", "launch_servers.py"),
    "wait_for_ray.py",
)
_MAIN = "import sys\n\nfrom host_agent import main\n\nsys.exit(main())\n"


def host_code() -> dict[str, bytes]:
    """The shipped code by its path below scripts/."""
    modules = sorted((SCRIPTS / "hostkit").rglob("*.py"))
    names = [*_SHIPPED, *(str(path.relative_to(SCRIPTS)) for path in modules)]
    return {name: (SCRIPTS / name).read_bytes() for name in names}


def jobs(environment: str) -> Path:
    """The code alone, for jobs, as a file in the environment's control folder."""
    path = control_folder(environment) / "jobs.pyz"
    write_private(path, archive({}, host_code()))
    return path


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
