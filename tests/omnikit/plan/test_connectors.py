"""What a KV connector asks of prefill and decode is held against the plan before a start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

import pytest
import recipes
import settings_file
from recipes import DECODE_KV, PREFILL_KV, SMALL, edited, place, several

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.plan import connectors
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

KV_FLAG = "- --kv-transfer-config"


def plan_of(*edits: tuple[str, str], text: str = SMALL) -> Plan:
    return recipes.planned_text(edited(*edits, text=text), "small.yaml")[0]


def refused(*edits: tuple[str, str], text: str = SMALL) -> str:
    with pytest.raises(InputError) as caught:
        plan_of(*edits, text=text)
    return str(caught.value)


def flag_of_prefill(*words: str) -> tuple[str, str]:
    listed = "".join(f"      - {word}\n" for word in words)
    return "      - --enforce-eager\n", f"{listed}      - --enforce-eager\n"


def flag_of_decode(*words: str) -> tuple[str, str]:
    listed = "".join(f"      - {word}\n" for word in words)
    return (
        f"      {KV_FLAG}\n      - '{DECODE_KV}",
        f"{listed}      {KV_FLAG}\n      - '{DECODE_KV}",
    )


# Sizes


@pytest.mark.parametrize("role, other", [("prefill", "decode"), ("decode", "prefill")])
@pytest.mark.parametrize("key", ["dp_size", "tp_size"])
def test_both_sides_are_told_the_sizes_of_both_roles(role: str, other: str, key: str) -> None:
    for nth, told in ((1, PREFILL_KV), (2, DECODE_KV)):
        data = json.loads(told)
        size = data["kv_connector_extra_config"][role][key]
        data["kv_connector_extra_config"][role][key] = 64
        said = refused((told, json.dumps(data)))
        node = "p0" if nth == 1 else "d0"
        has = f"{role} instances have {size} (small.yaml:{17 if role == 'prefill' else 25})"
        assert f"{place(SMALL, KV_FLAG, nth)}: {node} is told 64 {role}.{key}" in said
        assert has in said and f"write ${{plan.{role}_{key}}}" in said
        assert f"told {other}" not in said


def test_a_size_that_is_a_text_or_missing_is_shown_as_such() -> None:
    said = refused((PREFILL_KV, PREFILL_KV.replace('"tp_size": 8', '"tp_size": "8"')))
    assert 'p0 is told "8" prefill.tp_size for MooncakeConnectorV1' in said
    without = several(PREFILL_KV).replace(', "tp_size": 8', "")
    said = refused((PREFILL_KV, without), (DECODE_KV, several(DECODE_KV)))
    assert "p0 is told no prefill.tp_size for MooncakeConnectorV1" in said


def test_one_of_withoutconnectors_is_held_to_it_too() -> None:
    plan_of((PREFILL_KV, several(PREFILL_KV)), (DECODE_KV, several(DECODE_KV)))
    wrong = several(DECODE_KV).replace('"dp_size": 2, "tp_size": 8', '"dp_size": 2, "tp_size": 16')
    said = refused((PREFILL_KV, several(PREFILL_KV)), (DECODE_KV, wrong))
    assert "d0 is told 16 prefill.tp_size for MooncakeConnectorV1" in said
    assert f"prefill instances have 8 ({place(SMALL, 'tp_size: 8')})" in said


def two_prefill(size: int, local: int, tp: int) -> str:
    """A second prefill instance with sizes of its own."""
    second = SMALL[SMALL.index("  - node_index: 0\n    port") : SMALL.index("  - node_index: 1\n")]
    for old, new in (
        ("node_index: 0", "node_index: 2"),
        ("NODE_0_IP", "NODE_2_IP"),
        ("dp_size: 2", f"dp_size: {size}"),
        ("dp_size_local: 2", f"dp_size_local: {local}"),
        ("tp_size: 8", f"tp_size: {tp}"),
    ):
        second = second.replace(old, new, 1)
    template = SMALL[
        SMALL.index("  - node_index: 0\n    envs") : SMALL.rindex("  - node_index: 1\n")
    ]
    template = template.replace("node_index: 0", "node_index: 2").replace("30000", "30200")
    return edited(
        ("num_nodes: 2", "num_nodes: 3"),
        ("prefiller: [0]", "prefiller: [0, 2]"),
        ("env_common: &", f"{second}env_common: &"),
        text=SMALL + template,
    )


def test_all_instances_of_a_role_have_the_same_sizes() -> None:
    plan_of(text=two_prefill(2, 2, 8))
    text = two_prefill(1, 1, 16)
    said = refused(text=text)
    assert f"{place(text, 'tp_size: 16')}: p1 has tensor parallel size 16, p0 has 8" in said
    assert f"({place(text, 'tp_size: 8')}): MooncakeConnectorV1 is told one size of each" in said
    assert "give all prefill instances the same devices" in said
    said = refused(text=two_prefill(1, 1, 8))
    assert "p1 has data parallel size 1, p0 has 2" in said


# Tensor parallel


def with_tensor_parallel(prefill: int, decode: int, *edits: tuple[str, str]) -> str:
    """The small recipe with one server of so many devices on each side."""
    text = edited(
        ("dp_size: 2\n    dp_size_local: 2", "dp_size: 1\n    dp_size_local: 1"),
        ("dp_size: 4\n    dp_size_local: 4", "dp_size: 1\n    dp_size_local: 1"),
        ("tp_size: 4", f"tp_size: {decode}"),
        ("tp_size: 8", f"tp_size: {prefill}"),
        *[('{"dp_size": 2, "tp_size": 8}', f'{{"dp_size": 1, "tp_size": {prefill}}}')] * 2,
        *[('{"dp_size": 4, "tp_size": 4}', f'{{"dp_size": 1, "tp_size": {decode}}}')] * 2,
    )
    return edited(*edits, text=text)


@pytest.mark.parametrize("prefill, decode", [(4, 8), (12, 8), (1, 2)])
def test_prefills_tensor_parallel_size_is_a_multiple(prefill: int, decode: int) -> None:
    text = with_tensor_parallel(prefill, decode)
    said = refused(text=text)
    assert f"{place(text, f'tp_size: {prefill}')}: p0 has tensor parallel size {prefill}," in said
    assert "MooncakeConnectorV1 needs a multiple of that of d0, which is" in said
    assert f"is {decode} ({place(text, f'tp_size: {decode}')})." in said
    assert "change server.tensor_parallel of roles.prefill or roles.decode" in said


@pytest.mark.parametrize("prefill, decode", [(8, 8), (16, 8), (16, 1)])
def test_a_multiple_is_fine(prefill: int, decode: int) -> None:
    plan_of(text=with_tensor_parallel(prefill, decode))


def test_a_connector_without_that_rule_takes_any() -> None:
    layerwise = [("MooncakeConnectorV1", "MooncakeLayerwiseConnector")] * 2
    plan_of(text=with_tensor_parallel(4, 8, *layerwise))


def test_an_equal_size_can_be_asked_for() -> None:
    def planned(prefill: int) -> Plan:
        text = with_tensor_parallel(prefill, 4)
        tree = recipes.read(text, "small.yaml").read()
        rule = "connectors.MooncakeConnectorV1={handover: pull, tensor_parallel: equal}"
        return make_plan(config.load("recipe", (), [rule], environ={}, tree=tree))

    planned(4)
    with pytest.raises(InputError, match="needs that of d0, which is 4"):
        planned(8)


# Flags that must agree


def test_a_flag_that_must_agree_is_shown_with_both_places() -> None:
    text = edited(flag_of_prefill("--block-size", "64"), flag_of_decode("--block_size=32"))
    said = refused(text=text)
    assert f"{place(text, '--block_size')}: d0 has --block-size 32, p0 has --block-size 64" in said
    assert f"({place(text, '--block-size')}): MooncakeConnectorV1 reads KV of another" in said
    assert "give both the same: roles.disaggregated.server.args.block-size" in said


def test_a_flag_that_is_not_given_has_the_engines_value() -> None:
    plan_of(flag_of_prefill("--block-size", "128"))
    plan_of(flag_of_prefill("--block-size", "64"), flag_of_decode("--block-size", "64"))
    said = refused(flag_of_prefill("--block-size", "64"))
    assert "d0 has no --block-size, which is 128 then, p0 has --block-size 64" in said


# Names


PAIR = """
profile: {engine: vllm-ascend, omni_version: vllm-ascend-v0.23.0, model: any}
hosts: {a: {address: 192.0.2.1}, b: {address: 192.0.2.2}}
topology: {prefill: [{hosts: [a]}], decode: [{hosts: [b]}], proxy: a}
roles: {disaggregated: {server: {tensor_parallel: 8}}}
"""


@pytest.mark.parametrize(
    "connector, role, name",
    [
        ("MooncakeConnectorV1", "decode", "pipeline-parallel-size"),
        ("MooncakeLayerwiseConnector", "decode", "prefill-context-parallel-size"),
        ("MooncakeHybridConnector", "prefill", "decode-context-parallel-size"),
    ],
)
def test_what_a_connector_does_not_take_is_refused(
    tmp_path: Path, connector: str, role: str, name: str
) -> None:
    way = "layerwise" if "Layerwise" in connector else "mooncake"
    kv = "roles.disaggregated.server.args.kv-transfer-config.kv_connector"
    sets = [f"{kv}={connector}", f"proxy.kv_params={way}", f"roles.{role}.server.args.{name}=2"]
    with pytest.raises(InputError) as caught:
        settings_file.plan(tmp_path, PAIR, sets)
    node = {"prefill": "p0", "decode": "d0"}[role]
    assert str(caught.value).startswith(
        f"--set roles.{role}.server.args.{name}: {node} has --{name} 2: with {connector}, {role}"
    )
    settings_file.plan(tmp_path, PAIR, [*sets[:2], f"{sets[2][:-1]}1"])


def test_both_sides_have_the_same_connector() -> None:
    said = refused((DECODE_KV, DECODE_KV.replace("ConnectorV1", "LayerwiseConnector")))
    assert f"{place(SMALL, KV_FLAG, 2)}: d0 has the connector MooncakeLayerwiseConnector" in said
    assert f"p0 has MooncakeConnectorV1 ({place(SMALL, KV_FLAG)})" in said
    assert "roles.disaggregated.server.args.kv-transfer-config.kv_connector" in said
    said = refused((PREFILL_KV, several(PREFILL_KV)))
    assert "p0 has MooncakeConnectorV1, AscendStoreConnector" in said


def test_a_mistyped_name_is_refused_and_an_unknown_one_said() -> None:
    said = refused(*[("MooncakeConnectorV1", "MoonCakeConnectorV1")] * 2)
    assert said.startswith(f"{place(SMALL, KV_FLAG)}: this engine has no connector MoonCake")
    assert "is it MooncakeConnectorV1?" in said and "known are: " in said
    plan = plan_of(*[("MooncakeConnectorV1", "OurOwn")] * 2)
    assert any("nothing is known of the connector OurOwn" in note for note in plan.notes)


@pytest.mark.parametrize(
    "told, names",
    [
        ({}, []),
        ({"kv_connector": "A"}, ["A"]),
        ({"kv_connector": "MultiConnector"}, []),
        ({"kv_connector": "MultiConnector", "kv_connector_extra_config": None}, []),
        (
            {
                "kv_connector": "MultiConnector",
                "kv_connector_extra_config": {"connectors": [{"kv_connector": "A"}, 7]},
            },
            ["A"],
        ),
    ],
)
def test_the_parts_of_a_configuration(told: dict[str, object], names: list[str]) -> None:
    assert [one["kv_connector"] for one in connectors.parts(told)] == names


# The version by which the proxy pairs


def version_of(*assignments: str, inputs: str = "a") -> str:
    loaded = config.load("2p1d", (), assignments, environ={})
    return connectors.version(loaded.settings, make_plan(loaded), {"model": inputs})


def test_what_a_pair_must_have_in_common_changes_its_version() -> None:
    usual = version_of()
    for change in (
        "container.image=registry/omni:2",
        "model.path=/data/models/other",
        "roles.disaggregated.server.args.block-size=64",
        "roles.disaggregated.server.args.dtype=float16",
        "source.vllm_ref=v1",
    ):
        assert version_of(change) != usual, change
    assert version_of(inputs="b") != usual


def test_what_a_pair_may_differ_in_does_not_change_its_version() -> None:
    usual = version_of()
    for change in (
        "roles.prefill.server.args.gpu-memory-utilization=0.5",
        "server.env.OMP_NUM_THREADS=3",
        "proxy.retries=4",
        "ports.proxy=7777",
    ):
        assert version_of(change) == usual, change


def test_when_kv_that_nobody_fetches_is_given_up() -> None:
    def told(environment: str, *settings: str) -> list[Optional[str]]:
        loaded = config.load(environment, assignments=list(settings), environ={})
        return [connectors.lets_go(loaded.settings, node) for node in make_plan(loaded).nodes[:1]]

    extra = "roles.disaggregated.server.args.kv-transfer-config.kv_connector_extra_config"
    by = "(kv_connector_extra_config.kv_lease_duration)"
    assert told("local") == [f"NixlConnector lets go of it after 30 s {by}"]
    longer = told("local", f"{extra}={{kv_lease_duration: 90}}")
    assert longer == [f"NixlConnector lets go of it after 90 s {by}"]
    name = "VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT"
    set_to = f"roles.prefill.server.env.{name}=60"
    for seconds, settings in ((480, []), (60, [set_to])):
        said = f"MooncakeConnectorV1 lets go of it after {seconds} s (server.env.{name})"
        assert told("vllm-ascend-pd", *settings) == [said]
    assert told("2p1d") == [None] and told("colocated") == [None]
