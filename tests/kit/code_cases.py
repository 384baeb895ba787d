"""Source trees for the tests of their copy, and the parameters of the jobs on a host."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from hostkit.copy import copy
from omnikit.source import transfer
from omnikit.source.transfer import Source

EXCLUDE = (".git", "build/dist/", "*.egg-info/", "__pycache__/", "*.pyc", ".venv/", "/top/only")
# Spaces, a line end, a leading dash, quotes, what is not UTF-8, what shells and rsync know.
HOSTILE = (
    *(
        b"a b",
        b"line\nend",
        b"-dash",
        b"--delete",
        b"q'uo\"te",
        b"b\xff\xfe",
        b"$(touch x)",
        b"a:b",
    ),
    *(
        b"*",
        b"[x]",
        b"back\\slash",
        b"tab\t",
        "模型.py".encode(),
        b"\\#012",
        b" ",
        b"#",
        b";x",
        b"~",
    ),
)


def make_source(folder: Path) -> Path:
    """A small source tree: packages, a script, links, and what is not to be copied."""
    files = {
        "setup.py": "name = 'omni'\n",
        "omni/__init__.py": "",
        "omni/engine.py": "speed = 1\n",
        "omni/old.py": "gone = True\n",
        "omni/csrc/kernel.cpp": "int main() {}\n",
        "build/build.sh": "echo build\n",
        "build/dist/omni.whl": "a wheel of this machine\n",
        "omni/__pycache__/engine.cpython-311.pyc": "bytecode",
        "omni.egg-info/PKG-INFO": "Name: omni\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "build" / "build.sh").chmod(0o755)
    (folder / "latest").symlink_to("omni/engine.py")
    (folder / "nothing").mkdir()
    return folder


def commit(folder: Path) -> str:
    """Put a tree under git; the commit."""
    argv = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all of it"]):
        subprocess.run([*argv, *words], check=True, capture_output=True)
    done = subprocess.run([*argv, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def given(source: Path, target: Path, **more: Any) -> dict[str, Any]:
    """What the job code-begin is told."""
    exclude = list(more.get("exclude", EXCLUDE))
    made: Source = transfer.read(str(source), exclude, None)
    return {
        "dir": str(target),
        "exclude": exclude,
        "files": made.packed,
        "digest": made.digest,
        "revision": made.revision,
        "source": f"test:{source}",
        "keep": [],
        "replace": False,
        "full": False,
        "dry_run": False,
        "work_dir": str(target.parent / "work"),
        "owner": "ann",
        **more,
    }


def copied(source: Path, target: Path, **more: Any) -> dict[str, Any]:
    """Both jobs, with a copy by hand between them; what code-begin said."""
    parameters = given(source, target, **more)
    said = copy.begin(parameters)
    if said["changed"]:
        bring(source, target, said)
        copy.finish(parameters)
    return said


def bring(source: Path, target: Path, said: dict[str, Any]) -> None:
    """What rsync does, by the simplest means: tar, with the files that code-begin named."""
    names = sorted({*said["create"], *said["update"], *said["mode"]})
    listed = b"\0".join(os.fsencode(name) for name in names)
    pack = ["tar", "-C", str(source), "--no-recursion", "--null", "-T-", "-cf-"]
    packed = subprocess.run(pack, input=listed, check=True, capture_output=True).stdout
    unpack = ["tar", "-C", str(target), "-xpf-"]
    subprocess.run(unpack, input=packed, check=True, capture_output=True)


def listing(folder: Path) -> dict[bytes, tuple[str, int, bytes]]:
    """All that is in a folder apart from our records: kind, mode, content."""
    found = {}
    for path in folder.rglob("*"):
        relative = bytes(path.relative_to(folder))
        if relative.startswith(b".omnikit-code."):
            continue
        mode = path.lstat().st_mode & 0o777
        if path.is_symlink():
            found[relative] = ("l", 0, os.fsencode(path.readlink()))
        elif path.is_dir():
            found[relative] = ("d", mode, b"")
        else:
            found[relative] = ("f", mode, path.read_bytes())
    return found


@contextmanager
def own_home(monkeypatch: Any) -> Iterator[Path]:
    """A home directory with a short path, whose kept SSH connections end with it."""
    with tempfile.TemporaryDirectory(prefix="oh-") as name:
        monkeypatch.setenv("HOME", name)
        try:
            yield Path(name)
        finally:
            forget(Path(name))


def forget(home: Path) -> None:
    """End the SSH connections that are kept."""
    for socket in (home / ".ansible" / "cp").glob("omnikit-*"):
        argv = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "any"]
        subprocess.run(argv, check=False, capture_output=True)
