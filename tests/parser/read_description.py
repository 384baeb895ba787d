"""What vllm-ascend makes of a checkpoint in its own format (quant_model_description.json).

Runs in the environment that has the plugin (vllm_parser.install_npu). Standard input: JSON
{folder, model_type, layers: [module, as the engine names it, …]}. Standard output: JSON, by module
the kind that the plugin computes it with ("FLOAT": as it is), or the words of its refusal.
"""

from __future__ import annotations

import json
import sys

import npu_stubs


def main() -> None:
    """See above."""
    npu_stubs.install()
    from vllm_ascend.quantization import modelslim_config as read

    asked = json.load(sys.stdin)
    config = read.AscendModelSlimConfig()
    config.maybe_update_config(asked["folder"])
    fused = read.get_packed_modules_mapping(asked["model_type"])
    told = {}
    for layer in asked["layers"]:
        try:
            if config.is_layer_skipped_ascend(layer, fused):
                told[layer] = "FLOAT"
                continue
            told[layer] = read.get_linear_quant_type(config.quant_description, layer, fused)
        except (KeyError, ValueError) as error:
            told[layer] = f"{type(error).__name__}: {error}"
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
