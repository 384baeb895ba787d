"""Files written past the page cache: the same bytes, whatever their places and the file system."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from omnikit.weights.convert.shard import ALIGN, DirectFile, buffer


def aligned(data: bytes, start: int) -> memoryview:
    """In memory as in the file."""
    kept = buffer(len(data) + ALIGN)
    view = kept[start % ALIGN : start % ALIGN + len(data)]
    view[:] = np.frombuffer(data, np.uint8)
    return memoryview(view.data)


def written(path: Path, data: bytes, cuts: list[int], lies: bool = True) -> tuple[bytes, set[int]]:
    """data, written in parts that end at the cuts, the last part first; and the pages (numbers)
    that went straight to the disk.
    """
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    direct: set[int] = set()
    file = DirectFile(path, len(data))
    straight, write = file.direct, os.pwrite

    def pwrite(descriptor: int, part: Any, at: int) -> int:
        count = write(descriptor, part, at)
        if descriptor == straight:
            direct.update(range(at // ALIGN, (at + count) // ALIGN))
        return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        for start, end in reversed(list(zip(bounds, bounds[1:]))):
            file.write(start, aligned(data[start:end], start if lies else start + 1))
        file.finish()
    found = path.read_bytes()
    path.unlink()
    return found, direct


@given(size=some.integers(1, 60_000), cuts=some.lists(some.integers(1, 60_000), max_size=6))
def test_parts_at_any_place_make_the_file(
    size: int, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path_factory.getbasetemp() / "direct"
    found, direct = written(path, data, cuts)
    assert found == data
    # Whole blocks within one part go straight to the disk.
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < size}), size]
    whole = {
        page
        for start, end in zip(bounds, bounds[1:])
        for page in range(-(-start // ALIGN), end // ALIGN)
    }
    assert direct == whole


def test_what_does_not_lie_as_in_the_file_is_written_plainly(tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(3 * ALIGN + 17)
    assert written(tmp_path / "f", data, [5000], lies=False) == (data, set())


def test_a_file_system_without_it_is_written_plainly(tmp_path: Path) -> None:
    """A double: whether /dev/shm takes O_DIRECT depends on the kernel."""
    really = os.open

    def refuses(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return really(path, flags, *rest)

    data = np.random.default_rng(2).bytes(5 * ALIGN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuses)
        file = DirectFile(tmp_path / "f", len(data))
    assert file.direct is None
    file.write(0, aligned(data, 0))
    file.finish()
    assert (tmp_path / "f").read_bytes() == data


@pytest.mark.parametrize("after", [0, ALIGN])
def test_one_that_refuses_a_write_gets_the_rest_plainly(tmp_path: Path, after: int) -> None:
    """A double, for no file system here does so. after: bytes that it takes before."""
    data, really = np.random.default_rng(3).bytes(5 * ALIGN + 3), os.pwrite
    file = DirectFile(tmp_path / "f", len(data))
    straight, calls = file.direct, 0

    def refuses(descriptor: int, part: Any, at: int) -> int:
        nonlocal calls
        if descriptor != straight:
            return really(descriptor, part, at)
        calls += 1
        if calls > bool(after):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return really(descriptor, part[:after], at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", refuses)
        file.write(0, aligned(data, 0))
    file.finish()
    assert calls == 1 + bool(after) and (tmp_path / "f").read_bytes() == data


def test_an_error_of_the_disk_is_not_hidden(tmp_path: Path) -> None:
    file = DirectFile(tmp_path / "f", ALIGN)
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            file.write(0, aligned(bytes(ALIGN), 0))
    file.close()
    file.close()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("of somebody else")
    with pytest.raises(FileExistsError):
        DirectFile(tmp_path / "f", 10)
    assert (tmp_path / "f").read_text() == "of somebody else"


def test_threads_write_side_by_side(tmp_path: Path) -> None:
    size = 64 * 5000
    data = np.random.default_rng(4).bytes(size)
    file = DirectFile(tmp_path / "f", size)
    with ThreadPoolExecutor(8) as pool:
        starts = range(0, size, 5000)
        list(pool.map(lambda at: file.write(at, aligned(data[at : at + 5000], at)), starts))
    file.finish()
    assert (tmp_path / "f").read_bytes() == data
