"""vllm-ascend's own recipes, planned on hosts that they do not name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from recorded_servers import Started

from omnikit.config import config, layers
from omnikit.foreign import recipe, trees
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan
from omnikit.yaml.node import Node

RECIPES = Path(__file__).resolve().parents[1] / "facts" / "recipes" / "vllm-ascend"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def planned(name: str, *sets: str) -> tuple[Plan, list[str]]:
    """The plan of a recipe on hosts 10.0.0.1 and up, and what was noted of it."""
    return planned_text((RECIPES / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml", *sets)


def loaded(name: str) -> config.Config:
    """The settings that a recipe makes there."""
    reader = read((RECIPES / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    return config.load("recipe", (), (), environ={}, tree=reader.read())


def planned_text(text: str, shown: str, *sets: str) -> tuple[Plan, list[str]]:
    """The same of a recipe's text."""
    reader = read(text, shown)
    settings = config.load("recipe", (), sets, environ={}, tree=reader.read())
    return make_plan(settings), reader.notes


def read(text: str, shown: str, hosts: int = 0) -> recipe.Reader:
    """What reads a recipe's text. hosts: how many are given; 0: as many as the recipe says."""
    repeated: list[str] = []
    tree = trees.read_yaml(text, shown, layers.ENVIRONMENT, repeated)
    count = hosts or tree.at(("num_nodes",)).value
    words = ",".join(f"10.0.0.{n + 1}" for n in range(count))
    machines = recipe.addresses(words, "--hosts", layers.ENVIRONMENT)
    for _, settings in machines:
        settings.value["interface"] = Node("eth0", settings.origin)
    return recipe.Reader(tree, shown, layers.ENVIRONMENT, machines, repeated)


_BLOCKS = (
    '"kv_connector_extra_config": {"prefill": {"dp_size": 2, "tp_size": 8},'
    ' "decode": {"dp_size": 4, "tp_size": 4}}'
)
PREFILL_KV = (
    '{"kv_connector": "MooncakeConnectorV1", "kv_role": "kv_producer", "kv_port": "30000", '
    + _BLOCKS
    + "}"
)
DECODE_KV = (
    '{"kv_connector": "MooncakeConnectorV1", "kv_role": "kv_consumer", "kv_port": "30100", '
    + _BLOCKS
    + "}"
)
_DATA_PARALLEL = """\
      - --data-parallel-size
      - ${DP_SIZE}
      - --data-parallel-rank
      - ${DP_RANK}
      - --data-parallel-address
      - ${DP_ADDRESS}
      - --data-parallel-rpc-port
      - ${DP_RPC_PORT}
"""
# One prefill instance of 2 ranks with 8 devices each, one decode instance of 4 ranks with 4.
SMALL = f"""\
test_name: small
model: "Eco-Tech/GLM-5.1-w8a8"
num_nodes: 2
npu_per_node: 16
routing:
  type: "disaggregated_prefill"
  groups:
    prefiller: [0]
    decoder: [1]
config:
  - node_index: 0
    port_start: 7100
    dp_rpc_port: 12321
    dp_size: 2
    dp_size_local: 2
    dp_rank_start: 0
    tp_size: 8
    dp_address: "${{NODE_0_IP}}"
  - node_index: 1
    port_start: 7200
    dp_rpc_port: 12321
    dp_size: 4
    dp_size_local: 4
    dp_rank_start: 0
    tp_size: 4
    dp_address: "${{NODE_1_IP}}"
env_common: &env_common
  SERVER_PORT: "${{PORT}}"
  ASCEND_RT_VISIBLE_DEVICES: "${{VISIBLE_DEVICES}}"
templates:
  - node_index: 0
    envs:
      <<: *env_common
      HCCL_BUFFSIZE: "256"
    server_cmd_template:
      - --host
      - "0.0.0.0"
      - --port
      - $SERVER_PORT
      - --tensor-parallel-size
      - ${{TP_SIZE}}
{_DATA_PARALLEL}\
      - --enforce-eager
      - --kv-transfer-config
      - '{PREFILL_KV}'
  - node_index: 1
    envs:
      <<: *env_common
      HCCL_BUFFSIZE: "512"
    server_cmd_template:
      - --host
      - "0.0.0.0"
      - --port
      - $SERVER_PORT
      - --tensor-parallel-size
      - ${{TP_SIZE}}
{_DATA_PARALLEL}\
      - --kv-transfer-config
      - '{DECODE_KV}'
"""


