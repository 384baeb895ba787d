"""How a recipe of vllm-ascend becomes settings: its layouts, words and variables, its mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import import_config
import pytest
import recipes
from recipes import DECODE_KV, PREFILL_KV, SMALL, edited, mixed, one_to_thirty_two, place, several

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.foreign import recipe
from omnikit.plan.types import NodePlan, Plan
from omnikit.topology.topology import make_plan

FIRST_WORDS = "      - --host\n      - "
KV_FLAG = "- --kv-transfer-config"  # the place of what it says


def plan_of(*edits: tuple[str, str], text: str = SMALL) -> tuple[Plan, str]:
    """The plan of an edited recipe and its notes, one per line."""
    plan, notes = recipes.planned_text(edited(*edits, text=text), "small.yaml")
    return plan, "\n".join(notes)


def with_words(*words: str) -> tuple[str, str]:
    """An edit: these words before prefill's first flag."""
    listed = "".join(f"      - {json.dumps(word)}\n" for word in words)
    return FIRST_WORDS, f"{listed}{FIRST_WORDS}"


def with_envs(*lines: str) -> tuple[str, str]:
    """An edit: these variables of prefill."""
    return '      HCCL_BUFFSIZE: "256"\n', "".join(f"      {line}\n" for line in lines)


def flag(node: NodePlan, name: str) -> list[str]:
    """The words that follow a flag of a node's first server."""
    words = list(node.argv(node.servers[0]))
    rest = words[words.index(name) + 1 :]
    end = next((k for k, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:end]


def kv(node: NodePlan) -> dict[str, Any]:
    return dict(json.loads(flag(node, "--kv-transfer-config")[0]))


# Layouts


def test_a_prefill_and_a_decode_instance() -> None:
    plan, notes = plan_of()
    prefill, decode = plan.nodes
    assert [s.devices for s in prefill.servers] == [tuple(range(8)), tuple(range(8, 16))]
    assert [s.api_port for s in decode.servers] == [7200, 7201, 7202, 7203]
    assert [s.dp_rank for s in decode.servers] == [0, 1, 2, 3]
    assert prefill.environment(prefill.servers[1])["ASCEND_RT_VISIBLE_DEVICES"].startswith("8,9")
    assert (prefill.env["HCCL_BUFFSIZE"], decode.env["HCCL_BUFFSIZE"]) == ("256", "512")
    assert kv(prefill) == {**json.loads(PREFILL_KV), "kv_port": 30000}
    assert kv(decode) == {**json.loads(DECODE_KV), "kv_port": 30100}
    assert "0.0.0.0" not in prefill.command
    assert plan.proxy is not None and plan.proxy.address == "10.0.0.1"
    assert notes == ""


def test_a_prefill_server_on_a_whole_host_and_decode_ranks_on_two() -> None:
    plan, _ = plan_of(text=one_to_thirty_two())
    prefill, first, second = plan.nodes
    assert [len(s.devices) for s in prefill.servers] == [16]
    assert [s.dp_rank for s in second.servers] == list(range(16, 32))
    assert first.instance == second.instance and second.master_ip == "10.0.0.2"
    assert kv(second)["kv_connector_extra_config"]["decode"] == {"dp_size": 32, "tp_size": 1}


def test_a_host_of_a_group_with_other_ports_and_fewer_ranks() -> None:
    text = edited(
        ("dp_size: 32", "dp_size: 20"),
        ("dp_size: 32", "dp_size: 20"),
        ("dp_size_local: 16\n    dp_rank_start: 16", "dp_size_local: 4\n    dp_rank_start: 16"),
        *[('"dp_size": 32', '"dp_size": 20')] * 3,
        text=one_to_thirty_two(),
    )
    head, cut, tail = text.rpartition("port_start: 7200")
    plan, _ = plan_of(text=f"{head}port_start: 7300{tail}")
    assert cut and [s.api_port for s in plan.nodes[2].servers] == [7300, 7301, 7302, 7303]
    assert [s.dp_rank for s in plan.nodes[2].servers] == [16, 17, 18, 19]


@pytest.mark.parametrize("name", recipes.LAYOUTS)
def test_all_layouts_of_upstreams_recipes(name: str) -> None:
    prefill, decode = recipes.LAYOUTS[name]
    plan, notes = plan_of(text=recipes.laid_out(prefill, decode))
    assert notes == ""
    found = [(n.role, n.instance, n.dp_size, n.tensor_parallel) for n in plan.nodes]
    wanted = [
        (role, number, dp, tp)
        for role, listed in (("prefill", prefill), ("decode", decode))
        for number, (hosts, dp, tp) in enumerate(listed)
        for _ in range(hosts)
    ]
    assert found == wanted
    for node in plan.nodes:
        devices = [device for server in node.servers for device in server.devices]
        assert devices == list(range(len(devices))) and len(devices) == 16
        first = min(n for n, other in enumerate(plan.nodes) if other.master_ip == node.master_ip)
        before = [s for other in plan.nodes[first:] for s in other.servers]
        assert plan.nodes[first].address == node.master_ip
        assert [s.dp_rank for s in before[: node.dp_size]] == list(range(node.dp_size))
        for server in node.servers:
            words = node.argv(server)
            assert ("--data-parallel-rank" in words) == (node.dp_size > 1)


def test_workers_without_pd_keep_their_data_parallel_group() -> None:
    plan, _ = plan_of(text=mixed())
    assert [node.role for node in plan.nodes] == ["colocated", "colocated"]
    words = plan.nodes[0].argv(plan.nodes[0].servers[1])
    for name, value in (("size", "2"), ("rank", "1"), ("address", "10.0.0.1")):
        assert words[words.index(f"--data-parallel-{name}") + 1] == value
    assert words[words.index("--data-parallel-rpc-port") + 1] == "12321"
    assert "--kv-transfer-config" not in words


def test_several_connectors_are_told_what_each_had() -> None:
    plan, _ = plan_of((PREFILL_KV, several(PREFILL_KV)), (DECODE_KV, several(DECODE_KV)))
    for node, told, port in zip(plan.nodes, (PREFILL_KV, DECODE_KV), (30000, 30100)):
        expected = json.loads(several(told))
        expected["kv_connector_extra_config"]["connectors"][0]["kv_port"] = port
        assert kv(node) == expected
        assert any(f"{port}" in str(listener) for listener in node.listeners)


# Words and variables


@pytest.mark.parametrize(
    "words, flag_name, value",
    [
        (["--max-model-len=4096"], "--max-model-len", ["4096"]),
        (["--max_num_seqs", "4"], "--max-num-seqs", ["4"]),
        (["-pp", "1"], "--pipeline-parallel-size", ["1"]),
        (["-q", "ascend"], "--quantization", ["ascend"]),
        (["-O3"], "--optimization-level", ["3"]),
        (["-O", "2"], "--optimization-level", ["2"]),
        (
            ["--cudagraph-capture-sizes", "1", "2", "4"],
            "--cudagraph-capture-sizes",
            ["1", "2", "4"],
        ),
        (["--middleware", "a.b", "c.d"], "--middleware", ["a.b", "c.d"]),
        (["--seed", "-1"], "--seed", ["-1"]),
        (["--chat-template", "{{ x }}"], "--chat-template", ["{{ x }}"]),
        (["--trust-remote-code"], "--trust-remote-code", []),
        (["-cc.mode", "3"], "--compilation-config", ['{"mode": 3}']),
        (
            ["--compilation-config.a.b=x", "--compilation-config.sizes+", "1,2"],
            "--compilation-config",
            ['{"a": {"b": "x"}, "sizes": ["1", "2"]}'],
        ),
    ],
)
def test_words_are_understood_as_vllm_does(words: list[str], flag_name: str, value: Any) -> None:
    plan, notes = plan_of(with_words(*words))
    assert flag(plan.nodes[0], flag_name) == value
    assert notes == ""


def test_of_a_repeated_flag_the_later_one_counts() -> None:
    text = edited(
        with_words("--enable-prefix-caching", "--seed", "1"),
        with_words("--no-enable-prefix_caching", "--seed=2"),
    )
    plan, notes = plan_of(text=text)
    prefill = plan.nodes[0]
    assert flag(prefill, "--seed") == ["2"]
    assert "--no-enable-prefix-caching" in prefill.command
    assert "--enable-prefix-caching" not in prefill.command
    assert f"{place(text, '--seed')}: --seed stands twice, the later one counts" in notes
    assert f"{place(text, '--enable-prefix')}: --enable-prefix-caching does not count" in notes


def test_values_that_the_plan_has_anyway_may_be_written_out() -> None:
    plan, _ = plan_of(
        ("      - ${TP_SIZE}", '      - "8"'),
        ("      - ${DP_SIZE}", '      - "2"'),
        ("      - ${DP_ADDRESS}", "      - ${NODE_0_IP}"),
    )
    assert plan == plan_of()[0]


@pytest.mark.parametrize(
    "edit, says",
    [
        (("$SERVER_PORT", '"7100"'), "p0.1 is told port 7100, the plan has 7101"),
        (("${DP_RANK}", '"0"'), "p0.1 is told data-parallel-rank 0, the plan has 1"),
        (("${TP_SIZE}", '"16"'), "p0.0 is told tensor-parallel-size 16, the plan has 8"),
        (("kv_producer", "kv_consumer"), "told kv_role kv_consumer, the plan has kv_producer"),
    ],
)
def test_a_value_that_cannot_be_is_refused(edit: tuple[str, str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_of(edit)
    text = edited(edit)
    changed = next(
        n for n, (a, b) in enumerate(zip(text.splitlines(), SMALL.splitlines()), 1) if a != b
    )
    # The place of a value is that of its flag, in the line before.
    assert f"small.yaml:{changed - 1}: " in str(caught.value) and says in str(caught.value)
    assert "What to do: remove it: configs/engines/vllm-ascend.yaml:" in str(caught.value)


def test_variables_of_the_image_are_added_to() -> None:
    text = edited(
        with_envs(
            'LD_PRELOAD: "/a.so:$LD_PRELOAD"',
            'LD_LIBRARY_PATH: "$LD_LIBRARY_PATH:/b"',
            'PYTHONPATH: "$PYTHONPATH"',
            'OWN: "${LOCAL_IP}-${DP_RANK_START}"',
            'TWICE: "$OWN/$OWN"',
            'HOMELY: "$HOME/x"',
            'TP_SOCKET_IFNAME: "eth9"',
        )
    )
    plan, notes = plan_of(text=text)
    node = plan.nodes[0]
    assert node.prepend == {"LD_PRELOAD": "/a.so", "LD_LIBRARY_PATH": "/b"}
    env = node.environment(node.servers[0])
    assert (env["OWN"], env["TWICE"], env["HOMELY"]) == (
        "10.0.0.1-0",
        "10.0.0.1-0/10.0.0.1-0",
        "/x",
    )
    assert "PYTHONPATH" not in env
    assert f"{place(text, 'LD_LIBRARY')}: LD_LIBRARY_PATH: /b is put in front" in notes
    assert f"{place(text, 'TP_SOCKET')}: TP_SOCKET_IFNAME is not used" in notes
    assert env["TP_SOCKET_IFNAME"] == "eth0"
    assert f"{place(text, 'HOMELY')}: HOMELY: $HOME is of the shell" in notes


def test_the_name_that_clients_ask_for() -> None:
    plan, _ = plan_of()
    assert (plan.served_name, plan.model_path) == (
        "Eco-Tech/GLM-5.1-w8a8",
        "/data/models/GLM-5.1-w8a8",
    )
    words = with_words("--served-model-name", "glm", "glm-5")
    plan, notes = plan_of(words)
    assert plan.served_name == "glm"
    assert "of --served-model-name only glm is used" in notes
    plan, _ = plan_of(('"Eco-Tech/GLM-5.1-w8a8"', "/mnt/weights/GLM"))
    assert (plan.served_name, plan.model_path) == ("/mnt/weights/GLM", "/mnt/weights/GLM")


def test_what_has_no_effect_is_said_with_its_place() -> None:
    draft = '{"method": "eagle3", "model": "some/draft", "num_speculative_tokens": 1}'
    text = edited(
        with_words("--speculative-config", draft),
        ("routing:", "special_dependencies: {a: 1}\nkv_pool: {b: 2}\nrouting:"),
        ("num_nodes: 2", "num_nodes: 3"),
        ("    tp_size: 8\n", "    tp_size: 8\n    ep_size: 8\n"),
        ("    envs:\n", "    image: x\n    envs:\n"),
        (f"      {KV_FLAG}\n      - '{PREFILL_KV}'\n", ""),
    )
    _, notes = plan_of(text=text)
    assert f"{place(text, 'special_')}: special_dependencies is not installed" in notes
    assert f"{place(text, 'kv_pool')}: kv_pool is not used" in notes
    assert f"{place(text, 'num_nodes')}: num_nodes is 3, the recipe has 2 hosts" in notes
    assert "--hosts: not used: node2" in notes
    assert f"{place(text, 'ep_size: 8')}: config[0].ep_size is not used" in notes
    assert f"{place(text, 'image: x')}: templates[0].image is not used" in notes
    assert f"{place(text, 'server_cmd')}: no --kv-transfer-config" in notes
    assert (
        f"{place(text, '--speculative-config')}: some/draft: every server downloads this model"
        in notes
    )
    assert "env_common" not in notes


def halved(*edits: tuple[str, str]) -> str:
    """The small recipe on 8 devices of each host."""
    text = SMALL.replace('"tp_size": 4', '"tp_size": 2').replace('"tp_size": 8', '"tp_size": 4')
    text = text.replace("tp_size: 4\n", "tp_size: 2\n").replace("tp_size: 8\n", "tp_size: 4\n")
    return edited(*edits, text=text)


@pytest.mark.parametrize(
    "text, chip, says",
    [
        (SMALL, "a3", ""),
        (edited(("npu_per_node: 16\n", "")), "a3", ""),
        (halved(("npu_per_node: 16", "npu_per_node: 8")), "a2", "small.yaml:4: taken for"),
        (halved(("npu_per_node: 16\n", "")), "a2", "small.yaml: taken for"),
        (halved(), "a3", ""),
        (
            halved(("npu_per_node: 16\n", ""), ("  SERVER", '  ASCEND_A3_ENABLE: "1"\n  SERVER')),
            "a3",
            "hardware a3: ASCEND_A3_ENABLE is set",
        ),
        (
            halved(("npu_per_node: 16", "npu_per_node: 8"), ("5.1-w8a8", "5.1-w8a8-MXFP8")),
            "a5",
            "small.yaml:2: taken for hardware a5: the others do not compute Eco-Tech/GLM-5.1-",
        ),
    ],
    ids=["16 devices", "16 used", "8 devices", "8 used", "8 of 16", "a variable", "a format"],
)
def test_the_chip_is_taken_from_what_the_recipe_says(text: str, chip: str, says: str) -> None:
    reader = recipes.read(text, "small.yaml")
    settings = config.load("recipe", (), (), environ={}, tree=reader.read()).settings
    assert settings.profile.hardware == chip
    assert settings.container.image_suffix == {"a2": None, "a3": "-a3", "a5": "-a5"}[chip]
    found = [note for note in reader.notes if "taken for hardware" in note]
    assert len(found) == bool(says) and all(says in note for note in found)


def test_a_folder_that_the_image_alone_knows_is_left_out() -> None:
    text = edited(with_envs('LD_LIBRARY_PATH: "/a:$ASCEND_HOME_PATH/lib64:$LD_LIBRARY_PATH"'))
    plan, notes = plan_of(text=text)
    assert plan.nodes[0].prepend == {"LD_LIBRARY_PATH": "/a"}
    assert f"{place(text, 'LD_LIB')}: LD_LIBRARY_PATH: $ASCEND_HOME_PATH/lib64 is left out" in notes


def test_ports_of_the_kernels_own_range_are_said() -> None:
    plan, notes = plan_of(('"kv_port": "30000"', '"kv_port": "36000"'))
    assert kv(plan.nodes[0])["kv_port"] == 36000
    assert "ports up to 36015 are planned" in notes and "ip_local_reserved_ports" in notes


# Mistakes

MISTAKES: dict[str, tuple[tuple[str, str], tuple[str, int], str, str]] = {
    "an unknown variable": (
        ("${DP_RANK}", "${DP_RANKS}"),
        ("DP_RANKS", 1),
        "${DP_RANKS} is no variable of these recipes.",
        "known are: ",
    ),
    "a variable that is not set": (
        ("$SERVER_PORT", "$SERVERPORT"),
        ("$SERVERPORT", 1),
        "$SERVERPORT is none of the variables that are set for the servers.",
        "set it in envs; there are: SERVER_PORT, ASCEND_RT_VISIBLE_DEVICES, HCCL_BUFFSIZE",
    ),
    "ranks with a gap": (
        (
            "dp_size: 4\n    dp_size_local: 4\n    dp_rank_start: 0",
            "dp_size: 4\n    dp_size_local: 2\n    dp_rank_start: 2",
        ),
        ("dp_rank_start: 2", 1),
        "config[1] begins with rank 2, expected 0",
        "write dp_rank_start: 0",
    ),
    "ranks beyond the group": (
        ("dp_rank_start: 0", "dp_rank_start: 1"),
        ("node_index: 0", 1),
        "config[0] has ranks up to 2, its group 2 of them.",
        "dp_rank_start plus dp_size_local is at most dp_size",
    ),
    "ranks that are missing": (
        ("dp_size: 2\n", "dp_size: 4\n"),
        ("dp_size: 4", 1),
        "the group of config[0] has 2 ranks, dp_size says 4.",
        "the dp_size_local of a group's hosts together",
    ),
    "more devices than a host has": (
        ("tp_size: 4", "tp_size: 8"),
        ("node_index: 1", 1),
        "config[1] takes 32 devices, a host has 16 (small.yaml:4).",
        "make one of them smaller",
    ),
    "rank 0 elsewhere": (
        ('dp_address: "${NODE_1_IP}"', 'dp_address: "${NODE_0_IP}"'),
        ("node_index: 1", 1),
        "dp_address is 10.0.0.1, the group's rank 0 is on 10.0.0.2.",
        "write ${NODE_1_IP}",
    ),
    "a size that vLLM does not have": (
        ("tp_size: 4\n", "tp_size: 4\n    sp_size: 2\n"),
        ("sp_size: 2", 1),
        "config[1].sp_size is 2: vLLM has no size of this name",
        "write 1",
    ),
    "context parallel without its flag": (
        ("tp_size: 4\n", "tp_size: 2\n    cp_size: 2\n"),
        ("server_cmd_template", 2),
        "--prefill-context-parallel-size is 1, config[1].cp_size 2 (small.yaml:26)",
        "write cp_size in config, and --prefill-context-parallel-size ${CP_SIZE}",
    ),
    "pipeline parallel by its flag alone": (
        with_words("--pipeline-parallel-size", "2"),
        ("--pipeline", 1),
        "--pipeline-parallel-size is 2, config[0].pp_size 1 (small.yaml:11)",
        "write pp_size in config",
    ),
    "a flag of another layout": (
        with_words("--headless"),
        ("--headless", 1),
        "--headless belongs to another layout",
        "remove it",
    ),
    "ranks that the servers are not told": (
        ("      - --data-parallel-rank\n      - ${DP_RANK}\n", ""),
        ("server_cmd_template", 1),
        "config[0] has dp_size 2, its servers are not told --data-parallel-rank",
        "add --data-parallel-size ${DP_SIZE} and --data-parallel-rank",
    ),
    "a port that is missing": (
        ("    port_start: 7100\n", ""),
        ("dp_rank_start", 1),
        "config[0]: port_start is missing",
        "add: port_start: 7100",
    ),
    "a host in two groups": (
        ("decoder: [1]", "decoder: [0]"),
        ("decoder: [0]", 1),
        "host 0 stands in two groups.",
        "name each host in one group, once",
    ),
    "a host in no group": (
        ("decoder: [1]", "decoder: [2]"),
        ("prefiller", 1),
        "routing.groups names the hosts [0, 2]",
        "name every entry of config in one of the groups",
    ),
    "a group that is none": (
        ("decoder: [1]", "decode: [1]"),
        ("decode: [1]", 1),
        "unknown group 'decode' in routing.",
        "known here: prefiller, decoder, worker",
    ),
    "a group that is no list": (
        ("decoder: [1]", "decoder: 1"),
        ("decoder: 1", 1),
        "routing.groups.decoder: found 1, expected a list of hosts.",
        "write it like [0, 1]",
    ),
    "groups that are a list": (
        ("    prefiller: [0]\n    decoder: [1]\n", "    [0, 1]\n"),
        ("[0, 1]", 1),
        "routing.groups: found a list, expected a map",
        "key: value",
    ),
    "no groups": (
        (
            SMALL[SMALL.index("routing:") : SMALL.index("config:")],
            "routing:\n",
        ),
        ("routing:", 1),
        "the recipe: routing: found nothing",
        "give the value",
    ),
    "an entry that is none": (
        (SMALL[SMALL.index("  - node_index: 0") : SMALL.index("  - node_index: 1")], "  - 7\n"),
        ("- 7", 1),
        "config[0]: found 7, expected a map",
        "key: value",
    ),
    "too many entries": (
        ("decoder: [1]", "decoder: []"),
        ("config:", 1),
        "config has 2 entries, routing.groups the hosts 0 to 0.",
        "give config one entry for each host, in their order",
    ),
    "entries in another order": (
        ("node_index: 0", "node_index: 1"),
        ("node_index: 1", 1),
        "config[0].node_index is 1, expected 0",
        "write node_index: 0, or change their order",
    ),
    "a server over several hosts": (
        ("    tp_size: 8\n", "    tp_size: 8\n    node_group: 0\n"),
        ("node_group", 1),
        "config[0].node_group is 0: servers over several hosts",
        "write an environment",
    ),
    "variables that are a list": (
        ('    envs:\n      <<: *env_common\n      HCCL_BUFFSIZE: "256"\n', "    envs: [A]\n"),
        ("envs: [A]", 1),
        "templates[0].envs: found a list, expected a map",
        "key: value",
    ),
    "words that are a text": (
        ("    server_cmd_template:\n", "    server_cmd_template: --port 1\n    old:\n"),
        ("--port 1", 1),
        "server_cmd_template: found '--port 1', expected a list of words.",
        "write",
    ),
    "a value without a flag": (
        (FIRST_WORDS, f"      - serve\n{FIRST_WORDS}"),
        ("- serve", 1),
        "found 'serve', expected a flag.",
        "write flags as --NAME",
    ),
    "an unknown short flag": (
        (FIRST_WORDS, f"      - -zz\n{FIRST_WORDS}"),
        ("- -zz", 1),
        "found '-zz', expected a flag.",
        "write flags as --NAME",
    ),
    "a key of a flag without a value": (
        (FIRST_WORDS, f"      - -cc.mode\n{FIRST_WORDS}"),
        ("- -cc.mode", 1),
        "--compilation-config.mode has 0 values, expected one.",
        "write the whole JSON",
    ),
    "broken JSON": (
        ('"kv_port": "30100", ', '"kv_port": , '),
        (KV_FLAG, 2),
        "--kv-transfer-config is not valid JSON: ",
        "check quotes, commas and brackets",
    ),
    "no JSON": (
        (f"'{DECODE_KV}'", "MooncakeConnectorV1"),
        (KV_FLAG, 2),
        "--kv-transfer-config: found 'MooncakeConnectorV1', expected a map",
        "",
    ),
    "a port that is none": (
        ('"kv_port": "30100"', '"kv_port": "http"'),
        (KV_FLAG, 2),
        "kv_port: found 'http', expected a whole number from 1 to 65535.",
        "write the number alone",
    ),
    "connectors with two ports": (
        (PREFILL_KV, several(PREFILL_KV, extra='{"kv_port": 30500}')),
        (KV_FLAG, 1),
        "one connector has kv_port 30000, another 30500.",
        "give all connectors of a server the same",
    ),
    "no model": (
        ('model: "Eco-Tech/GLM-5.1-w8a8"\n', ""),
        ("test_name", 1),
        "the recipe: model is missing.",
        "add: model: ",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_with_its_place_and_what_to_do(name: str) -> None:
    edit, (words, nth), says, todo = MISTAKES[name]
    text = edited(edit)
    with pytest.raises(InputError) as caught:
        recipes.planned_text(text, "small.yaml")
    said = str(caught.value)
    assert said.startswith(f"{place(text, words, nth)}: "), said
    assert says in said
    assert f"What to do: {todo}" in said or todo in said.partition("What to do: ")[2]


def test_two_values_that_disagree_are_shown_with_both_places() -> None:
    text = edited(("dp_size: 32", "dp_size: 33"), text=one_to_thirty_two())
    with pytest.raises(InputError) as caught:
        recipes.planned_text(text, "small.yaml")
    said = str(caught.value)
    assert "dp_size of config[2] is 32, of config[1] in the same group 33" in said
    assert place(text, "dp_size: 33") in said and place(text, "dp_size: 32") in said
    text = edited(
        with_words("--served-model-name", "a"),
        (DECODE_KV + "'\n", DECODE_KV + "'\n      - --served-model-name=b\n"),
    )
    with pytest.raises(InputError) as caught:
        recipes.planned_text(text, "small.yaml")
    assert "--served-model-name is b here and a elsewhere" in str(caught.value)
    assert place(text, "--served-model-name") in str(caught.value)


def test_a_host_that_was_not_given() -> None:
    with pytest.raises(InputError) as caught:
        recipes.read(SMALL, "small.yaml", hosts=1).read()
    said = str(caught.value)
    assert said.startswith(f"{place(SMALL, 'config:')}: the recipe has 2 hosts, 1 were given.")
    assert "--hosts" in said


@pytest.mark.parametrize(
    "text",
    [SMALL, one_to_thirty_two(), mixed(), *recipes.FORMS.values()],
    ids=["1p1d", "dp32", "mixed", *recipes.FORMS],
)
def test_the_written_file_plans_the_same(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "small.yaml", tmp_path / "made.yaml"
    words = with_words("--hf-overrides", '{"a": "010", "b": null}')
    source.write_text(edited(words, text=text) if FIRST_WORDS in text else text)
    hosts = tmp_path / "hosts.yaml"
    listed = {f"node{n}": {"address": f"10.0.0.{n + 1}", "interface": "eth0"} for n in range(4)}
    hosts.write_text(json.dumps({"hosts": listed}))
    words = [str(source), "--hosts", str(hosts), "--out", str(out)]
    assert import_config.main(words) == 0, capsys.readouterr().err
    written = make_plan(config.load(str(out), environ={}))
    direct, _ = recipes.planned_text(source.read_text(), "small.yaml")
    for ours, theirs in zip(written.nodes, direct.nodes):
        assert [ours.argv(s) for s in ours.servers] == [theirs.argv(s) for s in theirs.servers]
        assert [ours.environment(s) for s in ours.servers] == [
            theirs.environment(s) for s in theirs.servers
        ]
        assert ours.prepend == theirs.prepend


def test_hosts_as_the_recipe_has_them_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "small.yaml"
    source.write_text(edited(("routing:", "cluster_hosts: [10.1.0.1, 10.1.0.2]\nrouting:")))
    assert import_config.main([str(source), "--out", str(tmp_path / "made.yaml"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["prefill_instances"]) == (recipe.KIND, 1)
    assert "10.1.0.2" in (tmp_path / "made.yaml").read_text()


@pytest.mark.parametrize(
    "hosts, says",
    [
        ("", "the recipe has 2 hosts, 0 were given."),
        ("10.0.0.1", "the recipe has 2 hosts, 1 were given."),
        ("10.0.0.1,10.0.0.1", "device 0 of host node1 is given to p0 and to d0."),
        ("127.0.0.1,10.0.0.2", "127.0.0.1 is a loopback address"),
    ],
)
def test_hosts_that_do_not_fit(
    tmp_path: Path, hosts: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "small.yaml"
    source.write_text(SMALL)
    assert import_config.main([str(source), "--hosts", hosts, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert says in said and "What to do: " in said
