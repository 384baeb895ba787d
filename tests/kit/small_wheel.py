"""Small wheels for tests, made without a build tool."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path


def lock_text(*wheels: Path) -> str:
    """The lock file of these wheels: each package with the check sums of its files."""
    sums: dict[str, list[str]] = {}
    for path in wheels:
        name, version = path.name.split("-")[:2]
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        sums.setdefault(f"{name}=={version}", []).append(f" --hash=sha256:{found}")
    return "".join(f"{pin}{''.join(found)}\n" for pin, found in sums.items())


def small_wheel(
    folder: Path,
    name: str,
    version: str,
    content: str = "",
    tag: str = "py3-none-any",
    needs: str = "",
) -> Path:
    """A whole wheel of a package with one module, whose VERSION is the version.

    needs: another package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n{content}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        f"Tag: {tag}\n",
    }
    record = ""
    for path, text in files.items():
        found = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record += f"{path},sha256={found.rstrip('=')},{len(text.encode())}\n"
    made = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)  # with no time in it: its hash is its own
    return made
