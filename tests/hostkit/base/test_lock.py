"""One at a time on a host, and a line on who it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostkit.base import lock
from hostkit.base.errors import ActionError, InputError

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def test_a_run_may_take_it_again_and_another_is_told_who_and_how_long(tmp_path: Path) -> None:
    run = lock.new_run()
    lock.take(tmp_path, "ann@here", "deploy of 2p1d", run)
    lock.take(tmp_path, "ann@here", "deploy of 2p1d", run)
    with pytest.raises(InputError, match=r"ann@here is changing this host: deploy of 2p1d, since"):
        lock.take(tmp_path, "bob@there", "deploy of 2p1d", lock.new_run())
    with pytest.raises(InputError, match="ann@here is changing this host"):  # a second one of hers
        lock.take(tmp_path, "ann@here", "deploy of 2p1d", lock.new_run())
    assert lock.release(tmp_path, lock.new_run()) is None
    assert lock.holder(tmp_path) is not None
    assert lock.release(tmp_path, run) is not None
    lock.take(tmp_path, "bob@there", "x", lock.new_run())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deploy.lock", "host.lock"]


def ended_run() -> str:
    """A run of a process that has ended."""
    code = "from hostkit.base import lock; print(lock.new_run())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_one_that_a_dead_run_of_the_same_owner_left_is_taken_over_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = ended_run()
    assert lock.has_ended(dead) and not lock.has_ended(lock.new_run())
    lock.take(tmp_path, "ann", "deploy", dead)
    with pytest.raises(InputError, match="ann is changing this host"):
        lock.take(tmp_path, "bob", "deploy", lock.new_run())
    lock.take(tmp_path, "ann", "stop", lock.new_run())
    assert "the lock of a deploy that was cut off is taken over" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(one["what"], one["result"]) for one in lines] == [("deploy", "interrupted")]


def test_what_a_proved_run_left_is_finished_by_who_takes_it_over(tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "incoming.pyz").write_text("new")
    (tmp_path / "archives" / "good.pyz").write_text("old")
    lock.take(tmp_path, "ann", "deploy", "elsewhere/1")
    lock.take(tmp_path, "ann", "deploy", lock.new_run(), {"elsewhere/1": True})
    assert (tmp_path / "archives" / "good.pyz").read_text() == "new"
    assert '"result": "ok"' in (tmp_path / "audit.jsonl").read_text()


def test_who_lost_the_lock_changes_nothing_any_more(tmp_path: Path) -> None:
    mine, other = lock.new_run(), lock.new_run()
    with pytest.raises(ActionError, match=r"nobody holds it\. Nothing was done"):
        lock.check(tmp_path, mine)
    lock.take(tmp_path, "bob", "deploy", other)
    lock.check(tmp_path, other)
    with pytest.raises(ActionError, match=r"bob holds it: deploy\. Nothing was done"):
        lock.check(tmp_path, mine)
    with pytest.raises(InputError, match="bob is changing this host"):  # by hand
        lock.check(tmp_path, "")


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    def attempt(owner: int) -> bool:
        try:
            lock.take(tmp_path, f"owner {owner}", "x", f"run {owner}", wait_s=60)
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_breaking_it_leaves_a_line_in_the_audit(tmp_path: Path) -> None:
    assert lock.unlock({"work_dir": str(tmp_path), "owner": "bob"})["changed"] is False
    lock.take(tmp_path, "ann", "deploy", lock.new_run())
    seen = lock.unlock({"work_dir": str(tmp_path), "owner": "bob", "dry_run": True})
    assert (seen["changed"], seen["lock"]["owner"]) == (False, "ann")
    done = lock.unlock({"work_dir": str(tmp_path), "owner": "bob"})
    assert done["changed"] is True and done["lock"]["owner"] == "ann"
    [line] = (tmp_path / "audit.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["owner"], entry["what"]) == ("bob", "broke the lock of ann")


SHAPES = (
    "{",
    "[]",
    '"x"',
    "{}",
    '{"owner": 5}',
    '{"owner": "a", "since": "x"}',
    "\xff",
    "[" * 9999,
)


@pytest.mark.parametrize("shape", [*SHAPES, "a folder", "a link to nothing", "a pipe"])
def test_a_lock_of_any_shape_is_a_lock_and_can_be_broken(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "deploy.lock"
    if shape == "a folder":
        (path / "in it").mkdir(parents=True)
    elif shape == "a link to nothing":
        path.symlink_to(tmp_path / "nothing")
    elif shape == "a pipe":
        os.mkfifo(path)
    else:
        path.write_text(shape, encoding="latin-1")
    with pytest.raises(InputError, match="is changing this host"):
        lock.take(tmp_path, "ann", "x", lock.new_run())
    asked = {"work_dir": str(tmp_path), "owner": "ann"}
    seen = lock.unlock({**asked, "dry_run": True})["lock"]
    assert lock.age(seen) and seen["owner"] and seen["what"] is not None
    assert lock.unlock(asked)["changed"] is True
    lock.take(tmp_path, "ann", "x", lock.new_run())
