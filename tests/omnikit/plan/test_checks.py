"""What prefill and decode are told must fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import load_site

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.topology.topology import make_plan


def plan_with(*assignments: str):
    return make_plan(config.load("2p1d", assignments=assignments, environ={}))


def refused(*assignments: str) -> str:
    with pytest.raises(InputError) as caught:
        plan_with(*assignments)
    return str(caught.value)


@pytest.mark.parametrize("name", ["1p1d", "2p1d", "4p1d", "8p1d", "18p1d", "qwen2.5"])
def test_the_shipped_environments_fit(name: str) -> None:
    make_plan(config.load(name, environ={}))


GEAR = (
    "roles.decode.server.files={model_extra_config.json: "
    "{operator_optimizition_config: {decode_gear_list: [%d]}}}"
)


def test_gear_list_follows_batch_and_speculative_tokens() -> None:
    text = refused("roles.decode.server.args.max-num-seqs=24")
    assert "found [64], expected [48]" in text and "24 x (1 + 1" in text
    plan_with("roles.decode.server.args.max-num-seqs=24", GEAR % 48)
    no_mtp = "roles.disaggregated.server.args.speculative_config=null"
    assert "expected [32]" in refused(no_mtp)
    plan_with(no_mtp, GEAR % 32)


def test_a_tensor_parallel_size_that_no_flag_tells_the_servers_is_refused() -> None:
    """The CPU engine's flags do not name it: set alone it would change nothing, without a word."""
    wanted = "roles.decode.server.tensor_parallel=2"
    told = "roles.decode.server.args.tensor-parallel-size=${plan.tp_size}"
    with pytest.raises(InputError, match="tensor_parallel is 2, but the flags of d0 say 1"):
        make_plan(config.load("local", assignments=[wanted], environ={}))
    for given in ([wanted, told], ["roles.decode.server.args.tensor-parallel-size=2"]):
        plan = make_plan(config.load("local", assignments=given, environ={}))
        sizes = {node.name: node.tensor_parallel for node in plan.nodes if node.servers}
        assert sizes == {"p0": 1, "p1": 1, "d0": 2}


def test_dp_size_of_the_extra_config_is_the_planned_one() -> None:
    wrong = (
        "roles.decode.server.files={model_extra_config.json: "
        "{model_parallel_config: {dp_size: 16}}}"
    )
    assert "told dp_size 16, its data-parallel size is 32" in refused(wrong)


def test_kv_parallel_size_is_the_planned_one() -> None:
    text = refused("roles.decode.server.args.kv-transfer-config={kv_parallel_size: 2, kv_rank: 5}")
    assert "kv_parallel_size 2, the plan has 3" in text
    assert "kv_rank 5, the plan has 2" in text
    assert "--set" in text


def test_one_timeout_for_the_fleet() -> None:
    text = refused("roles.decode.server.env.HCCL_CONNECT_TIMEOUT=600")
    assert "all hosts need the same" in text
    everywhere = "roles.disaggregated.server.env.HCCL_CONNECT_TIMEOUT=%d"
    assert "expected 120 to 7200" in refused(everywhere % 60)
    plan_with(everywhere % 600)


@pytest.mark.parametrize(
    ("section", "text", "expected"),
    [
        ("env", "HCCL_CONNECT_TIMEOUT: 60", "found 60, expected 120 to 7200 seconds"),
        ("env", "GLOO_SOCKET_IFNAME: 'eth0,eth1'", "the name of one interface"),
        ("args", "speculative_config: {num_speculative_tokens: x}", "a whole number"),
        ("args", """speculative-config: '{"num_speculative_tokens": -1}'""", "a whole number"),
    ],
)
def test_a_value_that_no_plan_can_mend_is_told_when_it_is_read(
    tmp_path: Path, section: str, text: str, expected: str
) -> None:
    site = f"roles:\n  decode:\n    server:\n      {section}:\n        {text}\n"
    with pytest.raises(InputError) as caught:
        load_site(tmp_path, site)
    assert caught.value.where == f"{tmp_path}/site.yaml:5" and expected in str(caught.value)


def test_prefill_takes_what_decode_could_serve() -> None:
    text = refused("roles.decode.server.args.max-model-len=64000")
    assert "decode takes 64000 tokens, prefill only 32000" in text


def test_all_faults_are_told_at_once() -> None:
    text = refused(
        "roles.decode.server.args.max-model-len=64000", "roles.decode.server.args.max-num-seqs=24"
    )
    assert "64000" in text and "decode_gear_list" in text


def test_placement_that_is_switched_off_is_said() -> None:
    assert plan_with().notes == ()
    made = plan_with("model.placement=false")
    [note] = made.notes
    assert "omni_placement is switched off for p0, p1" in note
    extra = [node.files["model_extra_config.json"] for node in made.nodes]
    assert not any(e["operator_optimizition_config"]["use_omni_placement"] for e in extra)
