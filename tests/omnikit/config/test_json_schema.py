"""The exported schema accepts the repository's files, refuses mistakes, and explains settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from omnikit.config import layers
from omnikit.config.json_schema import descriptions, input_schema

SCHEMA = input_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
CONFIGS = layers.PROJECT / "configs"
FILES = [
    *(CONFIGS / "defaults.yaml",),
    *(
        p
        for f in ("engines", "versions", "models", "environments")
        for p in (CONFIGS / f).glob("*.yaml")
    ),
]


def mistakes(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_it_is_a_valid_schema_of_the_stated_draft() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


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