def edited(*edits: tuple[str, str], text: str = SMALL) -> str:
    """A recipe with the first of each of these words replaced."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def place(text: str, words: str, nth: int = 1) -> str:
    """FILE:LINE of the nth line with these words, as errors show it."""
    lines = [n for n, line in enumerate(text.splitlines(), 1) if words in line]
    return f"small.yaml:{lines[nth - 1]}"


DP32 = """\
  - node_index: 1
    port_start: 7200
    dp_rpc_port: 12321
    dp_size: 32
    dp_size_local: 16
    dp_rank_start: 0
    tp_size: 1
    dp_address: "${NODE_1_IP}"
  - node_index: 2
    port_start: 7200
    dp_rpc_port: 12321
    dp_size: 32
    dp_size_local: 16
    dp_rank_start: 16
    tp_size: 1
    dp_address: "${NODE_1_IP}"
"""
SIZES = '{"dp_size": 2, "tp_size": 8}', '{"dp_size": 1, "tp_size": 16}'
DECODE_SIZES = '{"dp_size": 4, "tp_size": 4}', '{"dp_size": 32, "tp_size": 1}'


def one_to_thirty_two() -> str:
    """One host with 16 devices for one prefill server, two hosts with 32 ranks for decode."""
    begin = SMALL.index("  - node_index: 1\n    port_start")
    text = SMALL[:begin] + DP32 + SMALL[SMALL.index("env_common:") :]
    text += SMALL[SMALL.rindex("  - node_index: 1") :].replace("node_index: 1", "node_index: 2")
    return edited(
        ("num_nodes: 2", "num_nodes: 3"),
        ("decoder: [1]", "decoder: [1, 2]"),
        ("dp_size: 2\n    dp_size_local: 2", "dp_size: 1\n    dp_size_local: 1"),
        ("tp_size: 8", "tp_size: 16"),
        *[SIZES] * 3,
        *[DECODE_SIZES] * 3,
        text=text,
    )


def mixed() -> str:
    """Two hosts that serve without PD."""
    kv_words = [
        f"      - --kv-transfer-config\n      - '{told}'\n" for told in (PREFILL_KV, DECODE_KV)
    ]
    return edited(
        ("disaggregated_prefill", "generic_dp"),
        ("    prefiller: [0]\n    decoder: [1]\n", "    worker: [0, 1]\n"),
        *[(words, "") for words in kv_words],
    )


def several(told: str, *, extra: str = "") -> str:
    """A MultiConnector with a pool beside the connector of a recipe."""
    role = json.loads(told)["kv_role"]
    store = {"kv_connector": "AscendStoreConnector", "kv_role": role}
    store.update(json.loads(extra or "{}"))
    inner = {"connectors": [json.loads(told), store]}
    whole = {"kv_connector": "MultiConnector", "kv_role": role}
    whole.update(kv_load_failure_policy="recompute", kv_connector_extra_config=inner)
    return json.dumps(whole)


# Made up, in the layouts that upstream's recipes have.
VARIANTS = {
    "one prefill, one decode": SMALL,
    "one server on a host, 32 ranks on two": one_to_thirty_two(),
    "workers without PD": mixed(),
    "a pool beside the hand-over": edited(
        (PREFILL_KV, several(PREFILL_KV)), (DECODE_KV, several(DECODE_KV))
    ),
}


# An instance: its hosts, its data-parallel and its tensor parallel size.
Layout = tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]
# All layouts of upstream's 47 recipes.
LAYOUTS: dict[str, Layout] = {
    "2 x DP2 TP8, DP32 TP1": ([(1, 2, 8), (1, 2, 8)], [(2, 32, 1)]),
    "2 x DP4 TP4, DP8 TP4": ([(1, 4, 4), (1, 4, 4)], [(2, 8, 4)]),
    "DP4 TP8, DP8 TP4": ([(2, 4, 8)], [(2, 8, 4)]),
    "DP4 TP8, DP32 TP1": ([(2, 4, 8)], [(2, 32, 1)]),
    "DP4 TP8, DP4 TP8": ([(2, 4, 8)], [(2, 4, 8)]),
    "DP4 TP8, DP16 TP2": ([(2, 4, 8)], [(2, 16, 2)]),
    "DP2 TP16, DP2 TP16": ([(2, 2, 16)], [(2, 2, 16)]),
    "DP2 TP16, DP8 TP4": ([(2, 2, 16)], [(2, 8, 4)]),
    "DP1 TP16, DP32 TP1": ([(1, 1, 16)], [(2, 32, 1)]),
    "DP1 TP16, DP1 TP16": ([(1, 1, 16)], [(1, 1, 16)]),
    "DP2 TP8, DP32 TP1": ([(1, 2, 8)], [(2, 32, 1)]),
    "DP2 TP8, DP16 TP2": ([(1, 2, 8)], [(2, 16, 2)]),
    "DP2 TP8, DP8 TP4": ([(1, 2, 8)], [(2, 8, 4)]),
    "DP2 TP8, DP4 TP4": ([(1, 2, 8)], [(1, 4, 4)]),
    "DP2 TP8, DP2 TP8": ([(1, 2, 8)], [(1, 2, 8)]),
    "DP4 TP4, 2 x DP4 TP4": ([(1, 4, 4)], [(1, 4, 4), (1, 4, 4)]),
    "DP4 TP4, DP16 TP1": ([(1, 4, 4)], [(1, 16, 1)]),
    "DP8 TP4, DP8 TP2": ([(2, 8, 4)], [(1, 8, 2)]),
    "DP8 TP2, DP8 TP2": ([(1, 8, 2)], [(1, 8, 2)]),
}


def laid_out(prefill: list[tuple[int, int, int]], decode: list[tuple[int, int, int]]) -> str:
    """A recipe with these instances."""
    sizes = {
        role: {"dp_size": listed[0][1], "tp_size": listed[0][2]}
        for role, listed in (("prefill", prefill), ("decode", decode))
    }
    groups: dict[str, list[int]] = {"prefiller": [], "decoder": []}
    entries: list[dict[str, Any]] = []
    templates: list[dict[str, Any]] = []
    instances = [("prefiller", one) for one in prefill] + [("decoder", one) for one in decode]
    for number, (group, (hosts, dp, tp)) in enumerate(instances):
        first = len(entries)
        told = {
            "kv_connector": "MooncakeConnectorV1",
            "kv_role": "kv_producer" if group == "prefiller" else "kv_consumer",
            "kv_port": str(30000 + 100 * number),
            "kv_connector_extra_config": sizes,
        }
        words = ["--host", "0.0.0.0", "--port", "${PORT}", "--tensor-parallel-size", "${TP_SIZE}"]
        for name in ("SIZE", "RANK", "ADDRESS", "RPC_PORT"):
            if dp > 1 or name != "RANK":  # vLLM takes no rank where there is one alone
                flag = f"--data-parallel-{name.lower().replace('_', '-')}"
                words += [flag, f"${{DP_{name}}}"]
        words += ["--kv-transfer-config", json.dumps(told)]
        for index in range(first, first + hosts):
            groups[group].append(index)
            entries.append(
                {
                    "node_index": index,
                    "port_start": 7100,
                    "dp_rpc_port": 12321,
                    "dp_size": dp,
                    "dp_size_local": dp // hosts,
                    "dp_rank_start": (index - first) * dp // hosts,
                    "tp_size": tp,
                    "dp_address": f"${{NODE_{first}_IP}}",
                }
            )
            envs = {"ASCEND_RT_VISIBLE_DEVICES": "${VISIBLE_DEVICES}"}
            templates.append({"node_index": index, "envs": envs, "server_cmd_template": words})
    made = {
        "model": "Eco-Tech/GLM-5.1-w8a8",
        "num_nodes": len(entries),
        "npu_per_node": 16,
        "routing": {"type": "disaggregated_prefill", "groups": groups},
        "config": entries,
        "templates": templates,
    }
    return str(yaml.safe_dump(made, sort_keys=False))


def with_words(*words: str, text: str = SMALL) -> str:
    """A recipe with these words before prefill's first flag."""
    listed = "".join(f"      - {json.dumps(word)}\n" for word in words)
    return edited((_FIRST_WORDS, f"{listed}{_FIRST_WORDS}"), text=text)


