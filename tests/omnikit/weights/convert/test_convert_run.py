"""Conversions carried out: right bits, whatever the threads, cuts and disks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
from image_cases import mount_small_disk
from needs import needs

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter

pytestmark = pytest.mark.slow


def planned(source: Path) -> w8a8.Conversion:
    return w8a8.plan(headers.read(source))


def run(source: Path, target: Path, threads: int = 2, **options: Any) -> dict[str, Any]:
    return convert_run.run(planned(source), target, threads, Meter(1, print), **options)


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, so that parts are done in their order."""
    monkeypatch.setattr(convert_run, "_WAITING", 0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("weights") / "source", shards=5)


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    """The result of a run that nothing disturbed."""
    target = source.with_name("whole")
    run(source, target)
    return target


def test_every_tensor_is_what_the_formula_says(source: Path, whole: Path) -> None:
    made, found = small.make(), headers.read(whole)
    for name, (dtype, array) in made.tensors.items():
        if name.endswith("_scale_inv"):
            assert name not in found.tensors
            continue
        if dtype != "F8_E4M3":
            assert _data(found, name) == array.tobytes()
            continue
        value = small.widened(array, made.tensors[f"{name}_scale_inv"][1], made.block)
        if "kv_b_proj" in name:
            assert found.tensors[name].dtype == "BF16"
            assert _data(found, name) == small.bf16(value).tobytes()
            continue
        exact = np.abs(value).max(axis=1, keepdims=True) / np.float32(127)
        scale = small.from_bf16(small.bf16(exact))  # engines keep it so
        assert found.tensors[f"{name}_scale"].shape == (len(array), 1)
        assert _data(found, f"{name}_scale") == scale.tobytes()
        assert _data(found, name) == np.rint(value / scale).astype(np.int8).tobytes()


def test_sizes_that_are_odd_change_nothing_but_the_places(tmp_path: Path) -> None:
    """Then a file cannot be hashed as it is made."""
    odd = {"hidden_size": 255, "moe_intermediate_size": 127}
    own = small.make(seed=9, **odd).write(tmp_path / "own", shards=2)
    assert not all(shard.in_order for shard in planned(own).shards)
    told = run(own, tmp_path / "target")
    assert told["checked"]["max_error_steps"] <= 0.5001
    found = content(tmp_path / "target")
    assert {name: one["sha256"] for name, one in told["files"].items()}.items() <= found.items()


def _data(folder: headers.Checkpoint, name: str) -> bytes:
    tensor = folder.tensors[name]
    return (folder.folder / tensor.file).read_bytes()[tensor.start : tensor.end]


def test_the_real_library_reads_the_files(whole: Path) -> None:
    from safetensors import safe_open

    for path in whole.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                if name.endswith("_scale"):
                    assert (file.get_tensor(name) > 0).all()


def test_nothing_but_the_result_is_left(source: Path, whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    shards = {name for name in names if name.endswith(".safetensors")}
    assert len(shards) == 5
    others = {"config.json", "tokenizer_config.json", "configuration_deepseek.py"}
    assert names - shards == others | {headers.INDEX, w8a8.MANIFEST}
    assert not whole.with_name("whole.incomplete").exists()
    told = json.loads((whole / w8a8.MANIFEST).read_text())["files"]
    found = content(whole)
    del found[w8a8.MANIFEST]
    assert {name: one["sha256"] for name, one in told.items()} == found
    assert json.loads((whole / headers.INDEX).read_text())["weight_map"].keys() == (
        headers.read(whole).tensors.keys()
    )


@pytest.mark.parametrize("threads", [1, 7])
def test_threads_and_sizes_of_parts_change_nothing(
    source: Path, whole: Path, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_run, "CHUNK", 1000)
    monkeypatch.setattr(convert_run, "_MEMORY", 0)  # one row at a time: at least a MiB is allowed
    run(source, tmp_path / "target", threads)
    assert content(tmp_path / "target") == content(whole)


@pytest.mark.parametrize("fails_at", [1, 40, 75])
def test_after_an_error_the_next_run_goes_on_where_it_was(
    source: Path, whole: Path, tmp_path: Path, fails_at: int, alone: None
) -> None:
    calls = 0

    def fails(*given: Any) -> convert_shard.Made:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return convert_shard.convert(*given)

    target = tmp_path / "target"
    with pytest.raises(ActionError, match=r"disk is full; \d of 5 files are done and kept in"):
        run(source, target, 1, convert=fails)
    assert not target.exists()
    work = convert_records.work_folder(target)
    kept = sorted(work.glob("*.safetensors"))
    parts = np.cumsum([len(shard.pieces) for shard in planned(source).shards])
    assert not list(work.glob("*.part")) and len(kept) == (parts < fails_at).sum()
    before = {path: path.stat().st_mtime_ns for path in kept}
    needed, _ = convert_records.space_needed(planned(source), target)
    assert (needed < planned(source).size) == bool(kept)
    run(source, target, 1)
    assert content(target) == content(whole)
    again = {path: (target / path.name).stat().st_mtime_ns for path in kept}
    assert again == before


def test_a_kept_file_that_is_damaged_is_named(source: Path, tmp_path: Path, alone: None) -> None:
    calls = 0

    def fails(*given: Any) -> convert_shard.Made:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return convert_shard.convert(*given)

    target = tmp_path / "target"
    with pytest.raises(ActionError, match="Input/output error"):
        run(source, target, 1, convert=fails)
    kept = min(convert_records.work_folder(target).glob("*.safetensors"))
    data = bytearray(kept.read_bytes())
    data[-5] ^= 1
    kept.write_bytes(data)
    with pytest.raises(ActionError, match="is not what an earlier run has written"):
        run(source, target)
    kept.unlink()
    run(source, target)


def test_a_source_that_changed_since_is_converted_anew(source: Path, tmp_path: Path) -> None:
    def fails(*given: Any) -> convert_shard.Made:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    own = tmp_path / "own"
    small.make(seed=3).write(own)
    target = tmp_path / "target"
    with pytest.raises(ActionError):
        run(own, target, convert=fails)
    with pytest.raises(InputError, match="holds a conversion of another source"):
        run(source, target)


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    own = small.make(seed=4).write(tmp_path / "own")

    def touches(*given: Any) -> convert_shard.Made:
        made = convert_shard.convert(*given)
        for path in own.glob("*.safetensors"):
            os.utime(path, (1, 1))
        return made

    with pytest.raises(ActionError, match="was changed while it was converted"):
        run(own, tmp_path / "target", convert=touches)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("model.layers.1.self_attn.o_proj.weight", b"\x7f", "row 0 holds what is no finite number"),
        ("model.layers.1.self_attn.kv_b_proj.weight", b"\xff", "no finite number"),
        ("model.layers.2.mlp.experts.1.up_proj.weight_scale_inv", b"\0\0\xc0\x7f", "block scale"),
        ("model.layers.2.mlp.experts.1.up_proj.weight_scale_inv", b"\0\0\x80\xbf", "block scale"),
        ("model.layers.2.mlp.experts.1.up_proj.weight_scale_inv", b"\0" * 4, "the scale of block"),
    ],
)
def test_damaged_numbers_are_named_with_tensor_and_file(
    tmp_path: Path, name: str, value: bytes, what: str
) -> None:
    own = small.make(seed=5).write(tmp_path / "own")
    tensor = headers.read(own).tensors[name]
    with (own / tensor.file).open("r+b") as file:
        file.seek(tensor.start)
        file.write(value)
    with pytest.raises(ActionError, match=what) as caught:
        run(own, tmp_path / "target")
    assert name.replace("_scale_inv", "") in str(caught.value)
    files = {tensor.file, headers.read(own).tensors[name.replace("_scale_inv", "")].file}
    assert any(file in str(caught.value) for file in files)
    assert "download it again" in str(caught.value.todo)
    assert not (tmp_path / "target").exists()


