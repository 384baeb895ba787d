"""The merged settings as text: it reads back as what it shows."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from settings_file import load_site, write

from omnikit.config import config, layers, report
from omnikit.config.report import descriptions, input_schema
from omnikit.yaml.strict_yaml import parse

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e9, 1e9).map(lambda x: round(x, 3))
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
    | st.from_regex(r"[-+.0-9_:eEx~yn]{1,8}", fullmatch=True)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(values)
def test_yaml_reads_back_as_the_same_data_here_and_elsewhere(value: Any) -> None:
    text = report.as_yaml({"a": value})
    assert parse(text, "f").plain() == {"a": value}
    assert yaml.safe_load(text) == {"a": value}


def test_the_merged_settings_given_back_are_the_same_settings(tmp_path: Path) -> None:
    loaded = config.load("2p1d", environ={})
    found = report.leaves(loaded, changed=False)
    text = report.as_yaml(report.nested(found))
    again = config.load("2p1d", [str(write(tmp_path, text))], environ={})
    assert again.settings == loaded.settings


def test_origins_stand_aligned_behind_each_value(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, 'server: {env: {A: "no", B: "x\\ny", C: 中}}\n')
    found = report.leaves(loaded, changed=True)
    lines = report.with_origins(found).splitlines()
    line = next(line for line in lines if line.startswith("server.env.A"))
    assert line.split("   ")[0] == 'server.env.A = "no"'
    assert line.endswith(f"   # {tmp_path}/site.yaml:1")
    assert any(line.startswith('server.env.B = "x\\ny" ') for line in lines)
    assert any(line.startswith("server.env.C = 中 ") for line in lines)
    columns = {line.index("   # ") for line in lines if len(line.split("   # ")[0]) <= 72}
    assert len({max(column, 60) for column in columns}) == 1


def test_changed_leaves_out_what_equals_the_defaults(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, "ports: {proxy: 7000, zmq: 5569}\n")
    nested = report.nested(report.leaves(loaded, changed=True))
    assert nested["ports"] == {"zmq": 5569}


def test_json_is_nested_or_by_name_with_origins(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, "hosts: {n1.example: {address: 10.0.0.1}}\n")
    found = report.leaves(loaded, changed=False)
    assert json.loads(report.as_json(found, origins=False)) == loaded.tree.plain()
    located = json.loads(report.as_json(found, origins=True))
    assert located['hosts."n1.example".address'] == {
        "value": "10.0.0.1",
        "origin": f"{tmp_path}/site.yaml:1",
    }


SCHEMA = input_schema()
CONFIGS = layers.PROJECT / "configs"
FILES = [
    *(CONFIGS / "defaults.yaml",),
    *(
        p
        for f in ("engines", "versions", "models", "environments")
        for p in (CONFIGS / f).glob("*.yaml")
    ),
]


@functools.cache
def validator() -> Any:
    from jsonschema import Draft202012Validator  # takes seconds, in every process that collects

    Draft202012Validator.check_schema(SCHEMA)
    return Draft202012Validator(SCHEMA)


def mistakes(text: str) -> list[str]:
    return [error.message for error in validator().iter_errors(yaml.safe_load(text))]


def test_it_is_a_valid_schema_of_the_stated_draft() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert validator()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_settings_file_of_the_repository_is_valid(path: Path) -> None:
    assert mistakes(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "portz: {}",
        "ports: {proxi: 1}",
        "ports: {proxy: 70000}",
        "ports: {proxy: '7000'}",
        "runtime: dockr",
        "hosts: {p0: {addres: 10.0.0.1}}",
        "hosts: {p0: {password: hunter2}}",
        "topology: {prefill: [{devices: 0-7}]}",
        "topology: {prefill: {}}",
        "roles: {decode: {server: {arg: {}}}}",
        "server: {env: {A: [1]}}",
        "proxy: {fail_timeout: 10 s}",
    ],
)
def test_a_mistake_is_found(text: str) -> None:
    assert mistakes(text)


@pytest.mark.parametrize(
    "text",
    [
        "hosts: {p0: {user: root}}",  # a layer may add to a host of a layer below
        "devices: 3",
        "server: {args: {a: 1, b: null, c: [x], d: {e: {f: 1}}}}",
        "roles: {decode: {server: {tensor_parallel: null}}}",
    ],
)
def test_a_file_may_give_any_part(text: str) -> None:
    assert mistakes(text) == []


def test_nothing_is_required_but_the_hosts_of_an_instance() -> None:
    required = {name: d["required"] for name, d in SCHEMA["$defs"].items() if "required" in d}
    assert required == {"Instance": ["hosts"]}
    assert "required" not in SCHEMA


def test_every_setting_is_explained() -> None:
    bare = []

    def walk(schema: dict[str, Any], name: str) -> None:
        for key, child in schema.get("properties", {}).items():
            if "description" not in child and "$ref" not in child:
                bare.append(f"{name}.{key}")

    walk(SCHEMA, "")
    for name, definition in SCHEMA["$defs"].items():
        walk(definition, name)
    known = {"Secret.file", "Secret.variable", "RolePart.server", "Disaggregated.server"}
    known |= {"Profile.engine", "Profile.omni_version", "Profile.model"} & set(bare)
    assert set(bare) <= known


def test_comments_behind_and_above_a_setting_are_found() -> None:
    found = descriptions()
    assert found["ports", "proxy"] == "where clients connect"
    assert found["profile",] == "Which files of the layers below are used."
    assert found["server",].startswith("Settings of the API servers.")
    assert SCHEMA["$defs"]["Ports"]["properties"]["proxy"]["description"] == "where clients connect"
