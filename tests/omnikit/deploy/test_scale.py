"""What joins and leaves, as the file is to have it, and what is refused. Done for real in
test_roll_prefill and test_deploy_over_ssh.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config as config_config
from omnikit.config.config import Config
from omnikit.deploy import scale
from omnikit.topology.topology import make_plan


def load(environment: str = "4p1d", *assignments: str) -> Config:
    return config_config.load(environment, assignments=list(assignments), environ={})


def out(*names: str) -> str:
    """topology.prefill of 4p1d with some of them out."""
    entries = [{"hosts": [f"p{i}"], "out": f"p{i}" in names} for i in range(4)]
    return f"topology.prefill={json.dumps(entries)}"


def test_a_new_machine_is_like_those_of_its_role() -> None:
    wish = scale.joining(load(), ["192.0.2.99"], "prefill", None)
    assert wish.hosts == {"p4": {"address": "192.0.2.99", "user": "root"}}
    assert wish.topology["prefill"][-1] == {"hosts": ["p4"]} and wish.names == ["p4"]
    named = scale.joining(load(), ["blue=192.0.2.99,red=192.0.2.98"], "prefill", None)
    assert named.topology["prefill"][-1] == {"hosts": ["blue", "red"]}
    two = scale.joining(load(), ["192.0.2.99", "192.0.2.98"], "prefill", None)
    assert [entry["hosts"] for entry in two.topology["prefill"][4:]] == [["p4"], ["p5"]]
    assert two.names == ["p4", "p5"]


def test_who_is_there_already_changes_nothing() -> None:
    for words in ("p1", "192.0.2.12"):
        wish = scale.joining(load(), [words], "prefill", None)
        assert (wish.hosts, wish.topology, wish.names) == ({}, {}, ["p1"])
        assert "p1 on p1 is in the environment already" in wish.said[0]
    gone = scale.leaving(load("4p1d", out("p1")), None, ["p1"], [])
    assert gone.said == ["p1 on p1 is out already"]


def test_one_that_was_taken_out_comes_back_to_its_place() -> None:
    config = load("4p1d", out("p1"))
    for hosts, instance in ((["p1"], None), ([], "p1"), (["192.0.2.12"], "p1")):
        wish = scale.joining(config, hosts, "prefill" if hosts else None, instance)
        assert wish.topology["prefill"][1] == {"hosts": ["p1"]} and wish.hosts == {}


def test_a_second_instance_on_one_host_has_a_name() -> None:
    config = load("local")
    assert scale.joining(config, ["local"], "decode", None).topology == {}
    for name in ("d1", "spare"):
        wish = scale.joining(config, ["local"], "decode", name)
        entry = wish.topology["decode"][-1]
        told = "topology.decode=" + json.dumps(wish.topology["decode"])
        plan = make_plan(load("local", told))
        assert [node.name for node in plan.nodes if node.role == "decode"] == ["d0", name]
        assert ("parts" in entry) == (name == "spare")


def test_the_one_decode_instance_of_a_release_grows_and_shrinks() -> None:
    wish = scale.joining(load(), ["192.0.2.99"], "decode", None)
    assert wish.topology["decode"] == [{"hosts": ["d0", "d1", "d2", "d3", "d4"]}]
    assert scale.leaving(load(), None, ["d2"], []).topology["decode"] == [
        {"hosts": ["d0", "d1", "d3"]}
    ]


@pytest.mark.parametrize(
    ("hosts", "role", "instance", "said"),
    [
        (["p9"], "prefill", None, "no host 'p9'"),
        ([], None, None, "which host is to join"),
        (["192.0.2.99"], None, None, "as what"),
        ([], None, "p7", "as what"),
        (["p1=192.0.2.99"], "prefill", None, "p1 has the address 192.0.2.12"),
        (["192.0.2.99"], "prefill", "p1", "p1 is the prefill instance on p1"),
        (["192.0.2.99"], "decode", "p1", "p1 is a prefill instance"),
        (["192.0.2.99", "192.0.2.98"], "prefill", "p9", "several are to join"),
    ],
)
def test_what_cannot_join(hosts: Any, role: Any, instance: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        scale.joining(load(), hosts, role, instance)
    assert said in str(error.value) and (error.value.todo or "is a prefill" in said)


@pytest.mark.parametrize(
    ("environment", "hosts", "named", "said"),
    [
        ("4p1d", [], [], "which host or instance"),
        ("4p1d", [], ["p9"], "no instance 'p9'"),
        ("4p1d", ["q"], [], "no host 'q'"),
        ("4p1d", ["p0", "p1", "p2", "p3"], [], "no prefill instance would be left"),
        ("4p1d", [], ["d0"], "without d0 no decode instance would be left"),
        ("vllm-ascend-pd", ["d1"], [], "d1 is a part of d0, which runs on d0, d1 as one"),
    ],
)
def test_what_cannot_leave(environment: str, hosts: Any, named: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        scale.leaving(load(environment), None, hosts, named)
    assert said in str(error.value) and error.value.todo


def test_one_that_only_the_last_release_has_is_finished() -> None:
    before = make_plan(load())
    two = load("4p1d", 'topology.prefill=[{"hosts": ["p0"]}, {"hosts": ["p2"]}]')
    wish = scale.leaving(two, before, [], ["p3"])
    assert wish.names == [] and wish.topology["prefill"] == [{"hosts": ["p0"]}, {"hosts": ["p2"]}]


# Numbers stay: who goes moves nobody else, but for releases whose rank tables list who is there.


def told(config: Config) -> dict[str, Any]:
    return {
        node.name: (node.command, node.env, node.files, node.servers, node.listeners, node.kv_rank)
        for node in make_plan(config).nodes
    }


@pytest.mark.parametrize("release", ["2025-10-elastic", "2026-06", "2026-09"])
def test_whoever_leaves_moves_nobody(release: str) -> None:
    own = f"profile.omni_version={release}"
    before = told(load("4p1d", own))
    after = told(load("4p1d", own, out("p1")))
    assert set(before) - set(after) == {"p1"}
    assert all(after[name] == before[name] for name in after)


def test_places_that_were_planned_ahead_are_taken_without_a_restart() -> None:
    own = ("profile.omni_version=2025-10-elastic", "topology.decode=")
    decode = [{"hosts": ["d0", "d1"]}, {"hosts": ["d2", "d3"]}]
    before = told(
        load("4p1d", own[0], own[1] + json.dumps([decode[0], {**decode[1], "out": True}]))
    )
    after = told(load("4p1d", own[0], own[1] + json.dumps(decode)))
    assert set(after) - set(before) == {"d2", "d3"}
    assert all(after[name] == before[name] for name in before)


def test_on_one_machine_ports_stay_too() -> None:
    def three(out: bool) -> Config:
        entries = [{"hosts": ["local"]}, {"hosts": ["local"], "out": out}, {"hosts": ["local"]}]
        return load("local", f"topology.prefill={json.dumps(entries)}")

    before, after = told(three(False)), told(three(True))
    assert list(after) == ["p0", "p2", "d0"]
    assert all(after[name] == before[name] for name in after)


def test_where_rank_tables_list_who_is_there_ranks_have_no_gap() -> None:
    before = make_plan(load())
    after = make_plan(load("4p1d", out("p1")))
    assert [node.name for node in after.nodes] == ["p0", "p2", "p3", "d0", "d1", "d2", "d3"]
    assert [node.kv_rank for node in after.nodes] == [0, 1, 2, 3, 3, 3, 3]
    assert before.nodes[-1].kv_rank == 4


def test_a_role_whose_instances_are_all_out_is_none() -> None:
    with pytest.raises(InputError, match="there are decode instances but no prefill instance"):
        make_plan(load("4p1d", out("p0", "p1", "p2", "p3")))
