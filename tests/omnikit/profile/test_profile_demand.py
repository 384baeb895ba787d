"""The load that a profile needs, for fleets of every size, and loads that no server can take."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import pytest
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.config.config import Config
from omnikit.profile.load import Demand, Wave, demand, threshold
from omnikit.profile.recording import Options, nodes
from omnikit.topology.topology import make_plan


def of(loaded: Config, role: str = "all", instances: Sequence[str] = ()) -> Demand:
    plan = make_plan(loaded)
    return demand(loaded, plan, nodes(plan, Options(role, instances)))


def shipped(name: str, *sets: str) -> Config:
    return config.load(name, (), sets, environ={})


def test_every_decode_server_of_a_large_fleet_has_work_and_every_prefill_server_its_steps() -> None:
    made = of(shipped("18p1d"))
    assert (made.requests, made.concurrency) == (2 * 288, 288)
    assert made.waves == (Wave(("decode",), 288, 1), Wave(("prefill",), 18, 6))
    bounded = of(shipped("18p1d", "profiling.max_concurrency=100"))
    assert bounded.waves[0] == Wave(("decode",), 100, 3) and bounded.concurrency == 100
    more = of(shipped("18p1d", "profiling.steps=20"))
    assert more.requests == 2 * 18 * 21
    given = of(shipped("18p1d", "profiling.requests=5000", "profiling.concurrency=300"))
    assert (given.requests, given.concurrency) == (5000, 300)


def test_one_prefill_instance_needs_as_many_as_all_who_share_the_requests() -> None:
    made = of(shipped("18p1d"), "prefill", ["p3"])
    assert made.requests == 2 * 18 * 6 and made.waves == (Wave(("prefill",), 18, 6),)


def test_a_small_environment_keeps_what_is_set() -> None:
    made = of(shipped("local"))
    assert (made.requests, made.concurrency) == (64, 2)
    assert made.output_tokens == 7 and made.words == 64
    assert of(shipped("colocated")).waves == (Wave(("colocated",), 2, 1),)


def test_many_steps_are_more_requests_not_longer_answers(tmp_path: Path) -> None:
    made = of(load(tmp_path, FLEET, ["profiling.steps=1000"]))
    assert made.output_tokens == 128
    assert made.waves[0].times * made.waves[0].concurrency == 32 * 8  # 127 steps of each answer
    assert made.requests == 2 * 2 * 1001


def test_prompts_reach_the_threshold_where_prefill_is_recorded(tmp_path: Path) -> None:
    sets = ["profiling.token_threshold=9000"]
    assert of(load(tmp_path, FLEET, sets), "prefill").words == 9000
    assert of(load(tmp_path, FLEET, ["profiling.token_threshold=2"]), "decode").words == 64


def test_answers_of_decode_servers_meet_in_a_step_that_reaches_the_threshold(
    tmp_path: Path,
) -> None:
    made = of(load(tmp_path, FLEET, ["profiling.token_threshold=8"]), "decode")
    assert made.concurrency == 32 * 4  # two tokens for each request, one of them guessed
    assert made.output_tokens == 128 and made.requests == 2 * 128


@pytest.mark.parametrize(
    ("sets", "role", "said"),
    [
        (["token_threshold=20000"], "prefill", "20001 tokens at least, and its answer 7; but d0 "),
        (["input_words=16380"], "all", r"profiling\.input_words: a request of the load"),
        (["output_tokens=16384", "steps=20000"], "all", "its answer 16384; but d0 takes 16384"),
        (["token_threshold=64"], "all", "a decode server such as d0 never has 64 tokens: 2 for"),
        (["token_threshold=66", "max_concurrency=9999"], "decode", "of at most 32 requests"),
    ],
)
def test_what_no_load_can_do_is_refused(
    tmp_path: Path, sets: list[str], role: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        of(load(tmp_path, FLEET, [f"profiling.{one}" for one in sets]), role)


def test_a_step_of_prefill_that_is_too_small_is_refused(tmp_path: Path) -> None:
    sets = ["profiling.token_threshold=4000"]
    small = "roles.prefill.server.args.max-num-batched-tokens=2048"
    with pytest.raises(InputError, match=r"a step of p0 never has 4000 tokens: .* is 2048") as seen:
        of(load(tmp_path, FLEET, [*sets, small]), "prefill")
    assert "--token-threshold 2048 or less" in str(seen.value)


def test_an_engine_that_is_told_when_to_record_has_no_threshold(tmp_path: Path) -> None:
    sets = ["profiling.token_threshold=9000", "profiling.start=endpoint"]
    loaded = load(tmp_path, FLEET, sets)
    assert threshold(loaded.settings) == 1 and of(loaded).words == 64
