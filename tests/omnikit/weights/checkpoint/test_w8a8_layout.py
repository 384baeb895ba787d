"""Where the tensors of a new file lie: as the format and its readers want it, scales last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.loadable import small_deepseek as small


@pytest.mark.parametrize("odd", [False, True])
def test_every_tensor_has_a_place_of_its_own(tmp_path: Path, odd: bool) -> None:
    made = small.make(**({"hidden_size": 255, "moe_intermediate_size": 127} if odd else {}))
    shards = w8a8.plan(headers.read(made.write(tmp_path / "m"))).shards
    for shard in shards:
        described = json.loads(shard.head[8:])
        tensors = {name: one for name, one in described.items() if name != "__metadata__"}
        places = sorted(one["data_offsets"] for one in tensors.values())
        assert places[0][0] == 0 and places[-1][1] == shard.size - len(shard.head)
        assert all(a[1] == b[0] for a, b in zip(places, places[1:])) and len(shard.head) % 8 == 0
        # Readers take a tensor as a view of the file: its place must suit its elements.
        for one in tensors.values():
            assert one["data_offsets"][0] % headers.SIZES[one["dtype"]] == 0
        scales = [one["data_offsets"] for name, one in tensors.items() if name.endswith("_scale")]
        first, end = min(scales)[0] + len(shard.head), max(scales)[1] + len(shard.head)
        assert (shard.scales, shard.end_scales) == (first, end)
        assert sum(end - start for start, end in scales) == end - first
        starts = [piece.start for piece in shard.pieces]
        assert starts == sorted(starts)
    # The scales are last, and the file is hashed as it is made, where the elements come out even.
    assert [shard.in_order for shard in shards] == [not odd] * len(shards)


def test_a_new_file_is_named_after_its_source() -> None:
    assert (
        w8a8.new_name("model-00001-of-000163.safetensors")
        == "quant_model_weight_w8a8_dynamic-00001-of-000163.safetensors"
    )
    assert w8a8.new_name("x.safetensors") == ("quant_model_weight_w8a8_dynamic-x.safetensors")
