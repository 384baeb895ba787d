"""Settings as words, and planned facts in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit.base.errors import InputError
from omnikit.plan.arguments import check_references, env_text, fill, flag_words, references
from omnikit.yaml.strict_yaml import parse

FACTS = {"kv_rank": 2, "model_path": "/m ${plan.kv_rank}", "host_ip": "10.0.0.1"}


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("${plan.kv_rank}", 2),
        ("rank ${plan.kv_rank} at ${plan.host_ip}", "rank 2 at 10.0.0.1"),
        ("${plan.model_path}", "/m ${plan.kv_rank}"),  # a fact's own text is not filled again
        ({"a": ["${plan.kv_rank}", {"b": "${plan.host_ip}"}]}, {"a": [2, {"b": "10.0.0.1"}]}),
        ("$(id) {{ x }} ${HOME}", "$(id) {{ x }} ${HOME}"),
        (True, True),
        (None, None),
        (0.5, 0.5),
    ],
)
def test_references_are_filled_and_nothing_else(value: Any, filled: Any) -> None:
    found = fill(value, FACTS)
    assert found == filled
    assert type(found) is type(filled)


def test_the_references_of_a_value_are_found_at_any_depth() -> None:
    value = {"a": ["${plan.kv_rank}", {"b": "x${plan.host_ip}"}], "c": 5}
    assert references(value) == {"kv_rank", "host_ip"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: x\nb: ${plan.kv_rang}", "${plan.kv_rang} is no planned fact, is it ${plan.kv_rank}?"),
        ("a: x\nb: ${plan.zzz}", "${plan.zzz} is no planned fact."),
        ("a: x\nb: 'x${plan.KV_RANK} y'", "${plan.KV_RANK} y is no planned fact."),
        ("a: x\nb: ['${plan.']", "${plan. is no planned fact."),
        ("a: x\nb: {'${plan.x}': 1}", "${plan.x} is no planned fact."),
    ],
)
def test_what_only_looks_like_a_reference_is_refused_with_its_place(text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        check_references(parse(text, "f"), FACTS)
    assert caught.value.what == what
    assert caught.value.where == "f:2"
    assert "host_ip, kv_rank, model_path" in str(caught.value.todo)


def test_references_to_facts_pass() -> None:
    check_references(parse("a: [x, '${plan.kv_rank}', {b: '${plan.host_ip}:1'}]", "f"), FACTS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ("--f",)),
        (False, ()),
        (None, ()),
        (0, ("--f", "0")),
        (0.92, ("--f", "0.92")),
        ("a b", ("--f", "a b")),
        ("", ("--f", "")),
        ("--evil", ("--f=--evil",)),
        ("-5", ("--f", "-5")),
        (-5, ("--f", "-5")),
        (["a", 1], ("--f", "a", "1")),
        ([], ("--f",)),
        ({"a": {"b": 1}}, ("--f", '{"a": {"b": 1}}')),
        ({}, ("--f", "{}")),
    ],
)
def test_a_flag_and_its_value_are_words(value: Any, words: tuple[str, ...]) -> None:
    assert flag_words("f", value) == words


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_a_map_is_one_word_of_json_that_says_the_same(value: dict[str, Any]) -> None:
    """But for null, by which a layer removes what a lower one says."""
    word = flag_words("f", value)[1]
    assert json.loads(word) == {key: one for key, one in value.items() if one is not None}
    assert json.loads(flag_words("f", {"a": [value]})[1]) == {"a": [json.loads(word)]}


@pytest.mark.parametrize(
    ("value", "text"), [(True, "1"), (False, "0"), (1, "1"), (0.5, "0.5"), ("a\nb", "a\nb")]
)
def test_variables_are_text(value: Any, text: str) -> None:
    assert env_text(value) == text
