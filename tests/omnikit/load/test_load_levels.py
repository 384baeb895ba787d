"""The words for vLLM's load generator; test_deploy gives them to both releases."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest
from load_cases import a_load, a_target

from hostkit.base.errors import InputError
from omnikit.load import levels as load_options
from omnikit.load.levels import Level, arguments, levels, refuse, warm_up


def test_examples() -> None:
    assert doctest.testmod(load_options).failed == 0


def test_the_words_for_vllm_0_9() -> None:
    assert arguments("vllm-0.9", a_target(), a_load(), Level(4), 1) == [
        "--endpoint-type=openai-comp",
        "--base-url=http://127.0.0.1:1",
        "--endpoint=/v1/completions",
        "--model=tiny",
        "--tokenizer=/models/tiny",
        "--dataset-name=random",
        "--random-input-len=8",
        "--random-output-len=4",
        "--ignore-eos",
        "--seed=2",
        "--max-concurrency=4",
        "--num-prompts=6",
        "--percentile-metrics=ttft,tpot,itl,e2el",
        "--metric-percentiles=50,90,95,99",
    ]


def test_the_words_for_vllm_0_32_with_a_rate_and_chat() -> None:
    target = replace(a_target(), trust_remote_code=True)
    words = arguments("vllm-0.32", target, a_load(chat=True), Level(None, 0.5), 0)
    assert words[:3] == ["--backend=openai-chat", "--temperature=0", "--save-detailed"]
    assert "--endpoint=/v1/chat/completions" in words and "--trust-remote-code" in words
    assert "--request-rate=0.5" in words
    assert not any(word.startswith("--max-concurrency") for word in words)


def test_no_two_runs_send_the_same_prompts() -> None:
    load = a_load(seed=3)
    runs = [warm_up("vllm-0.9", a_target(), load)]
    runs += [arguments("vllm-0.9", a_target(), load, lv, i) for i, lv in enumerate(load.levels)]
    seeds = [word for run in runs for word in run if word.startswith("--seed")]
    assert seeds == ["--seed=3000", "--seed=3001", "--seed=3002"]
    assert "--num-prompts=2" in runs[0]


def test_a_sweep_is_of_concurrency_or_of_rates() -> None:
    assert levels((1, 4), ()) == (Level(1), Level(4))
    assert levels((), (1.0, 2.0)) == (Level(None, 1.0), Level(None, 2.0))
    with pytest.raises(InputError, match="found 2 values and a rate"):
        levels((1, 2), (1.0,))


def test_vllm_0_9_sends_no_chat() -> None:
    refuse("vllm-0.32", a_load(chat=True))
    refuse("vllm-0.9", a_load())
    with pytest.raises(InputError, match=r"--chat: the load generator of vLLM 0\.9"):
        refuse("vllm-0.9", a_load(chat=True))
