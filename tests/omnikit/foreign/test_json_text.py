"""JSON files: every value with its line, mistakes where they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.foreign.trees import read_json as read

TEXT = '{\n\t"a": {"b": 1,\n  "c": ["x",\n "\\/y"]},\n "d": null}'

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_every_value_knows_its_line() -> None:
    tree = read(TEXT, "f.json", 4)
    assert tree.plain() == {"a": {"b": 1, "c": ["x", "/y"]}, "d": None}
    assert str(tree.at(("a", "b")).origin) == "f.json:2"
    assert str(tree.at(("a", "c", 1)).origin) == "f.json:4"
    assert str(tree.value["a"].key_origins["c"]) == "f.json:3"
    assert tree.at(("d",)).origin.layer == 4


@given(VALUES, st.sampled_from([None, 1]))
def test_it_reads_what_json_reads(value: Any, indent: int | None) -> None:
    data = {"k": value} if "pass" not in str(value).lower() else {}
    assert read(json.dumps(data, indent=indent), "f.json", 0).plain() == data


def test_passwords_are_hidden_as_they_are_read() -> None:
    found = read('{"password": "hunter2", "x": {"ansible_ssh_pass": 7}}', "f.json", 0)
    assert isinstance(found.at(("password",)).value, Hidden)
    assert found.at(("x", "ansible_ssh_pass")).value.reveal() == "7"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ('{"a": 1,\n2}', "f.json:2", "not valid JSON: "),
        ('{"a": 1\n "b": 2}', "f.json:2", "Expecting ',' delimiter at column 2"),
        ('{"a": 1} // c', "f.json:1", "Extra data"),
        ('{"a": 1,\n "a": 2}', "f.json:2", "'a' stands twice, first on line 1"),
        ("[" * 100_000, "f.json:1", "nested too deeply"),
        ("", "f.json:1", "not valid JSON"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, where: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text, "f.json", 0)
    assert caught.value.where == where
    assert what in str(caught.value)
