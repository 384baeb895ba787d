"""Members are cut out of JSON text; what is left stays byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnikit.weights import json_edit

TEXT = '{\r\n\t"a" : [1,\r\n\t 2], "b":1E-6,\r\n\t"c": {"b": "\\u4e2d"}\r\n}\r\n'


def test_members_with_their_places() -> None:
    found = json_edit.members(TEXT)
    assert list(found) == ["a", "b", "c"]
    assert TEXT[found["b"].value_at : found["b"].end] == "1E-6"
    assert json_edit.members(" { } ") == {}


def test_first_middle_and_last_go_and_nothing_else() -> None:
    assert json_edit.without(TEXT, "a") == TEXT.replace('"a" : [1,\r\n\t 2], ', "")
    assert json_edit.without(TEXT, "b") == TEXT.replace('"b":1E-6,\r\n\t', "")
    assert json_edit.without(TEXT, "c") == TEXT.replace(',\r\n\t"c": {"b": "\\u4e2d"}', "")
    assert json_edit.without('{ "a": 1 }', "a") == "{  }"


def test_a_value_is_replaced_where_it_stands() -> None:
    assert json_edit.with_value(TEXT, "b", ["x"]) == TEXT.replace("1E-6", '["x"]')


@pytest.mark.parametrize(
    "text, said",
    [("[1]", "no JSON object"), ('{"a": 1, "a": 2}', "'a' stands twice"), ("{", "Expecting")],
)
def test_what_is_no_object_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        json_edit.members(text)
    with pytest.raises(KeyError):
        json_edit.without("{}", "a")


scalars = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), values, min_size=1), st.integers(0), st.sampled_from([None, 2]))
def test_any_object_is_left_as_it_was_but_for_the_member(data, which, indent) -> None:
    text = json.dumps(data, indent=indent)
    key = list(data)[which % len(data)]
    left = json.loads(json_edit.without(text, key))
    assert list(left.items()) == [(name, data[name]) for name in data if name != key]
    assert json.loads(json_edit.with_value(text, key, [1])) == {**data, key: [1]}
