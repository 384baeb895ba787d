"""A profile's jobs on a host: room, what was written, an archive, and nothing left."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any, Callable

import pytest
from another_user import as_nobody, close, folder_of_nobody
from needs import needs

from hostkit.base.errors import ActionError, InputError
from hostkit.logs import profile
from omnikit.logs.fetch import check_sum


def parameters(work: Path, **more: Any) -> dict[str, Any]:
    folders = {name: str(work / "profiles" / name) for name in ("p0", "d0")}
    return {"work_dir": str(work), "folders": folders, "free_mib": 1, **more}


def ascend(folder: Path, name: str) -> Path:
    made = folder / f"{name}_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
    made.mkdir(parents=True)
    return made


def test_only_what_is_new_is_seen_taken_and_removed(tmp_path: Path) -> None:
    given = parameters(tmp_path)
    p0, d0 = tmp_path / "profiles" / "p0", tmp_path / "profiles" / "d0"
    p0.mkdir(parents=True)
    (p0 / "old.pt.trace.json.gz").write_text("of somebody else")
    given["before"] = profile.prepare(given)["before"]
    assert given["before"] == {"p0": ["old.pt.trace.json.gz"], "d0": []}
    none = {"workers": 0, "bytes": 0}
    assert profile.look(given)["nodes"] == {"p0": none, "d0": none}
    (p0 / "rank0.1.pt.trace.json.gz").write_text("12345")
    (p0 / "rank0.profiler_out.txt").write_text("table")
    view = ascend(d0, "a") / "trace_view.json"
    ascend(d0, "b")
    assert profile.look(given)["nodes"]["d0"]["workers"] == 0
    view.write_text("[]")
    assert profile.look(given)["nodes"] == {
        "p0": {"workers": 1, "bytes": 10},
        "d0": {"workers": 1, "bytes": 2},
    }
    (d0 / "link").symlink_to("/etc/passwd")
    packed = profile.collect(given)
    assert packed["files"] == 3 and packed["sha256"] == check_sum(Path(packed["path"]))
    with tarfile.open(packed["path"]) as archive:
        assert sorted(archive.getnames()) == [
            "d0/a_ascend_pt/ASCEND_PROFILER_OUTPUT/trace_view.json",
            "p0/rank0.1.pt.trace.json.gz",
            "p0/rank0.profiler_out.txt",
        ]
    assert profile.clear(given) == {"changed": True, "left": []}
    assert not d0.exists() and Path("/etc/passwd").exists()
    assert [path.name for path in p0.iterdir()] == ["old.pt.trace.json.gz"]
    assert profile.clear(given) == {"changed": False, "left": []}


@pytest.mark.parametrize("job", [profile.look, profile.collect])
def test_traces_of_another_user_are_said_with_what_to_do(job: Callable[..., Any]) -> None:
    """As containers that run as root leave them to a host's user who is not."""
    with folder_of_nobody() as work:
        given = parameters(work)
        with as_nobody():
            given["before"] = profile.prepare(given)["before"]
        view = ascend(work / "profiles" / "d0", "a") / "trace_view.json"
        view.write_text("[]")
        close(view.parents[1])
        with as_nobody(), pytest.raises(ActionError, match="cannot be read as user") as raised:
            job(given)
        said = str(raised.value)
        assert "a_ascend_pt" in said and "as root" in said and "container.user" in said
        assert "make room" not in said


def test_what_cannot_be_removed_is_named() -> None:
    with folder_of_nobody() as work:
        given = parameters(work, before={})
        with as_nobody():
            profile.prepare(given)
        d0 = work / "profiles" / "d0"
        ascend(d0, "a")
        close(d0 / "a_ascend_pt")
        (d0 / "rank0.1.pt.trace.json.gz").write_text("1")
        with as_nobody():
            done = profile.clear(given)
        assert done == {"changed": True, "left": [str(d0 / "a_ascend_pt")]}


def test_no_folder_and_no_room_are_refused(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("")
    with pytest.raises(InputError, match="traces of p0 cannot be written: Not a directory"):
        profile.prepare(parameters(tmp_path))
    (tmp_path / "profiles").unlink()
    with pytest.raises(InputError, match=r"profiling\.free_mib wants 99999999"):
        profile.prepare(parameters(tmp_path, free_mib=99999999))


def test_a_full_file_system_is_refused(tmp_path: Path) -> None:
    needs("mount", root=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "omnikit-test", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        with pytest.raises(InputError, match="cannot be written: No space left"):
            profile.prepare(parameters(tmp_path, free_mib=0))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
