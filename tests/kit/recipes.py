"""vllm-ascend's own recipes, planned on hosts that they do not name."""

from __future__ import annotations

from pathlib import Path

from omnikit.config import config, layers
from omnikit.foreign import recipe, trees
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan
from omnikit.yaml.located import Node

RECIPES = Path(__file__).resolve().parents[1] / "facts" / "recipes" / "vllm-ascend"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def planned(name: str, *sets: str) -> tuple[Plan, list[str]]:
    """The plan of a recipe on hosts 10.0.0.1 and up, and what was noted of it."""
    return planned_text((RECIPES / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml", *sets)


def planned_text(text: str, shown: str, *sets: str) -> tuple[Plan, list[str]]:
    """The same of a recipe's text."""
    reader = read(text, shown)
    loaded = config.load("recipe", (), sets, environ={}, tree=reader.read())
    return make_plan(loaded), reader.notes


def read(text: str, shown: str, hosts: int = 0) -> recipe.Reader:
    """What reads a recipe's text. hosts: how many are given; 0: as many as the recipe says."""
    tree = trees.read_yaml(text, shown, layers.ENVIRONMENT)
    count = hosts or tree.at(("num_nodes",)).value
    words = ",".join(f"10.0.0.{n + 1}" for n in range(count))
    machines = recipe.addresses(words, "--hosts", layers.ENVIRONMENT)
    for _, settings in machines:
        settings.value["interface"] = Node("eth0", settings.origin)
    return recipe.Reader(tree, shown, layers.ENVIRONMENT, machines)


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
