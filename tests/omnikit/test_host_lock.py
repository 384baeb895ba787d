"""One at a time on a host, and a line on who it was."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omnikit import host_lock
from omnikit.errors import InputError


def test_the_owner_may_take_it_again_and_another_is_told_who_and_how_long(tmp_path: Path) -> None:
    host_lock.take(tmp_path, "ann@here", "deploy of 2p1d")
    host_lock.take(tmp_path, "ann@here", "deploy of 2p1d")
    with pytest.raises(InputError, match=r"ann@here is changing this host: deploy of 2p1d, since"):
        host_lock.take(tmp_path, "bob@there", "deploy of 2p1d")
    assert host_lock.release(tmp_path, "bob@there") is None
    assert host_lock.holder(tmp_path) is not None
    assert host_lock.release(tmp_path, "ann@here") is not None
    host_lock.take(tmp_path, "bob@there", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deploy.lock"]


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    def attempt(owner: int) -> bool:
        try:
            host_lock.take(tmp_path, f"owner {owner}", "x")
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_breaking_it_leaves_a_line_in_the_audit(tmp_path: Path) -> None:
    assert host_lock.unlock({"work_dir": str(tmp_path), "owner": "bob"})["changed"] is False
    host_lock.take(tmp_path, "ann", "deploy")
    seen = host_lock.unlock({"work_dir": str(tmp_path), "owner": "bob", "dry_run": True})
    assert (seen["changed"], seen["lock"]["owner"]) == (False, "ann")
    done = host_lock.unlock({"work_dir": str(tmp_path), "owner": "bob"})
    assert done["changed"] is True and done["lock"]["owner"] == "ann"
    [line] = (tmp_path / "audit.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["owner"], entry["what"]) == ("bob", "broke the lock of ann")


def test_a_damaged_lock_is_a_lock(tmp_path: Path) -> None:
    (tmp_path / "deploy.lock").write_text("{")
    with pytest.raises(InputError, match="unknown is changing this host"):
        host_lock.take(tmp_path, "ann", "x")
