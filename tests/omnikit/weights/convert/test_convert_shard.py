"""A file that several threads make: hashed in order, and nobody waits for what will not come."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import ActionError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import run as convert_run
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.convert.shard import Turns
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter


def test_parts_are_hashed_in_their_order_whoever_is_first() -> None:
    data = random.Random(1).randbytes(40_000)
    turns = Turns(threading.Event())
    starts = list(range(0, len(data), 100))
    for first in range(0, len(starts), 8):  # eight at a time, all of which wait
        some = starts[first : first + 8]
        random.Random(first).shuffle(some)
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda at: turns.add(at, data[at : at + 100]), some))
        assert all(done)
    assert turns.digest.hexdigest() == hashlib.sha256(data).hexdigest()


def test_nobody_waits_when_the_run_has_failed() -> None:
    failed = threading.Event()
    turns = Turns(failed)
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(turns.add, at, b"later") for at in (5, 10)]
        assert not any(one.done() for one in waits)
        failed.set()
        turns.wake()
        assert [one.result(timeout=60) for one in waits] == [False, False]
    assert not turns.add(0, b"even if it is next")


@pytest.mark.parametrize("files", [1, 5])
def test_an_error_in_one_file_ends_the_run_and_completes_no_other(
    tmp_path: Path, files: int
) -> None:
    """The first part of the first file fails last: all others wait for their turn by then."""
    source = small.make().write(tmp_path / "source", shards=files)
    plan = w8a8.plan(headers.read(source))
    first = plan.shards[0].pieces[0]
    threads, others = 6 - convert_run._WAITING, threading.Semaphore(0)

    def fails(rows: convert_shard.Rows, *given: Any) -> convert_shard.Made:
        if rows.piece is not first:
            others.release()
            return convert_shard.convert(rows, *given)
        for _ in range(5 if files == 1 else 1):
            assert others.acquire(timeout=60)
        raise ActionError("the first part failed.")

    with pytest.raises(ActionError, match="the first part failed"):
        convert_run.run(plan, tmp_path / "target", threads, Meter(1, print), fails)
    work = tmp_path / "target.incomplete"
    assert not list(work.glob("*.part")) and not (work / plan.shards[0].name).exists()


def test_with_more_cores_more_files_are_made_side_by_side(tmp_path: Path) -> None:
    source = small.make().write(tmp_path / "source", shards=9)
    plan = w8a8.plan(headers.read(source))
    begun: dict[int, int] = {}
    most = 0

    def watched(rows: convert_shard.Rows, *given: Any) -> convert_shard.Made:
        nonlocal most
        most = max(most, len(list((tmp_path / "target.incomplete").glob("*.part"))))
        begun[threading.get_ident()] = 1
        return convert_shard.convert(rows, *given)

    convert_run.run(plan, tmp_path / "target", 8, Meter(1, print), watched)
    assert most >= 3 and len(begun) > 2
