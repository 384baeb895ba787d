"""Stands in for msmodelslim's script of this name, which needs Ascend NPUs, CANN and torch-npu.

Takes the options of the branch that the install guide names, wants the environment and the edits
that the real one needs, and writes a result of the same form: the source's numbers as int8 with
weight_scale and weight_offset, the rest as it was. Nothing of ours is used.
FAKE_SLIM: oom, killed, short (a shard is missing), cut (a shard ends early), zeros (a shard of
nothing but zero bytes), float (nothing is int8), layers (without the last layer), hang (after a
shard), fa2 (no flash_attn).
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
from safetensors import deserialize, serialize_file

STEM = "quant_model_weight_w8a8_dynamic"
SHARD = STEM + "-0000{}-of-00002.safetensors"
BLOCK = 128
NAMES = {"BF16": "bfloat16", "F32": "float32", "I8": "int8"}
FLOATS = ("kv_b_proj",)  # what the tool leaves as it is, of the matrices


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_path", type=str, required=True, help="the path of the model")
    parser.add_argument("--save_path", type=str, required=True, help="where the result goes")
    parser.add_argument("--layer_count", type=int, default=0)
    for name in ("from_fp8", "from_bf16", "dynamic", "disable_anti"):
        parser.add_argument(f"--{name}", action="store_true")
    if os.environ.get("FAKE_SLIM_BRANCH") == "master":
        parser.add_argument("--quant_mtp", choices=["mix", "float", "none"], default="none")
    else:
        parser.add_argument("--quant_mtp", action="store_true")
        parser.add_argument("--cloud_vllm", action="store_true", help="for vLLM in the cloud")
    return parser.parse_args()


def check_environment(source):
    assert os.environ["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:False"
    assert Path(os.environ["ASCEND_TOOLKIT_HOME"]).is_dir()
    here = Path(__file__).resolve().parents[2]
    assert str(here) in os.environ["PYTHONPATH"].split(os.pathsep)
    assert Path.cwd() == here / "example" / "DeepSeek"
    assert "quantization_config" not in json.loads((source / "config.json").read_text())
    code = (source / "modeling_deepseek.py").read_text()
    assert "\nif is_flash_attn_2_available" not in code


def read(source):
    """All tensors of the source: name -> (dtype, shape, bytes)."""
    index = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    found = {}
    for file in sorted(set(index.values())):
        for name, one in deserialize((source / file).read_bytes()):
            found[name] = (one["dtype"], one["shape"], bytes(one["data"]))
    assert found.keys() == index.keys()
    return found


def e4m3(data):
    """The numbers that bytes of e4m3fn stand for, by its definition."""
    byte = np.frombuffer(data, np.uint8).astype(np.int64)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    small, large = mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0)
    value = np.where(exponent > 0, large, small)
    return np.where(byte & 128, -value, value).astype(np.float32)


def opened(tensors, name):
    """An FP8 matrix as float32 [out, in]: each value times its block's scale."""
    _, shape, data = tensors[name]
    _, grid, scales = tensors[name + "_scale_inv"]
    wide = np.frombuffer(scales, np.float32).reshape(grid).repeat(BLOCK, 0).repeat(BLOCK, 1)
    return e4m3(data).reshape(shape) * wide[: shape[0], : shape[1]]


def bf16(values):
    """float32 as the bytes of the nearest bf16."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def quantised(name, values):
    """int8 with one scale for each row, symmetric: what the tool calls W8A8_DYNAMIC."""
    scale = np.abs(values).max(1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    whole = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    one = [len(values), 1]
    return {
        name: ("I8", list(values.shape), whole.tobytes()),
        f"{name}_scale": ("F32", one, scale.astype(np.float32).tobytes()),
        f"{name}_offset": ("F32", one, np.zeros(one, np.float32).tobytes()),
    }


def converted(tensors, fault):
    """The result's tensors, and what each is called in the description."""
    made, described = {}, {}
    last = max(int(found[1]) for found in map(LAYER.match, tensors) if found)
    for name, (dtype, shape, data) in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        if fault == "layers" and name.startswith(f"model.layers.{last}."):
            continue
        if dtype != "F8_E4M3":
            now = {name: (dtype, shape, data)}
        elif fault == "float" or name.split(".")[-2] in FLOATS:
            now = {name: ("BF16", shape, bf16(opened(tensors, name)))}
        else:
            now = quantised(name, opened(tensors, name))
        made.update(now)
        described.update(dict.fromkeys(now, "W8A8_DYNAMIC" if len(now) > 1 else "FLOAT"))
    return made, described


LAYER = re.compile(r"model\.layers\.(\d+)\.")


def write(tensors, out, fault):
    """Two shards; returns which tensor lies in which."""
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        path = out / SHARD.format(number)
        weight_map.update(dict.fromkeys(part, path.name))
        if fault == "short" and number == 2:
            continue
        data = {
            name: {"dtype": NAMES[dtype], "shape": shape, "data": data}
            for name, (dtype, shape, data) in tensors.items()
            if name in part
        }
        serialize_file(data, str(path), {"format": "pt"})
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(600)
    if fault == "cut":
        os.truncate(path, path.stat().st_size - 1000)
    if fault == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    return weight_map


def main():
    given = options()
    assert given.from_fp8 and given.dynamic and given.disable_anti
    source, out, fault = Path(given.model_path), Path(given.save_path), os.environ.get("FAKE_SLIM")
    assert list(out.iterdir()) == []
    check_environment(source)
    print("loading the model")
    for percent in (0, 50, 100):
        sys.stderr.write(f"\rquantizing: {percent:3d}%|####      | {percent}/100")
        sys.stderr.flush()
    sys.stderr.write("\n")
    if fault == "oom":
        raise RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.97 GiB total)")
    if fault == "fa2":
        raise ImportError("This modeling file requires the following packages: flash_attn")
    tensors, described = converted(read(source), fault)
    weight_map = write(tensors, out, fault)
    size = sum(len(data) for _, _, data in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (out / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))
    told = {"model_quant_type": "W8A8_DYNAMIC", **described}
    (out / "quant_model_description_w8a8_dynamic.json").write_text(json.dumps(told))
    config = json.loads((source / "config.json").read_text())
    config.update(architectures="DeepseekV3Fusion")
    config["num_hidden_layers"] += config["num_nextn_predict_layers"]
    (out / "config.json").write_text(json.dumps(config, indent=2))
    for path in [*source.glob("*.py"), *source.glob("tokenizer*")]:
        shutil.copy(path, out)


if __name__ == "__main__":
    main()
