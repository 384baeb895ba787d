"""Two formats of the same integers: made directly, and each of the other without any arithmetic."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import converted_case as case
import pytest
from safetensors import safe_open

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.w8a8 import ASCEND, COMPRESSED, DESCRIPTION, OFFSETS
from omnikit.weights.convert import kernels
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter

pytestmark = pytest.mark.slow


def made(source: Path, target: Path, format: str) -> dict[str, Any]:
    plan = w8a8.plan(headers.read(source), format)
    return convert_run.run(plan, target, 2, Meter(0, case.silent))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "omnikit-weights.json"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("formats")
    found = {"source": small.make().write(root / "source")}
    for format in (COMPRESSED, ASCEND):
        made(found["source"], root / format, format)
        found[format] = root / format
    return found


@pytest.fixture
def no_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("quantise_fp8", "quantise_bf16", "widen_fp8"):
        monkeypatch.setattr(kernels, name, None)


def test_ascend_v1_says_of_every_tensor_what_it_is(folders: dict[str, Path]) -> None:
    folder = folders[ASCEND]
    told = json.loads((folder / DESCRIPTION).read_text())
    index = json.loads((folder / headers.INDEX).read_text())["weight_map"]
    assert told["model_quant_type"] == "W8A8_DYNAMIC" and told["group_size"] == 0
    assert index.keys() <= told.keys() and not [name for name in told if "fa_quant" in name]
    dynamic = {name for name, kind in told.items() if kind == "W8A8_DYNAMIC"} & index.keys()
    assert len(dynamic) == 3 * 64
    for name in dynamic:
        matrix = name.removesuffix("_scale").removesuffix("_offset")
        assert {matrix, f"{matrix}_scale", f"{matrix}_offset"} <= dynamic
    for name in ("lm_head", "model.embed_tokens", "model.layers.3.shared_head.head"):
        assert told[f"{name}.weight"] == "FLOAT"
    assert told["model.layers.0.self_attn.kv_b_proj.weight"] == "FLOAT"
    with safe_open(folder / OFFSETS, "np") as file:  # the library that engines read with
        assert set(file.keys()) == {name for name in dynamic if name.endswith("_offset")}
        one = file.get_tensor(f"{case.MATRIX}_offset")
        assert one.dtype == "float32" and one.shape == (128, 1) and not one.any()
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config and config["torch_dtype"] == "bfloat16"


@pytest.mark.usefixtures("no_arithmetic")
@pytest.mark.parametrize("pair", [(COMPRESSED, ASCEND), (ASCEND, COMPRESSED)])
def test_the_other_format_is_the_same_as_made_directly_and_shares_its_shards(
    folders: dict[str, Path], pair: tuple[str, str]
) -> None:
    was, becomes = folders[pair[0]], folders[pair[1]]
    target = folders["source"].parent / f"repacked-{pair[1]}"
    told = made(was, target, pair[1])
    assert contents(target) == contents(becomes)
    for name in headers.read(folders[COMPRESSED]).shards:
        assert (target / name).stat().st_ino == (was / name).stat().st_ino
    assert told["method"] == "repacked" and told["numbers"] == "native"
    shards = len(headers.read(was).shards)
    by = told["source"]["published"]
    assert by == {"as_published": shards, "of": shards, "by": "omnikit-weights.json"}
    assert case.verified(target, folders["source"])["all"] == []
    assert case.verified(target, was)["all"] == []
    assert convert_records.finished(target, w8a8.plan(headers.read(was), pair[1]))


@pytest.mark.usefixtures("no_arithmetic")
def test_offsets_in_the_shards_are_left_out(folders: dict[str, Path], tmp_path: Path) -> None:
    slim = case.as_msmodelslim(case.copy(folders[COMPRESSED], tmp_path / "slim"))
    made(slim, tmp_path / "target", COMPRESSED)
    found = headers.read(tmp_path / "target")
    assert found.tensors.keys() == headers.read(folders[COMPRESSED]).tensors.keys()
    assert case.verified(tmp_path / "target", folders["source"])["all"] == []
    (tmp_path / "again").mkdir()
    made(slim, tmp_path / "again", ASCEND)  # with the name that vllm-ascend looks for
    assert (tmp_path / "again" / DESCRIPTION).is_file()
    assert case.verified(tmp_path / "again", slim)["all"] == []


def test_without_second_names_files_are_copied(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    made(folders[COMPRESSED], tmp_path / "target", ASCEND)
    assert contents(tmp_path / "target") == contents(folders[ASCEND])


def test_a_target_in_the_other_format_is_not_called_unchanged(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="of this source in the format compressed-tensors") as got:
        made(folders["source"], folders[COMPRESSED], ASCEND)
    assert "--format ascend_v1" in str(got.value.todo)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda told: told.update({case.MATRIX: "W4A8_DYNAMIC"}), "W4A8_DYNAMIC"),
        (lambda told: told.update({case.MATRIX: "W8A8"}), "tells of W8A8"),
        (lambda told: told.update(kv_cache_type="C8"), "kv_cache_type 'C8'"),
        (lambda told: told.update(optional={"quarot": {}}), "optional"),
    ],
)
def test_more_than_both_formats_have_is_not_repacked(
    folders: dict[str, Path], tmp_path: Path, change: Any, what: str
) -> None:
    copy = case.copy(folders[ASCEND], tmp_path / "copy")
    case.edit_json(copy / DESCRIPTION, change)
    with pytest.raises(InputError, match=what) as caught:
        w8a8.plan(headers.read(copy), COMPRESSED)
    assert "check-checkpoint" in str(caught.value.todo)


def sums(folder: Path) -> None:
    lines = [f"{convert_run.sha256(path)}  {path.name}" for path in folder.glob("*.safetensors")]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def record(folder: Path) -> None:
    files = {p.name: {"identity": f"sha256:{convert_run.sha256(p)}"} for p in folder.glob("*")}
    (folder / ".download").mkdir()
    (folder / ".download" / "record.json").write_text(json.dumps({"files": files}))


def client(folder: Path) -> None:
    place = folder / ".cache" / "huggingface" / "download"
    place.mkdir(parents=True)
    for path in folder.glob("*.safetensors"):
        text = f"{'a' * 40}\n{convert_run.sha256(path)}\n1700000000.0\n"
        (place / f"{path.name}.metadata").write_text(text)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def zero(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(16384))


@pytest.mark.parametrize("publish", [sums, record, client])
@pytest.mark.parametrize("damage", [flip, zero])
def test_a_damaged_source_is_noticed_where_hashes_were_published(
    folders: dict[str, Path], tmp_path: Path, publish: Any, damage: Any
) -> None:
    source = case.copy(folders["source"], tmp_path / "source")
    publish(source)
    shutil.copytree(folders[COMPRESSED], tmp_path / "before")
    shard = headers.read(source).tensors[case.MATRIX]
    status = (source / shard.file).stat()
    damage(source / shard.file, shard.start + 100)
    os.utime(source / shard.file, ns=(status.st_atime_ns, status.st_mtime_ns))  # a disk's doing
    with pytest.raises(ActionError, match="is not as it was published") as caught:
        made(source, tmp_path / "target", COMPRESSED)
    assert caught.value.where == str(source / shard.file) and not (tmp_path / "target").exists()
    found = case.verified(tmp_path / "before", source)
    assert f"source: {shard.file} is not as it was published" in found["problems"][0]
    assert "fetch these files of the source again" in found["todo"] or found["kinds"]


def test_without_published_hashes_it_is_said(folders: dict[str, Path]) -> None:
    told = json.loads((folders[COMPRESSED] / "omnikit-weights.json").read_text())
    assert told["source"]["published"] == {"as_published": 0, "of": 3, "by": None}
    assert case.verified(folders[COMPRESSED], folders["source"])["source_hashes"] == 0


def test_a_whole_source_is_as_published(folders: dict[str, Path], tmp_path: Path) -> None:
    source = case.copy(folders["source"], tmp_path / "source")
    sums(source)
    told = made(source, tmp_path / "target", ASCEND)
    assert told["source"]["published"] == {"as_published": 3, "of": 3, "by": "SHA256SUMS"}
    assert contents(tmp_path / "target") == contents(folders[ASCEND])
