"""What the engine reads of the model's folder, and omni-infer's extra configuration of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Mapping, Optional

from vllm.twin.log import Fault, say
from vllm.twin.release import RELEASE

# omni/models/common/config/model_config.py, ModelParallelConfig: any other key is a TypeError.
_PARALLEL = ("dense_mlp_tp_size", "dp_size", "o_proj_tp_size", "redundancy_shared_expert_num")
_ABSENT = "operator_optimizition_config", "operator_optimization_config"


def config(values: Any) -> Optional[str]:
    """Read config.json; the quantisation. config.py, ModelConfig and _verify_quantization."""
    folder = Path(values.model)
    try:
        data = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise Fault(
            f"  Value error, Invalid repository ID or local directory specified: '{folder}'.\n"
            "Please verify the following requirements:\n"
            "2. Specify a local directory that contains a recognized configuration file.",
            where="config.py:489",
        ) from error
    if not data.get("model_type"):
        raise Fault(
            f"  Value error, Unrecognized model in {folder}. Should have a `model_type` key in its"
            " config.json.",
            where="config.py:489",
        )
    for name in (data.get("auto_map") or {}).values():
        _own_code(values, folder, f"{name.partition('.')[0]}.py")
    described = (data.get("quantization_config") or {}).get("quant_method")
    told = values.quantization
    if described is not None and told is not None and told != described:
        raise Fault(
            "  Value error, Quantization method specified in the model config"
            f" ({described}) does not match the quantization method specified in the"
            f" `quantization` argument ({told}).",
            where="config.py:894",
        )
    used = told or described
    if used == "fp8":
        raise Fault("ValueError: fp8 quantization is currently not supported in npu.")
    return None if used is None else str(used)


def _own_code(values: Any, folder: Path, name: str) -> None:
    if not values.trust_remote_code:
        raise Fault(
            f"  Value error, The repository {folder} contains custom code which must be executed"
            " to correctly load the model.\n"
            "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
            where="config.py:489",
        )
    if not (folder / name).is_file():
        raise Fault(f"OSError: {folder} does not appear to have a file named {name}.")


def describe(values: Any, quantization: Optional[str]) -> None:
    """The engine's line about its configuration (v1/engine/core.py, EngineCore.__init__)."""
    say(
        "core.py:65",
        f"Initializing a V1 LLM engine (v{RELEASE['version']}) with config: model='{values.model}',"
        f" speculative_config={values.speculative_config}, tokenizer='{values.model}',"
        f" trust_remote_code={values.trust_remote_code}, max_seq_len={values.max_model_len},"
        f" tensor_parallel_size={values.tensor_parallel_size}, quantization={quantization},"
        f" enforce_eager={values.enforce_eager}, device_config=npu,"
        f" served_model_name={served(values)}",
    )


def served(values: Any) -> str:
    """The name that requests call the model by."""
    name = values.served_model_name
    return str(name[0] if isinstance(name, list) else name or values.model)


def load(values: Any, quantization: Optional[str], device: int) -> None:
    """Read every shard's header. INT8 weights with nothing that says so take twice their memory."""
    folder = Path(values.model)
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise Fault(
            f"RuntimeError: Cannot find any model weights with `{folder}`; it does not appear to"
            " have a file named model.safetensors."
        )
    for shard in shards:
        types = _types(shard)
        if "I8" in types and quantization is None:
            raise Fault(
                f"RuntimeError: NPU out of memory. Tried to allocate 3.47 GiB (NPU {device};"
                " 60.97 GiB total capacity; 58.92 GiB already allocated; 1.66 GiB free)"
            )
        if "I8" not in types and quantization == "compressed-tensors":
            raise Fault("KeyError: 'model.layers.0.self_attn.q_a_proj.weight_scale'")


def _types(shard: Path) -> set[str]:
    size = shard.stat().st_size
    with shard.open("rb") as file:
        length = struct.unpack("<Q", (file.read(8) + b"\0" * 8)[:8])[0]
        header = file.read(length) if length < size else b""
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
    except ValueError:
        tensors = {}
    end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=-1)
    if 8 + length + end != size:
        raise Fault(
            "safetensors_rust.SafetensorError: Error while deserializing header:"
            " MetadataIncompleteBuffer"
        )
    return {tensor["dtype"] for tensor in tensors.values()}


def extra(env: Mapping[str, str], values: Any, dp_size: int) -> None:
    """omni/models/common/config/model_config.py, init_model_extra_config, and who uses it.

    A dp_size that is not the data-parallel size has no text of its own in the real engine: its
    groups of NPUs then do not fit, and HCCL waits until it gives up. Here it gives up at once.
    """
    path = env.get("MODEL_EXTRA_CFG_PATH", "")
    try:
        data = json.loads(Path(path).read_text())
    except OSError:
        say(
            "model_config.py:96",
            f"[WARNING] Config file not found: {path}, using default configuration.",
            "WARNING",
        )
        return
    except ValueError as error:
        raise Fault(f"RuntimeError: [ERROR] Invalid JSON format in config file: {error}") from error
    operator = next((data[name] for name in _ABSENT if name in data), None)
    for name, there in (("model_parallel_config", data.get("model_parallel_config")),):
        if there is None or operator is None:
            absent = name if there is None else _ABSENT[0]
            raise Fault(f"RuntimeError: [ERROR] Missing required key in config data: '{absent}'")
    sizes = data["model_parallel_config"]
    for name in sizes:
        if name not in _PARALLEL:
            raise Fault(
                "RuntimeError: [ERROR] Config structure mismatch or incorrect field types:"
                f" ModelParallelConfig.__init__() got an unexpected keyword argument '{name}'"
            )
    _placement(operator)
    _gear(operator, values, env.get("ROLE"))
    if env.get("ROLE") and sizes.get("dp_size", 1) != dp_size:
        raise Fault(
            "RuntimeError: EI0006: Getting socket times out. Reason: the remote did not initiate"
            f" the connection: a group of {sizes.get('dp_size', 1)} data-parallel ranks, {dp_size}"
            " are there"
        )


def _placement(operator: Mapping[str, Any]) -> None:
    if not operator.get("use_omni_placement"):
        return
    path = operator.get("omni_placement_config_path")
    if not path:
        raise Fault(
            "RuntimeError: [ERROR] Unexpected error while loading model extra config: When"
            " use_omni_placement=True, omni_placement_config_path must be provided!"
        )
    if not Path(path).is_file():
        raise Fault(f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'")


def _gear(operator: Mapping[str, Any], values: Any, role: Optional[str]) -> None:
    """omni/adaptors/vllm/worker/npu_model_runner.py, _get_closest_gear, and the list's check in
    compilation/compile_config.py: only graphs have gears, and prefill has no graphs.
    """
    gears = operator.get("decode_gear_list")
    if role != "decode" or values.enforce_eager or not gears:
        return
    guessed = int((values.speculative_config or {}).get("num_speculative_tokens", 0))
    batch = (values.max_num_seqs or 256) * (1 + guessed)
    if max(gears) > batch:
        say(
            "compile_config.py:96",
            f"PTA_TORCHAIR_DECODE_GEAR_LIST({gears}) becomes ([]) due to max_batch_size({batch})",
            "WARNING",
        )
    if max(gears) != batch:
        raise Fault(
            f"ValueError: decode input batch size {batch} exceeds maximum gear"
            f" {max(g for g in [*gears, 0] if g <= batch)}."
        )
