"""The twin of vLLM is held against what it is a twin of; the rest is tests/test_twin_*.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import twin_image
import vllm_parser
import vllm_words

pytestmark = pytest.mark.slow

# A value that the engine keeps as an object, or that no description can hold.
NOT_COMPARED = {"compilation_config", "kv_transfer_config", "kv_events_config", "dispatch_function"}
NOT_COMPARED |= {"lora_modules", "prompt_adapters", "subparser", "model_tag"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    twin_image.packages(folder)
    return folder


def lines() -> list[list[str]]:
    good = list(vllm_words.LITERAL_WORDS.values())
    wrong = [[*good[-1], *extra] for extra, _ in vllm_words.WRONG.values()]
    old = [[*good[-1], *extra] for extra in vllm_words.ONLY["ascend"]]
    new = [[*good[-1], *extra] for extra in vllm_words.ONLY["cpu"]]
    spelled = [
        ["vllm", "serve", "/m", "--max_model_len", "4k", "--block-size=128"],
        ["vllm", "serve", "/m", "--max-model-l", "4096"],
        ["vllm", "serve", "--model", "/m"],
        ["vllm", "serve", "/m", "--enable-prefix-caching", "--no-enable-chunked-prefill"],
        ["vllm", "serve", "/m", "--additional-config", "not JSON"],
        ["vllm", "serve", "/m", "--quantization", "ascend"],
        ["vllm", "serve", "/m", "--distributed-executor-backend", "ray", "-tp", "32"],
        ["vllm", "serve", "/m", "extra"],
        ["vllm", "server", "/m"],
    ]
    return [*good, *wrong, *old, *new, *spelled]


def test_the_twin_reads_words_as_the_real_parser_does(site: Path) -> None:
    asked = lines()
    real = vllm_parser.ask(vllm_parser.install(), asked).lines
    twin = twin_image.values_of(site, asked)
    for words, expected, got in zip(asked, real, twin):
        assert (got is not None) == expected.accepted, (words, expected.said)
        if got is not None:
            known = {k: v for k, v in expected.values.items() if k not in NOT_COMPARED}
            assert {k: got.get(k) for k in known} == {k: str(v) for k, v in known.items()}
    assert {entry is not None for entry in twin} == {True, False}