def with_envs(*lines: str) -> str:
    """The small recipe with these variables of prefill."""
    return edited(('      HCCL_BUFFSIZE: "256"\n', "".join(f"      {one}\n" for one in lines)))


def backwards(text: str) -> str:
    """A recipe of two hosts with the second first."""
    written = yaml.safe_load(text)
    written["routing"]["groups"] = {"decoder": [0], "prefiller": [1]}
    for key in ("config", "templates"):
        written[key].reverse()
    for index, entry in enumerate(written["config"]):
        entry.update(node_index=index, dp_address=f"${{NODE_{index}_IP}}")
    return str(yaml.safe_dump(written, sort_keys=False))


def of_several_workers(key: str, flag: str) -> str:
    """The small recipe with prefill ranks of two groups of 4 devices. key: which of the sizes."""
    return edited(
        ("tp_size: 8\n", f"tp_size: 4\n    {key}: 2\n"),
        (
            "      - ${TP_SIZE}\n",
            f"      - ${{TP_SIZE}}\n      - {flag}\n      - ${{{key.upper()}}}\n",
        ),
        *[('"dp_size": 2, "tp_size": 8', '"dp_size": 2, "tp_size": 4')] * 2,
    )


_FIRST_WORDS = "      - --host\n      - "
_FIRST_ENVS = "env_common: &env_common\n"
_MORE_ENVS = """\
env_more: &env_more
  HCCL_BUFFSIZE: "999"
  MORE: "1"
  SERVER_PORT: ${PORT}
"""
_MERGED = '      <<: *env_common\n      HCCL_BUFFSIZE: "256"\n'
# The small recipe in forms that upstream's loader takes too.
FORMS = {
    "of two merge keys the later counts": edited(
        (_FIRST_ENVS, _MORE_ENVS + _FIRST_ENVS),
        (_MERGED, "      <<: *env_common\n      <<: *env_more\n"),
    ),
    "of one's list the earlier": edited(
        (_FIRST_ENVS, _MORE_ENVS + _FIRST_ENVS),
        (_MERGED, "      <<: [*env_more, *env_common]\n"),
    ),
    "variables of those above them": edited(
        (_MERGED, '      <<: *env_common\n      OWN: "$SERVER_PORT/x"\n')
    ),
    "a key twice": with_envs('A: "1"', 'B: "2"', 'A: "$B"'),
    "values of all kinds": with_envs(
        *(
            "A: 1",
            "B: true",
            "C: 0.90",
            "D: 1e3",
            'E: "$$x"',
            'F: ""',
            "G: 010",
            "H: yes",
            "I: 0x10",
        ),
        *("J: 2024-01-01", "K: 12:30", 'L: it\'s "x"', "M: $(hostname)", "N: ${HOME:-x}", "O: 中"),
    ),
    "variables of the launcher": with_words(
        *("--aggregate-engine-logging", "--uvicorn-log-level", "$NIC_NAME"),
        text=with_envs(
            "GLOO_SOCKET_IFNAME: lo", "HCCL_IF_IP: 127.0.0.1", 'X: "${LOCAL_IP} ${MASTER_IP}"'
        ),
    ),
    "sizes that are 1 when nobody says it": edited(
        (
            "    dp_size_local: 16\n    dp_rank_start: 0\n    tp_size: 1\n",
            "    dp_size_local: 16\n",
        ),
        ("    dp_size: 1\n    dp_size_local: 1\n    dp_rank_start: 0\n", ""),
        text=one_to_thirty_two(),
    ),
    "templates without an index, or another": edited(
        ("templates:\n  - node_index: 0\n    envs", "templates:\n  - envs"),
        ("  - node_index: 1\n    envs", "  - node_index: 0\n    envs"),
    ),
    "variables of each rank": with_envs(
        *('A: "/tmp/${DP_RANK}"', 'B: "${LOCAL_RANK}:${PORT}"', 'C: "$A/x"', 'D: "${NODE_INDEX}"')
    ),
    "rank 0 at one's own address": edited(
        ('dp_address: "${NODE_0_IP}"', 'dp_address: "${LOCAL_IP}"'),
        ('dp_address: "${NODE_1_IP}"', 'dp_address: "${LOCAL_IP}"'),
    ),
    "ports of HCCL and of Mooncake": with_envs(
        *("HCCL_IF_BASE_PORT: 29000", "ASCEND_BASE_PORT: 24000", "MC_MIN_PRC_PORT: 16000"),
    ),
    "API servers at the proxy's port": edited(("port_start: 7100", "port_start: 7000")),
    "a rank 0 above the ports that Linux keeps": edited(("rpc_port: 12321", "rpc_port: 36000")),
    "a group with a KV port for each host": "30200".join(
        laid_out([(1, 2, 8)], [(2, 8, 4)]).rsplit("30100", 1)
    ),
    "facts in JSON": edited(
        (PREFILL_KV, PREFILL_KV.replace(": 8}", ": ${TP_SIZE}}").replace('"30000"', '"$KV"')),
        ("  SERVER_PORT", '  KV: "30000"\n  SERVER_PORT'),
    ),
    "JSON of all kinds": with_words(
        *("--additional-config", '{"a": {}, "b": [], "c": null, "d": 1e-6, "e.f": [{"g": null}]}'),
        *("--hf-overrides", "{}", "--seed", "1", "--gpu-memory-utilization", "0.90"),
    ),
    "pipeline parallel": of_several_workers("pp_size", "--pipeline-parallel-size"),
    "context parallel": of_several_workers("cp_size", "--prefill-context-parallel-size"),
    "decode context parallel": with_words("--decode-context-parallel-size", "8"),
    "hosts with 8 devices": laid_out([(1, 2, 4)], [(2, 8, 2)]).replace("node: 16", "node: 8"),
    "decode before prefill": backwards(SMALL),
}


