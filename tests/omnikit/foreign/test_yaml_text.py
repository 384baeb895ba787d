"""Other tools' YAML: lenient where theirs is, with the line of every value."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.foreign.trees import read_yaml as read


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a: yes\nb: 010\nc: '010'\nd: ~\ne: 1.5\nf: 2024-01-01", None),
        ("---\na: 1", {"a": 1}),
        ("a: &x {k: 1}\nb: *x", {"a": {"k": 1}, "b": {"k": 1}}),
        ("a: &x {k: 1, l: 1}\nb: {<<: *x, l: 2}", {"a": {"k": 1, "l": 1}, "b": {"l": 2, "k": 1}}),
        ("a: !unsafe '{{ x }}'", {"a": "{{ x }}"}),
        ("机器: 八", {"机器": "八"}),
        ("a: 1\r\nb:\r\n  c: x\r\n", {"a": 1, "b": {"c": "x"}}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_yaml_means_what_it_means_to_ansible(text: str, plain: Any) -> None:
    expected = {"a": True, "b": 8, "c": "010", "d": None, "e": 1.5, "f": "2024-01-01"}
    assert read(text, "f.yml", 4).plain() == (expected if plain is None else plain)


def test_every_value_knows_its_line() -> None:
    tree = read("a:\n  b: 1\n\n  c: [x,\n   y]\n", "f.yml", 4)
    assert str(tree.at(("a", "b")).origin) == "f.yml:2"
    assert str(tree.at(("a", "c", 1)).origin) == "f.yml:5"
    assert str(tree.value["a"].key_origins["c"]) == "f.yml:4"
    assert tree.at(("a", "b")).origin.layer == 4


@pytest.mark.parametrize("key", ["password", "ansible_password", "ansible_ssh_pass", "sudo_pass"])
def test_passwords_are_hidden_as_they_are_written(key: str) -> None:
    found = read(f"{key}: 0123", "f.yml", 4).at((key,)).value
    assert isinstance(found, Hidden)
    assert found.reveal() == "0123"
    assert read(f"{key}:", "f.yml", 4).at((key,)).value in (None, "")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: 2\na: 3", "f.yml:3", "'a' stands twice, first on line 1"),
        ("a:\n  b: !vault |\n    $ANSIBLE", "f.yml:2", "no text of Ansible Vault"),
        ("a: !python/object x", "f.yml:1", "tag !python/object"),
        ("? [a]\n: 1", "f.yml:1", "plain word"),
        ("a: [1", "f.yml:1", "not valid YAML"),
        ("a: &x [*x]", "f.yml:1", "nested too deeply"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, where: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text, "f.yml", 4)
    assert where in str(caught.value.where)
    assert what in str(caught.value)


def test_a_syntax_error_quotes_no_line_of_a_file_with_passwords() -> None:
    with pytest.raises(InputError) as caught:
        read("ansible_ssh_pass: hunter2: x", "f.yml", 4)
    assert "f.yml:1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
