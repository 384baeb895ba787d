"""How Ansible reaches a host, in our words."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.inventory.login import login
from omnikit.foreign.trees import read_yaml as read


def found(text: str, notes: list[str] | None = None) -> dict[str, Any]:
    variables = Variables("p0", read(text, "f.yml", 0).value, {})
    settings = login(variables, "p0 of group P", [] if notes is None else notes)
    return {key: node.plain() for key, node in settings.items()}


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("ansible_user: omni\nansible_port: '22'", {"user": "omni", "port": 22}),
        ("ansible_user: a\nansible_ssh_user: b", {"user": "a"}),
        ("ansible_ssh_private_key_file: ~/k", {"private_key": "~/k"}),
        ("ansible_private_key_file: /k", {"private_key": "/k"}),
        ("ansible_connection: local", {"connection": "local"}),
        ("ansible_connection: ssh", {}),
        ("ansible_python_interpreter: /usr/bin/python3", {"python": "/usr/bin/python3"}),
        ("ansible_python_interpreter: auto_silent", {}),
        ("ansible_password:\nansible_user: ''", {}),
        ("u: x\nansible_user: '{{ u }}'", {"user": "x"}),
        ("ansible_ssh_common_args: -o ProxyJump=me@bastion:22", {"jump": "me@bastion:22"}),
        ("ansible_ssh_extra_args: '-J bastion'", {"jump": "bastion"}),
        ("x: 1", {}),
    ],
)
def test_connection_variables_become_our_settings(text: str, ours: dict[str, Any]) -> None:
    assert found(text) == ours


@pytest.mark.parametrize("name", ["ansible_password", "ansible_ssh_pass"])
def test_a_password_stays_hidden_and_a_reference_a_reference(name: str) -> None:
    assert found(f"{name}: hunter2") == {"password": Hidden("hunter2")}
    for lookup in ("lookup('env', 'SSH_PASS')", 'lookup("ansible.builtin.env","SSH_PASS")'):
        assert found(f"{name}: >-\n  {{{{ {lookup} }}}}") == {"password": {"variable": "SSH_PASS"}}


def test_what_has_no_effect_is_noted_once() -> None:
    notes: list[str] = []
    text = "ansible_ssh_common_args: -o StrictHostKeyChecking=no -o Foo=1 -F /my/config\n"
    assert found(text, notes) == found(text, notes) == {"ssh_options": ["Foo=1"]}
    assert len(notes) == 3
    assert "f.yml:1: ansible_ssh_common_args: StrictHostKeyChecking=no is not used" in notes[0]
    assert "-F is not used" in notes[1] and "/my/config is not used" in notes[2]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ansible_usr: x", "f.yml:1: unknown variable ansible_usr of p0 of group P, is it"),
        ("ansible_connection: docker", "found 'docker', expected ssh or local"),
        ("ansible_port: many", "found 'many', expected a whole number"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        found(text)
    assert what in str(caught.value)
