"""Whatever a setting is set to, it is taken, or refused with one sentence and exit code 2: no
setting, known to the schema or free (flags, files and variables of servers), ends in a traceback.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Iterator

import plan
import pytest

from hostkit.base.errors import InputError
from omnikit.config import config, layers
from omnikit.config.config import check_text, validate
from omnikit.config.schema import Settings

pytestmark = pytest.mark.slow

WRONG = (
    *("null", "[null]", "{a: {b: [c]}}", '""', "-1", "999999999999999999"),
    *('"\\ud800"', "a" * 5000),
)
# What engines read as JSON: each of these flags is a map, in the text of a flag or as YAML.
JSON_FLAGS = (
    *("speculative-config", "kv-transfer-config", "additional-config", "compilation-config"),
    "hf-overrides",
)
ENVIRONMENTS = ("2p1d",)


@cache
def tree(environment: str) -> Any:
    return config.load(environment, (), (), {}).tree


def paths(node: dict[str, Any], at: tuple[str, ...], schema: dict[str, Any]) -> Iterator[str]:
    """Every setting below a part of the JSON Schema; one that users name is called x."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for option in node.get("anyOf", ()):
        yield from paths(option, at, schema)
    if at:
        yield ".".join(at)
    if len(at) > 6:
        return
    for name, child in node.get("properties", {}).items():
        yield from paths(child, (*at, name), schema)
    for child in (node.get("additionalProperties"), *node.get("patternProperties", {}).values()):
        if isinstance(child, dict):
            yield from paths(child, (*at, "x"), schema)


def settings(environment: str) -> list[str]:
    """Of the schema, and those that this environment has."""
    schema = Settings.model_json_schema()
    there = (
        ".".join(f'"{step}"' if "." in step else step for step in path)
        for path, _ in tree(environment).leaves()
    )
    nested: list[str] = []
    for path in there:
        steps = path.split(".")
        nested += (
            [".".join(steps[: n + 1]) for n in range(len(steps))] if '"' not in path else [path]
        )
    flags = [f"server.args.{name}" for name in JSON_FLAGS]
    return sorted({*paths(schema, (), schema), *nested, *flags})


def accepted(environment: str, assignment: str) -> bool:
    """Whether the schema takes it; what it does not take it must refuse as an InputError."""
    try:
        merged = layers.merged([tree(environment), config.option_layer([assignment])])
        validate(Settings, merged)
        check_text(merged)
    except InputError as error:
        assert error.what.strip()
        return False
    return True


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_setting_with_every_kind_of_wrong_value(environment: str) -> None:
    """The schema takes it or refuses it with a sentence."""
    failed = []
    for name in settings(environment):
        for value in WRONG:
            try:
                accepted(environment, f"{name}={value}")
            except Exception as error:  # whatever it is, it would be a traceback
                failed.append(f"{name}={value[:50]}: {error!r}"[:300])
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("value", ["abc", "null", "[1]", "{a: b}", "-1", "1.5", "true"])
def test_what_the_plan_counts_with_is_counted_after_a_look(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags and files of servers are free; num_speculative_tokens=abc was a traceback."""
    place = "roles.disaggregated.server.args.speculative_config.num_speculative_tokens"
    code = plan.main(["--environment", "2p1d", "--json", "--set", f"{place}={value}"])
    said = capsys.readouterr().err
    assert code == 2 and "num_speculative_tokens" in said and said.startswith("error: ")


DIGITS = ["²", "9" * 5000, "٣"]  # that str.isdigit takes; int takes the last alone


@pytest.mark.parametrize("digits", DIGITS, ids=["a sign", "many", "another script"])
@pytest.mark.parametrize(
    "name",
    [
        "roles.decode.server.args.max-num-seqs",
        "roles.decode.server.args.max-model-len",
        "roles.disaggregated.server.env.VLLM_DP_RANK",
        "roles.disaggregated.server.env.HCCL_CONNECT_TIMEOUT",
    ],
)
def test_what_only_looks_like_a_number_is_none(
    name: str, digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = plan.main(["--environment", "2p1d", "--json", "--set", f'{name}="{digits}"'])
    assert code in (0, 2) and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("size", [*DIGITS, "0"], ids=["a sign", "many", "another script", "none"])
@pytest.mark.parametrize("name", ["pipeline-parallel-size", "tensor-parallel-size"])
def test_a_size_that_is_none(name: str, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = f"roles.decode.server.args.{name}"
    assert plan.main(["-e", "vllm-ascend-pd", "--set", f'{place}="{size}"']) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["paths.work_dir=" + "a" * 5000, "proxy.modules_dir=/" + "a" * 300]
)
def test_a_path_that_no_file_system_takes(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--set", words]) == 2
    assert "a path of at most" in capsys.readouterr().err
