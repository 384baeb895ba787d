"""Errors of the system: what is said, what to do, and whether anything was changed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[4] / "scripts"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("weights") / "source", shards=3)


def fault(number: int, *names: Any) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.EROFS, "mount it writable, or choose another target"),
        (errno.EACCES, "let user"),
        (errno.ENOTDIR, "a part of this path is a file"),
        (errno.EEXIST, "move away what is there"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "dmesg"),
    ],
)
def test_each_error_has_its_remedy(number: int, todo: str) -> None:
    found = convert_records.refused(fault(number), Path("/some/place"))
    assert found.where == "/some/place" and found.exit_code == 2
    assert todo in str(found.todo) and "mend it" not in str(found.todo)


def test_the_errors_own_file_is_named() -> None:
    with (
        pytest.raises(InputError, match="Permission denied") as caught,
        convert_records.before_any_change(Path("/target")),
    ):
        raise fault(errno.EACCES, "/source/one")
    assert caught.value.where == "/source/one"


def run(source: Path, target: Path, convert: Any = convert_shard.convert) -> None:
    plan = w8a8.plan(headers.read(source))
    convert_run.run(plan, target, 1, Meter(1, print), convert)


def test_a_target_that_cannot_be_made_has_changed_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Not a directory|File exists") as caught:
        run(source, tmp_path / "file" / "target")
    assert "choose another target" in str(caught.value.todo)
    (tmp_path / "target.incomplete").write_text("")
    with pytest.raises(InputError, match="File exists"):
        run(source, tmp_path / "target")


def test_a_source_that_cannot_be_read_is_named_and_not_the_target(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise fault(errno.EIO)

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(ActionError, match="Input/output error; 0 of 3 files are done") as caught:
        run(source, tmp_path / "target")
    where = Path(str(caught.value.where))
    assert where.parent == source and where.name.endswith(".safetensors")
    assert "dmesg" in str(caught.value.todo)


def test_a_target_that_appears_meanwhile_is_named(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def other(*given: Any) -> convert_shard.Made:
        made = convert_shard.convert(*given)
        target.write_text("of somebody else")
        return made

    with pytest.raises(ActionError, match="3 of 3 files are done and kept") as caught:
        run(source, target, other)
    assert caught.value.where == str(target)


_AS_NOBODY = """
import os, sys
from pathlib import Path
from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers
from omnikit.weights.checkpoint import w8a8
from omnikit.weights.convert import dry as convert_dry
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
os.setgroups([]); os.setgid(65534); os.setuid(65534)
source, target = map(Path, sys.argv[1:])
try:
    with convert_records.before_any_change(target):
        plan = w8a8.plan(headers.read(source))
        convert_records.finished(target, plan)
        convert_dry.look(plan, target)
except InputError as error:
    print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody may look into; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as text:
        Path(text).chmod(0o755)
        yield Path(text)


@pytest.mark.needs(root=True)
@pytest.mark.parametrize("closed", ["above", "source", "target", "tokenizer"])
def test_a_folder_that_may_not_be_looked_into_is_said(open_folder: Path, closed: str) -> None:
    places = {"above": open_folder / "above", "target": open_folder / "to"}
    places["source"] = small.make().write(places["above"] / "source")
    places["tokenizer"] = places["source"] / "tokenizer_config.json"
    places["target"].mkdir()
    places[closed].chmod(0o711 if closed == "source" else 0o600)
    # Imports first, as root: the test's own Python may lie where nobody may look.
    words = [sys.executable, "-c", _AS_NOBODY, places["source"], places["target"] / "new"]
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Permission denied" in done.stdout and "let user 65534 read" in done.stdout
    assert str(places[closed]) in done.stdout