def launched(text: str) -> dict[tuple[str, int], Started]:
    """What upstream's launcher starts for a recipe, by address and API port, on 10.0.0.1 and up.

    As external_dp_config.py and runtime.py of vllm-ascend v0.23.0 do it, held against its
    recordings: texts alone, without a plan.
    """
    written = yaml.safe_load(text)
    addresses = [f"10.0.0.{n + 1}" for n in range(len(written["config"]))]
    nodes = {f"NODE_{n}_IP": address for n, address in enumerate(addresses)}
    made = {}
    for index, (entry, template) in enumerate(zip(written["config"], written["templates"])):
        sizes = {f"{key}_size": 1 for key in ("dp", "tp", "cp", "sp", "pp")}
        sizes.update({"dp_size_local": 1, "dp_rank_start": 0})
        entry = {**sizes, **entry}
        size = entry["tp_size"] * entry["cp_size"] * entry["sp_size"] * entry["pp_size"]
        own = {"LOCAL_IP": addresses[index], "MASTER_IP": addresses[0]}
        set_last = {**own, "NIC_NAME": "eth0", "HCCL_IF_IP": addresses[index]}
        set_last.update({f"{name}_SOCKET_IFNAME": "eth0" for name in ("HCCL", "GLOO", "TP")})
        for local in range(entry["dp_size_local"]):
            known = {**nodes, **own, "MODEL": written["model"], "LOCAL_RANK": local}
            known.update((key.upper(), value) for key, value in entry.items())
            known.update(NODE_INDEX=index, CONFIG_INDEX=index, LWS_WORKER_INDEX=index)
            known.update(PORT=entry["port_start"] + local, DP_RANK=entry["dp_rank_start"] + local)
            known["VISIBLE_DEVICES"] = ",".join(map(str, range(local * size, (local + 1) * size)))
            known["DP_ADDRESS"] = _rendered(str(entry["dp_address"]), known, {})
            env: dict[str, str] = {}
            for name, value in {**(template["envs"] or {}), **set_last}.items():
                env[name] = _rendered(str(value), known, env)
            words = [_rendered(str(w), known, env) for w in template["server_cmd_template"]]
            argv = ("vllm", "serve", written["model"], *words)
            made[addresses[index], int(str(known["PORT"]))] = Started(argv, env, "/")
    return made


def _rendered(text: str, known: dict[str, Any], env: dict[str, str]) -> str:
    text = re.sub(r"\$\{(\w+)\}", lambda found: str(known[found[1]]), text)
    return re.sub(r"(?<!\$)\$(\w+)", lambda found: env.get(found[1], ""), text)
