"""Expressions over the variables of an inventory."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.foreign.inventory.jinja import HostVariables, Variables
from omnikit.foreign.trees import read_yaml as read

VARS = """
base: 8000
text: "9000"
offset: {P: 0, D: "{{ base - 7900 }}"}
rank: 2
devices: "0,1,2"
my_password: hunter2
a: "{{ b }}"
b: "{{ a }}"
"""


def variables(extra: str = "") -> Variables:
    return Variables("p2", read(VARS + extra, "f.yml", 0).value, {"groups": {"D": ["d0"]}})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("{{ base + offset.P + rank }}", 8002),
        ("{{ base + offset['D'] }}", 8100),
        ("{{- base -}}", 8000),
        (" {{ base }} ", 8000),
        ("{{ text }}", "9000"),
        ("{{ text | int + rank }}", 9002),
        ("{{ devices }}", "0,1,2"),
        ("{{ devices.split(',') | length }}", 3),
        ("{{ devices | split(',') | first }}", "0"),
        ("{{ inventory_hostname[1:] | int }}", 2),
        ("{{ groups['D'][0] }}", "d0"),
        ("{{ nothing | default(5) }}", 5),
        ("{{ 10 if rank == 2 else nothing }}", 10),
        ("10.0.0.{{ rank }}", "10.0.0.2"),
        ("{{ base }}{{ rank }}", "80002"),
        ("{% if rank %}x{% endif %}", "x"),
        ("{{ [base, rank] }}", [8000, 2]),
    ],
)
def test_an_expression_keeps_the_type_of_its_value(expression: str, value: Any) -> None:
    found = variables(f'x: "{expression}"').value("x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("{{ basis + 1 }}", "the variable 'basis' is undefined for p2"),
        ("{{ bas + 1 }}", "is it 'base'?"),
        ("{{ offset.Q }}", "has no attribute 'Q'"),
        ("{{ text + rank }}", "cannot evaluate"),
        ("{{ base + }}", "cannot evaluate"),
        ("{{ base | ipaddr }}", "No filter named 'ipaddr'"),
        ("{{ base / 0 }}", "division by zero"),
        ("{{ base | xmlattr }}", "cannot evaluate"),
        ("{{ 1e400 }}", "cannot evaluate"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "cannot evaluate"),
        ("{{ lookup('pipe', 'id') }}", "'lookup' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ a }}", "in a circle: a -> b -> a"),
    ],
)
def test_what_cannot_be_evaluated_is_named_with_its_line(expression: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        variables(f'x: "{expression}"').value("x")
    assert what in str(caught.value)
    assert str(caught.value.where) == ("f.yml:8" if "circle" in what else "f.yml:10")


def test_other_hosts_variables_are_evaluated_when_asked_for() -> None:
    other = Variables(
        "d0", read("ip: '10.0.0.{{ n }}'\nn: 4\nbad: '{{ x }}'", "f.yml", 0).value, {}
    )
    mine = read("x: \"{{ hostvars['d0'].ip }} {{ hostvars.d0['n'] }}\"", "f.yml", 0).value
    made = Variables("p0", mine, {"hostvars": {"d0": HostVariables(other)}})
    assert made.value("x") == "10.0.0.4 4"


def test_a_password_is_evaluated_for_a_password_alone() -> None:
    made = variables('ansible_password: "{{ my_password }}!"\nx: "{{ my_password }}"')
    found = made.node("ansible_password").value
    assert isinstance(found, Hidden)
    assert found.reveal() == "hunter2!"
    assert str(made.value("x")) == "[redacted]"
    with pytest.raises(InputError) as caught:
        variables("ansible_password: \"{{ nothing + 'hunter3' }}\"").node("ansible_password")
    assert "hunter" not in str(caught.value)