def test_a_block_of_zeros_may_have_the_scale_0(tmp_path: Path) -> None:
    made, name = small.make(seed=8), "model.layers.1.self_attn.o_proj.weight"
    made.tensors[name][1][:128] = 0
    made.tensors[f"{name}_scale_inv"][1][0] = 0
    run(made.write(tmp_path / "own"), tmp_path / "target")
    found = headers.read(tmp_path / "target")
    assert not any(_data(found, name)[: 128 * 512]) and any(_data(found, name)[128 * 512 :])
    scales = np.frombuffer(_data(found, f"{name}_scale"), np.float32)
    assert (scales[:128] == 1).all() and (scales > 0).all()


def test_two_at_once_into_one_folder_are_refused(source: Path, tmp_path: Path, alone: None) -> None:
    target = tmp_path / "target"
    tried = []

    def second(*given: Any) -> convert_shard.Made:
        if not tried:
            with pytest.raises(ActionError, match="is under way") as caught:
                run(source, target)
            tried.append(str(caught.value))
        return convert_shard.convert(*given)

    run(source, target, 1, convert=second)
    assert f"pid {os.getpid()}" in tried[0] and target.is_dir()


@pytest.mark.parametrize("place", ["", "below/deep"])
def test_a_target_in_the_source_is_refused(source: Path, place: str) -> None:
    with pytest.raises(InputError, match="the target lies in the source"):
        run(source, source / place)


def test_what_is_there_is_never_overwritten(source: Path, whole: Path, tmp_path: Path) -> None:
    conversion = planned(source)
    assert convert_records.finished(whole, conversion)
    assert not convert_records.finished(tmp_path / "none", conversion)
    assert not convert_records.finished(tmp_path, conversion)
    other = planned(small.make(seed=6).write(tmp_path / "other"))
    # The same headers and configuration, other numbers.
    assert convert_records.source_print(other) != convert_records.source_print(conversion)
    with pytest.raises(InputError, match="of another source"):
        convert_records.finished(whole, other)
    with pytest.raises(InputError, match="was not made here"):
        convert_records.finished(source, conversion)


def test_an_empty_folder_is_taken(source: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    run(source, tmp_path / "target")
    assert content(tmp_path / "target") == content(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Less than the result needs: another file system than the source's."""
    needs("mount", root=True)
    folder = tmp_path / "disk"
    mount_small_disk(folder, 5)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_becomes_full_is_said_and_then_gone_on(
    source: Path, whole: Path, small_disk: Path
) -> None:
    target = small_disk / "target"
    needed, free = convert_records.space_needed(planned(source), target)
    assert free <= 5 << 20 < needed
    with pytest.raises(ActionError, match=r"the disk is full; \d of 5 files are done") as caught:
        run(source, target)
    assert "run again" in str(caught.value.todo)
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    run(source, target)
    assert content(target) == content(whole)
