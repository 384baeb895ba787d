"""The typed settings: every pattern is explained, every default is valid."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from omnikit.config import layers
from omnikit.config.schema import Secret, Server, ServerPart, Settings
from omnikit.yaml.setting_types import IN_WORDS


def test_the_defaults_file_has_every_setting_and_only_valid_ones() -> None:
    tree = layers.defaults()
    Settings.model_validate(tree.plain())
    required = {
        (section, key)
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    assert {path for path in required if tree.find(path) is None} == set()


def test_every_pattern_has_words() -> None:
    found = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.update({node["pattern"]} if isinstance(node.get("pattern"), str) else ())
            for key, child in node.items():
                found.update(child if key == "patternProperties" else ())
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(json.loads(json.dumps(Settings.model_json_schema())))
    assert found
    assert found <= set(IN_WORDS)


def test_a_part_of_the_server_settings_has_the_same_keys_and_needs_none() -> None:
    assert list(ServerPart.model_fields) == list(Server.model_fields)
    assert ServerPart.model_validate({}).args is None
    with pytest.raises(ValidationError):
        ServerPart.model_validate({"command": []})


@pytest.mark.parametrize("value", ["hunter2", 5, None, [], {}, {"file": "a", "variable": "B"}])
def test_a_secret_is_one_reference(value: object) -> None:
    with pytest.raises(ValidationError, match="reference"):
        Secret.model_validate(value)


@pytest.mark.parametrize(
    "value", [{"file": "/f"}, {"variable": "V"}, {"file": None, "variable": "V"}]
)
def test_references_are_accepted(value: dict[str, str]) -> None:
    assert Secret.model_validate(value)
