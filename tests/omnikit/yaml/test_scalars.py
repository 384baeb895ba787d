"""Plain words: what they mean, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from omnikit.yaml.strict_yaml import Surprise, read_plain, reads_as_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-7", -7),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("0-7", "0-7"),
        ("10.0.0.1", "10.0.0.1"),
        ("v0.4.1", "v0.4.1"),
        ("$(rm -rf /)", "$(rm -rf /)"),
        ("nobody", "nobody"),
    ],
)
def test_words_mean_what_every_reader_takes_them_for(text: str, value: Any) -> None:
    found = read_plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("no", "Yes", "ON", "off", "y", "N", "TRUE"),
        *("012", "-012", "0x1F", "0o17", "0b1", "1_000", "1_0.5"),
        *("12:30", "1:20:30", "190:20:30.5", "2024-01-02", "2024-1-2 03:04:05", ".inf", "-.INF"),
        *(".nan", "9" * 19, "1e999"),
    ],
)
def test_a_word_that_readers_disagree_on_is_refused_with_advice(text: str) -> None:
    with pytest.raises(Surprise) as caught:
        read_plain(text)
    assert "quote" in caught.value.advice


@given(st.text(max_size=12) | st.from_regex(r"[-+.0-9_:eExX]{1,10}", fullmatch=True))
def test_what_reads_as_text_here_is_text_to_yaml_1_1_as_well(text: str) -> None:
    try:
        plain = yaml.safe_load(f"[{text}]") == [text]  # else it has YAML's own characters in it
    except yaml.YAMLError:
        return
    except ValueError:  # PyYAML takes 2024-99-99 for a date
        plain = False
    other = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))
    if reads_as_text(text) and plain:
        assert other == "tag:yaml.org,2002:str"
