"""Stands in for msmodelslim's script of this name, which needs Ascend NPUs, CANN and torch-npu.

Takes the options of the branch that the install guide names, wants the environment and the edits
that the real one needs, and writes a result of the same form with tiny tensors.
FAKE_SLIM: oom, killed, short (a shard is missing), hang (after a shard), fa2 (no flash_attn).
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SHARD = "quant_model_weight_w8a8_dynamic-0000{}-of-00002.safetensors"


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
    weight_map = {}
    for number in (1, 2):
        name = f"model.layers.{number}.mlp.gate_proj"
        tensors = {
            f"{name}.weight": np.ones((4, 2), np.int8),
            f"{name}.weight_scale": np.ones((4, 1), np.float32),
            f"{name}.weight_offset": np.zeros((4, 1), np.float32),
        }
        weight_map.update({key: SHARD.format(number) for key in tensors})
        if not (fault == "short" and number == 2):
            save_file(tensors, out / SHARD.format(number))
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(600)
    stem = "quant_model_weight_w8a8_dynamic"
    (out / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    described = dict.fromkeys(weight_map, "W8A8_DYNAMIC")
    (out / "quant_model_description_w8a8_dynamic.json").write_text(json.dumps(described))
    config = json.loads((source / "config.json").read_text())
    config.update(architectures="DeepseekV3Fusion", num_hidden_layers=62)
    (out / "config.json").write_text(json.dumps(config, indent=2))
    for path in source.glob("*.py"):
        shutil.copy(path, out)


main()
