"""Single values of other tools' files."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.foreign import settings
from omnikit.foreign.trees import read_yaml as read
from omnikit.yaml.node import Node, Origin

HERE = Origin("f.yml", 3)


@pytest.mark.parametrize(
    ("value", "ours"),
    [("0,1,2,3", "0-3"), ("8,9,10", "8-10"), ("5", "5"), (0, "0"), ("0,1", "0-1")],
)
def test_devices_that_count_up_become_a_range(value: Any, ours: str) -> None:
    assert settings.devices(Node(value, HERE), "x").value == ours


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("0,1,", '"0,1"'),
        ("0, 1, 2", '"0,1,2"'),
        (",0,1", '"0,1"'),
        ("2,1,0", '"0,1,2"'),
        ("0,0,1", '"0,1"'),
        ("00,1", '"0,1"'),
        ("0,2", None),
        ("0-15", None),
        ("all", None),
        ("²", None),
        ("", None),
        (None, None),
        (True, None),
    ],
)
def test_other_devices_are_refused_with_what_was_meant(value: Any, advice: str) -> None:
    with pytest.raises(InputError) as caught:
        settings.devices(Node(value, HERE), "devices of p0")
    assert str(caught.value).startswith("f.yml:3: devices of p0: found ")
    assert "without spaces" in str(caught.value)
    assert (advice or "name every id") in str(caught.value.todo)


def test_devices_given_as_a_list_are_refused_with_the_text_for_them() -> None:
    node = read("d: [0, 1]", "f.yml", 0).at(("d",))
    with pytest.raises(InputError, match="found a list") as caught:
        settings.devices(node, "x")
    assert '"0,1"' in str(caught.value.todo)
    with pytest.raises(InputError, match="found a list") as caught:
        settings.devices(Node([0, "1", None], HERE), "x")  # of an expression
    assert '"0,1"' in str(caught.value.todo)


@pytest.mark.parametrize("value", ["8080", 8080, " 8080 "])
def test_numbers_may_be_text(value: Any) -> None:
    assert settings.port(Node(value, HERE), "x").value == 8080


@pytest.mark.parametrize("value", ["80a", 0, 65536, "", None, True, 1.5, "-1", "9" * 30, [1]])
def test_what_is_no_port_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="expected a whole number from 1 to 65535"):
        settings.port(Node(value, HERE), "x")


def test_unknown_and_missing_keys_are_answered_with_the_nearest() -> None:
    node = read("host: a\nmaster_prt: 1", "f.yml", 0)
    with pytest.raises(InputError, match=r"f.yml:2.*'master_prt' in g, is it 'master_port'"):
        settings.check_keys(node, "g", ("host", "master_port"))
    with pytest.raises(InputError, match=r"f.yml:2: g: master_port is missing, is it 'master_prt'"):
        settings.required(node, "master_port", "g", "8000")
    with pytest.raises(InputError, match="found nothing, expected something like"):
        settings.required(read("a:", "f.yml", 0), "a", "g", "8000")
