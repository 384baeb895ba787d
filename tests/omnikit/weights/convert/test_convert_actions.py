"""What a conversion says it will do is what it then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import dry as convert_dry
from omnikit.weights.convert import run as convert_run
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("weights") / "source", shards=5)


def look(source: Path, target: Path) -> convert_dry.Rest:
    return convert_dry.look(w8a8.plan(headers.read(source)), target)


def test_every_action_is_named(source: Path, tmp_path: Path) -> None:
    rest = look(source, tmp_path / "target")
    assert convert_dry.lines(rest) == [
        f"make the folder {tmp_path}/target.incomplete",
        "write 5 files of weights: 64 tensors quantised, 4 tensors widened to bf16,"
        " 31 tensors copied",
        "leave out 68 block scales: each row has its own scale",
        "write config.json: fp8 of quantization_config becomes compressed-tensors int-quantized,"
        " 4 kv_b_proj not quantised",
        "write model.safetensors.index.json: 163 tensors in 5 files",
        "copy 2 files as they are: configuration_deepseek.py, tokenizer_config.json",
        "compare the result with the source, write omnikit-weights.json (hashes)",
        f"rename {tmp_path}/target.incomplete to {tmp_path}/target",
    ]
    assert not list(tmp_path.iterdir())


def test_of_a_run_that_was_cut_only_the_rest_counts(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, calls = tmp_path / "target", 0
    monkeypatch.setattr(convert_run, "_WAITING", 0)

    def cut(*given: Any) -> convert_shard.Made:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise KeyboardInterrupt
        return convert_shard.convert(*given)

    before = look(source, target)
    with pytest.raises(KeyboardInterrupt):
        convert_run.run(before.conversion, target, 1, Meter(1, print), cut)
    rest = look(source, target)
    assert rest.kept and rest.left and len(rest.kept) + len(rest.left) == 5
    assert sum(convert_dry.tensors(rest).values()) < 99
    assert rest.source_bytes < before.source_bytes and rest.needed < before.needed
    first, second = convert_dry.lines(rest)[:2]
    assert first.startswith("go on in ") and f"{len(rest.kept)} files are kept" in first
    assert second.startswith(f"write {len(rest.left)} files of weights")
