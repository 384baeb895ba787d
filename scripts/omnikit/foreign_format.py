"""Recognises files of other tools by what is in them, and reads them as settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional

from omnikit.errors import InputError

if TYPE_CHECKING:
    from omnikit.foreign_layout import Layout
    from omnikit.located import Node

DEPLOYMENT = "omni_infer_deployment.yml of omni_cli"
INVENTORY = "Ansible inventory"
# None of these is a section of ours. The key stands at the left, or first in braces.
_TOP = re.compile(
    r"^\ufeff?(?:\{\s*)?[\"']?(?P<key>deployment|services|all|P|D|C)[\"']?[ \t]*:", re.MULTILINE
)
_INI = re.compile(r"\A(?:\s*(?:[#;].*)?\n)*\[[\w.-]+(?::\w+)?\]\s*(?:[#;].*)?$", re.MULTILINE)

_ELSE = (
    (r"\A\s*\$ANSIBLE_VAULT;", "a file that Ansible Vault encrypted (single values may be)"),
    (r"^- .*\n?\s*(name|hosts|tasks|import_playbook):", "a playbook, which goes with an inventory"),
    (r"^(profile|topology|hosts|ports|based_on)\s*:", "settings of this toolkit"),
)


def recognise(text: str) -> Optional[str]:
    """DEPLOYMENT or INVENTORY, None for anything else, such as settings of ours."""
    match = _TOP.search(text)
    if match is None:
        return INVENTORY if _INI.search(text) else None
    return DEPLOYMENT if match["key"] in ("deployment", "services") else INVENTORY


def expect(text: str, source: str) -> str:
    """The kind of a file that must be one of these. Raises InputError: source:line."""
    kind = recognise(text)
    if kind is not None:
        return kind
    found = "something else"
    for pattern, what in _ELSE:
        if re.search(pattern, text, re.MULTILINE):
            found = what
            break
    raise InputError(
        f"found {found}, expected an omni_infer_deployment.yml (deployment:, services:) or an"
        " inventory (all: with the groups P, D and C).",
        where=source,
        todo="a file of ours is used as it is: --environment FILE",
    )


def read_layout(text: str, source: str, layer: int) -> Layout:
    """What a file that was recognised describes. Raises InputError: source:line."""
    from omnikit import foreign_deployment, foreign_yaml  # late: few files need it

    if _INI.search(text):
        raise InputError(
            "this is an inventory in INI format, only YAML is read.",
            where=source,
            todo=f"convert it: ansible-inventory -i {source} --list --yaml > inventory.yml",
        )
    tree = foreign_yaml.read(text, source, layer)
    if recognise(text) == DEPLOYMENT:
        return foreign_deployment.read(tree, source, layer)

    from omnikit import foreign_inventory  # jinja2

    return foreign_inventory.read(tree, source, layer)


def read_settings(text: str, source: str, layer: int) -> Node:
    """The same as settings of ours. Raises InputError: source:line."""
    return read_layout(text, source, layer).tree()
