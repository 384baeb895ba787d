"""check_checkpoint.py: what a folder is, who loads it, what is wrong, and its exit status."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import converted_case as case
import numpy as np
import pytest
from converted_case import MATRIX, Tensors

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.verify import loads

ROOT = Path(__file__).resolve().parents[1]
NAME = "quant_model_description.json"


@functools.cache
def _integers(ascend: bool) -> small.Small:
    """As a converter makes it; what the numbers are nobody looks at here."""
    model = small.make()
    made = small.Small(None, dict(model.config))
    for name, (dtype, array) in model.tensors.items():
        if dtype == "F8_E4M3" and "kv_b_proj" not in name:
            made.tensors[name] = ("I8", np.ones(array.shape, np.int8))
            made.tensors[f"{name}_scale"] = ("F32", np.ones((array.shape[0], 1), np.float32))
            if ascend:
                made.tensors[f"{name}_offset"] = ("F32", np.zeros((array.shape[0], 1), np.float32))
        elif dtype == "F8_E4M3":
            made.tensors[name] = ("BF16", np.ones(array.shape, np.uint16))
        elif not name.endswith("_scale_inv"):
            made.tensors[name] = (dtype, array)
    return made


def quantised(folder: Path, ascend: bool = False) -> Path:
    _integers(ascend).write(folder)
    (folder / "tokenizer.json").write_text("{}")
    if ascend:
        case.describe(folder)
        (folder / case.DESCRIPTION).rename(folder / NAME)
    else:
        config = w8a8.new_config(headers.read(folder))
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def checked(folder: Path) -> dict[str, Any]:
    found = loads.check(folder)
    found["loads"] = {one["engine"]: one["loads"] for one in found["engines"]}
    found["flags"] = {one["engine"]: one["flags"] for one in found["engines"]}
    return found


def test_each_kind_is_known_and_who_loads_it(tmp_path: Path) -> None:
    fp8 = checked(small.make().write(tmp_path / "fp8"))
    assert (fp8["kind"], fp8["ok"]) == ("FP8 in blocks", True)
    assert not fp8["loads"]["vllm-ascend"] and fp8["loads"]["vLLM on GPU"]
    bf16 = checked(small.make(block=None).write(tmp_path / "bf16"))
    assert (bf16["kind"], bf16["ok"]) == ("not quantised", True) and all(bf16["loads"].values())
    ours = checked(quantised(tmp_path / "ours"))
    assert (ours["format"], ours["ok"]) == ("compressed-tensors", True), ours["problems"]
    assert ours["loads"] == {
        **{"omni-infer": True, "vllm-ascend": True, "vLLM on CPU": False, "vLLM on GPU": True}
    }
    slim = checked(quantised(tmp_path / "slim", ascend=True))
    assert (slim["format"], slim["ok"]) == ("ascend_v1", True), slim["problems"]
    assert slim["flags"]["vllm-ascend"] == "--quantization ascend"
    assert slim["loads"]["vLLM on GPU"] is False and slim["loads"]["omni-infer"] is None


def _edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    return lambda folder: case.edit_json(folder / name, change)


def _lose(end: str) -> Callable[[Path], None]:
    def change(tensors: Tensors) -> None:
        tensors.pop(f"{MATRIX}{end}", None)

    return lambda folder: case.rewrite(folder, change)


def _wrong_dtype(folder: Path) -> None:
    def change(tensors: Tensors) -> None:
        if "model.norm.weight" in tensors:
            tensors["model.norm.weight"] = ("I8", np.ones(256, np.int8))

    case.rewrite(folder, change)


def _shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[1]


def _cut(folder: Path) -> None:
    data = _shard(folder).read_bytes()
    _shard(folder).write_bytes(data[:-100])


def _download(folder: Path) -> None:
    (folder / ".download").mkdir()
    (folder / ".download" / "x.safetensors.incomplete").write_text("half")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: _shard(folder).unlink(), "is missing"),
        (_cut, "the file is cut"),
        (_lose("_offset"), f"{MATRIX} has no weight_offset"),
        (_lose("_scale"), f"{MATRIX} has no weight_scale"),
        (_lose(""), f"{MATRIX} is missing"),
        (_wrong_dtype, "model.norm.weight has dtype I8, expected BF16"),
        (lambda folder: (folder / NAME).unlink(), "there is no quant_model_description"),
        (lambda folder: (folder / NAME).rename(folder / case.DESCRIPTION), "looks for quant_model"),
        (_edit(NAME, lambda told: told.pop(MATRIX)), f"does not name {MATRIX}"),
        (_edit(NAME, lambda told: told.update({MATRIX: "FLOAT"})), f"{MATRIX} FLOAT, but it is"),
        (_edit(NAME, lambda told: told.update({MATRIX: "W8A8"})), "but there is no model.layers"),
        (
            _edit(NAME, lambda told: told.update({"model.layers.9.x.weight": "W8A8_DYNAMIC"})),
            "tells of model.layers.9.x.weight, which is not there",
        ),
        (_edit("config.json", lambda told: told.update(n_routed_experts=5)), "experts.4.down_proj"),
        (_edit("config.json", lambda told: told.update(hidden_size=512)), "expected [384, 512]"),
        (_edit("config.json", lambda told: told.update(torch_dtype="float16")), "is float16, but"),
        (_edit("config.json", lambda told: told.update(auto_map={"A": "x.B"})), "there is no x.py"),
        (
            _edit("config.json", lambda told: told.update(quantization_config=small.QUANTISATION)),
            "quantization_config is the source's (fp8)",
        ),
        (_download, "a download into this folder is not finished"),
        (lambda folder: (folder / "x.safetensors").write_bytes(b"x"), "does not belong here"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, damage: Callable[[Path], Any], what: str) -> None:
    folder = quantised(tmp_path / "m", ascend=True)
    damage(folder)
    found = checked(folder)
    assert not found["ok"] and any(what in problem for problem in found["problems"]), found


def test_static_matrices_of_a_hubs_checkpoint_are_known(tmp_path: Path) -> None:
    """DeepSeek-V3.2-W8A8 and others: attention with scales that are known before."""
    folder = quantised(tmp_path / "m", ascend=True)
    name = "model.layers.0.self_attn.o_proj"

    def change(tensors: Tensors) -> None:
        if f"{name}.weight" in tensors:
            rows = tensors[f"{name}.weight"][1].shape[0]
            one = np.ones(1, np.float32)
            more = {"input_scale": one, "input_offset": one, "deq_scale": np.ones(rows, np.float32)}
            tensors.update({f"{name}.{end}": ("F32", array) for end, array in more.items()})
            tensors[f"{name}.quant_bias"] = ("F32", np.zeros(rows, np.float32))

    case.rewrite(folder, change)
    case.describe(folder)
    (folder / case.DESCRIPTION).replace(folder / NAME)
    parts = ("weight", "weight_scale", "weight_offset", "input_scale", "deq_scale")
    case.edit_json(
        folder / NAME, lambda told: told.update({f"{name}.{one}": "W8A8" for one in parts})
    )
    found = checked(folder)
    assert found["ok"] and found["kind"] == "W8A8 INT8, static", found["problems"]
    assert found["loads"]["vllm-ascend"] and not found["loads"]["vLLM on GPU"]


@pytest.mark.parametrize(
    "told",
    [
        {"architectures": "DeepseekV3Fusion"},  # as msmodelslim leaves it
        {"architectures": 5},
        {"architectures": [5]},
        {"architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": "x"},
        {"quantization_config": 5},
        {"quantization_config": {"config_groups": 5, "quant_method": "compressed-tensors"}},
        {"torch_dtype": 5, "num_hidden_layers": "x", "mlp_only_layers": 5},
        {"auto_map": 5},
    ],
)
def test_no_content_of_a_configuration_is_a_traceback(tmp_path: Path, told: dict[str, Any]) -> None:
    for ascend in (True, False):
        folder = quantised(tmp_path / str(ascend), ascend=ascend)
        case.edit_json(folder / "config.json", lambda config: config.update(told))
        try:
            assert loads.as_text(checked(folder))
        except InputError as error:
            assert error.where and error.todo


def test_a_quantised_mtp_layer_is_noted(tmp_path: Path) -> None:
    notes = checked(quantised(tmp_path / "m", ascend=True))["notes"]
    assert any("the MTP layer is int8" in note for note in notes)


def test_a_model_that_is_not_known_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = quantised(tmp_path / "m", ascend=True)
    case.edit_json(folder / "config.json", lambda told: told.update(architectures=["OtherModel"]))
    found = checked(folder)
    assert found["ok"] and any("OtherModel" in note for note in found["notes"])
    _lose("_offset")(folder)
    assert any("has no weight_offset" in problem for problem in checked(folder)["problems"])


def script(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "scripts/check_checkpoint.py", *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_script_says_it_and_exits_with_1_when_something_is_wrong(tmp_path: Path) -> None:
    folder = quantised(tmp_path / "m", ascend=True)
    done = script(folder)
    assert done.returncode == 0 and done.stdout.endswith("good, by headers alone\n")
    assert "--quantization ascend" in done.stdout and "no published hashes" in done.stdout
    _shard(folder).unlink()
    done = script("--path", folder, "--json")
    assert done.returncode == 1 and not json.loads(done.stdout)["ok"]
    assert script(tmp_path / "nothing").returncode == 2


def test_only_headers_are_read(tmp_path: Path) -> None:
    """A terabyte that takes no space, and no time."""
    folder = small.make(block=None, vocab_size=8).write(tmp_path / "m", shards=1)
    (shard,) = folder.glob("*.safetensors")
    data = shard.read_bytes()
    length = int.from_bytes(data[:8], "little")
    described = json.loads(data[8 : 8 + length])
    rows = 1 << 31
    last = max(one["data_offsets"][1] for name, one in described.items() if name[0] != "_")
    described["model.big.weight"] = {
        "dtype": "BF16", "shape": [rows, 256], "data_offsets": [last, last + rows * 512]
    }  # fmt: skip
    head = json.dumps(described).encode()
    with shard.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + last + rows * 512)
    case.edit_json(
        folder / headers.INDEX,
        lambda told: told["weight_map"].update({"model.big.weight": shard.name}),
    )
    began = time.monotonic()
    found = checked(folder)
    assert found["bytes"] > 1e12 and time.monotonic() - began < 10
