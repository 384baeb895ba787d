"""Variables of groups and hosts merge as Ansible merges them."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.foreign.inventory.inventory import Inventory, collect
from omnikit.foreign.trees import read_yaml as read

TEXT = """
all:
  vars: {a: all, b: all, c: all, d: all, m: {x: 1, y: 2}}
  hosts:
    h1: {d: host}
  children:
    P:
      vars: {b: P, c: P, m: {x: 3}}
      children:
        P1: {vars: {c: P1}, hosts: {h2: , h1: }}
        P0: {vars: {c: P0}, hosts: {h3: }}
    empty:
Q:
  vars: {a: Q}
  hosts: {h3: {a: host}, h1: }
"""


def inventory(text: str = TEXT) -> Inventory:
    return collect(read(text, "f.yml", 0))


@pytest.mark.parametrize(
    ("host", "values"),
    [
        ("h1", {"a": "Q", "b": "P", "c": "P1", "d": "host", "m": {"x": 3}}),
        ("h2", {"a": "all", "b": "P", "c": "P1", "d": "all", "m": {"x": 3}}),
        ("h3", {"a": "host", "b": "P", "c": "P0", "d": "all", "m": {"x": 3}}),
    ],
)
def test_the_host_wins_over_its_groups_over_their_parents(
    host: str, values: dict[str, Any]
) -> None:
    found = inventory().variables(host)
    assert {name: node.plain() for name, node in found.items()} == values


def test_hosts_of_a_group_are_those_of_its_children_in_the_order_of_the_file() -> None:
    made = inventory()
    assert made.hosts("P") == ["h2", "h1", "h3"]
    assert made.hosts("empty") == made.hosts("no such") == []
    assert made.groups_of("h1") == ["all", "P", "Q", "P1"]


def test_ansible_reads_the_same_values() -> None:
    """Against the real Ansible, as the toolkit's environment has it."""
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.vars.manager import VariableManager
    from foreign_files import FOUR_P, MULTI_HOST, TWO_P

    for path in (TWO_P, FOUR_P, MULTI_HOST):
        ours = collect(read(path.read_text(encoding="utf-8"), str(path), 0))
        loader = DataLoader()
        theirs = InventoryManager(loader=loader, sources=[str(path)])
        manager = VariableManager(loader=loader, inventory=theirs)
        for group in ("P", "D", "C"):
            assert [h.name for h in theirs.groups[group].get_hosts()] == ours.hosts(group)
        for host in theirs.get_hosts():
            found = manager.get_vars(host=host)
            mine = ours.variables(host.name)
            assert mine
            for name, node in mine.items():
                hidden = "pass" in name
                assert found[name] == (node.value.reveal() if hidden else node.plain())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("all:\n  hots: {a: }", r"f.yml:2: unknown key 'hots' in the group all, is it 'hosts'"),
        ("all:\n  hosts: [a]", "f.yml:2: hosts of the group all: found a list, expected a map"),
        ("all:\n  hosts:\n    a: b", "f.yml:3: the host a: found 'b', expected a map"),
        ("all:\n  hosts:\n    'p[0:3]':", r"f.yml:3: the host range p\[0:3\] is not read"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        inventory(text)


def test_groups_in_a_circle_end() -> None:
    made = inventory("P: {children: {Q: {children: {P: }}}, hosts: {a: }}")
    assert made.hosts("P") == ["a"]
    assert set(made.groups_of("a")) == {"P", "Q"}
