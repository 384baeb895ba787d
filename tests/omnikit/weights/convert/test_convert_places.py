"""Where a result grows and ends: links, mounted disks, other people's folders, room."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from image_cases import mount_small_disk
from needs import needs

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter


def planned(source: Path) -> w8a8.Conversion:
    return w8a8.plan(headers.read(source))


def run(source: Path, target: Path) -> dict[str, Any]:
    return convert_run.run(planned(source), target, 2, Meter(1, print))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("places") / "source", shards=2)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_target_that_is_a_link_is_made_where_it_leads(
    source: Path, tmp_path: Path, is_there: bool
) -> None:
    (tmp_path / "disk").mkdir()
    real = tmp_path / "disk" / "real"
    if is_there:
        real.mkdir()
    (tmp_path / "link").symlink_to(real)
    run(source, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (real / w8a8.MANIFEST).is_file()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["real"]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    needs("mount", root=True)
    folder = tmp_path / "disk"
    mount_small_disk(folder, 1)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_mount_point_cannot_be_the_target(source: Path, mounted: Path) -> None:
    with pytest.raises(InputError, match="is a mount point") as caught:
        run(source, mounted)
    assert f"--target {mounted}/source-W8A8" in str(caught.value.todo)
    assert not mounted.with_name("disk.incomplete").exists()
    # The room that counts is where the result grows.
    _, free = convert_records.space_needed(planned(source), mounted)
    assert free > 1 << 20


def test_a_source_is_not_taken_for_what_an_earlier_run_left(tmp_path: Path) -> None:
    own = small.make().write(tmp_path / "R1.incomplete")
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    with pytest.raises(InputError, match=r"R1\.incomplete, where it grows, lies in the source"):
        run(own, tmp_path / "R1")
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before


def test_what_msmodelslim_began_is_left_to_it(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target.msmodelslim").mkdir()
    with pytest.raises(InputError, match="by msmodelslim was begun") as caught:
        run(source, tmp_path / "target")
    assert "--method msmodelslim" in str(caught.value.todo)


def test_half_files_of_an_earlier_run_count_as_room(source: Path, mounted: Path) -> None:
    conversion, target = planned(source), mounted / "target"
    needed, before = convert_records.space_needed(conversion, target)
    work = convert_records.work_folder(target)
    work.mkdir()
    (work / f"{conversion.shards[0].name}.part").write_bytes(b"x" * (512 << 10))
    again, free = convert_records.space_needed(conversion, target)
    # A disk of its own, to which nobody else writes; without what counts, 512 KiB would be lacking.
    assert again == needed and before - (8 << 10) <= free <= before
