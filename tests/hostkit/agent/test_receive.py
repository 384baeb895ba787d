"""What a host does first of all: it takes its archive whole, keeps it and runs the agent in it."""

from __future__ import annotations

import ast
import base64
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from hostkit.agent import receive as agent_receive
from hostkit.base import folders

RECEIVE = Path(agent_receive.__file__).read_text(encoding="utf-8")
AGENT = (
    "import json, sys\n"
    "print(json.dumps([sys.argv, sys.stdin.read()]))\n"
    "sys.exit(3 if 'late' in sys.argv else 0)\n"
)


def archive(agent: str = AGENT) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(zipfile.ZipInfo("__main__.py"), agent)
        text = Path(folders.__file__).read_text()
        made.writestr(zipfile.ZipInfo("hostkit/base/folders.py"), text)
    return buffer.getvalue()


def receive(
    kept: Path, data: bytes, *words: str, given: str = "", cut: int = 0
) -> subprocess.CompletedProcess[str]:
    """Start it as ssh does."""
    text = base64.b64encode(data).decode()
    argv = [sys.executable, "-c", RECEIVE, str(kept), str(len(text)), "0600", *words]
    sent = text[:cut] if cut else text + given
    return subprocess.run(argv, input=sent, capture_output=True, text=True, timeout=60)


def test_the_agent_gets_its_words_and_the_rest_of_the_input(tmp_path: Path) -> None:
    kept = tmp_path / "work" / "incoming.pyz"
    done = receive(kept, archive(), "job", "--job=x", given="parameters")
    first, said = done.stdout.splitlines()
    assert first == agent_receive.SHIPPED
    assert json.loads(said) == [[str(kept), "job", "--job=x"], "parameters"]
    assert kept.read_bytes() == archive() and kept.stat().st_mode & 0o777 == 0o600
    assert receive(kept, archive(), "late").returncode == 3


def test_the_same_archive_is_not_written_again(tmp_path: Path) -> None:
    kept = tmp_path / "incoming.pyz"
    receive(kept, archive())
    when = kept.stat().st_mtime_ns
    assert agent_receive.SHIPPED not in receive(kept, archive()).stdout
    assert kept.stat().st_mtime_ns == when and list(tmp_path.iterdir()) == [kept]
    assert agent_receive.SHIPPED in receive(kept, archive("print('new')")).stdout


def test_half_an_archive_is_not_kept(tmp_path: Path) -> None:
    kept = tmp_path / "incoming.pyz"
    receive(kept, archive())
    done = receive(kept, archive("print('new')"), cut=20)
    assert done.returncode == 1 and "was cut" in done.stderr
    assert kept.read_bytes() == archive() and list(tmp_path.iterdir()) == [kept]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = receive(tmp_path / "file" / "incoming.pyz", archive())
    assert done.returncode == 2 and "file is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_can_read_it() -> None:
    ast.parse(RECEIVE, feature_version=(3, 6))
