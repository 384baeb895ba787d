"""The files of tests/foreign: as they are, or with one mistake put in, read and planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

FOLDER = Path(__file__).parents[1] / "foreign"
DEPLOYMENT = FOLDER / "omni_infer_deployment.yml"
TWO_P = FOLDER / "omni_infer_inventory_used_for_2P1D.yml"
FOUR_P = FOLDER / "omni_infer_inventory_used_for_4P1D.yml"
MULTI_HOST = FOLDER / "inventory_multi_host_prefill.yml"
SINGLE_NODE = FOLDER / "omni_infer_inventory_used_for_1P1D_single_node.yml"
TWO_P16 = FOLDER / "omni_infer_inventory_used_for_2P16_1D32.yml"
ALL = [DEPLOYMENT, TWO_P, FOUR_P, MULTI_HOST]


def edited(folder: Path, source: Path, *changes: tuple[str, str], crlf: bool = False) -> Path:
    """A copy in which the first occurrence of each text is replaced."""
    text = source.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / source.name
    path.write_bytes(text.replace("\n", "\r\n" if crlf else "\n").encode())
    return path


def planned(path: Path) -> Plan:
    """The plan of a file that is used as it is."""
    return make_plan(config.load(None, [str(path)], environ={}))


def mistake(path: Path) -> str:
    """The error that a file is answered with."""
    with pytest.raises(InputError) as caught:
        planned(path)
    return str(caught.value)


def line_of(path: Path, text: str, occurrence: int = 1) -> str:
    """file:line of a text in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [k for k, line in enumerate(lines, 1) if text in line]
    return f"{path}:{found[occurrence - 1]}"
