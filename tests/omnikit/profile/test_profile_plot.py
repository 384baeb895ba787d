"""The picture of a profile: whole, readable, and the same for the same summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from settings_file import FLEET, plan

from omnikit.profile.summary import Recorded, build, draw
from omnikit.profile.trace import Step, Trace

# Drawing takes seconds.
pytestmark = pytest.mark.slow


def summary(folder: Path, workers: int) -> dict[str, Any]:
    traces = [Trace(f"p0/rank{n}", [Step("s", 9.0, 2.0, 1.0)] * 3) for n in range(workers)]
    for trace in traces:
        trace.add("aten::mul", 5.0)
        trace.add("hcom_allReduce_", 2.0)
    nodes = plan(folder, FLEET).nodes
    return build([Recorded(nodes[0], workers, traces), Recorded(nodes[2], 16, [])], 3, {})


def texts(path: Path) -> set[str]:
    """What a picture says: matplotlib leaves each text as a comment beside its shape."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    tree = ElementTree.parse(path, parser)
    return {(e.text or "").strip() for e in tree.iter() if e.tag is ElementTree.Comment}


def test_steps_of_workers_and_operators_of_roles(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    assert draw(path, summary(tmp_path, 2))
    said = texts(path)
    assert {"p0/rank0", "p0/rank1", "gaps", "communication", "1. aten::mul"} <= said
    assert "prefill: operators by time of their own" in said
    assert {"1", "2", "3"} <= said and not {"1.5", "0.5"} & said
    draw(tmp_path / "b.svg", summary(tmp_path, 2))
    assert path.read_text() == (tmp_path / "b.svg").read_text()


def test_of_many_workers_one_of_each_instance_is_shown(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg", summary(tmp_path, 16))
    said = texts(tmp_path / "a.svg")
    assert "p0/rank0" in said and "p0/rank1" not in said


def test_nothing_recorded_gives_no_picture(tmp_path: Path) -> None:
    assert not draw(tmp_path / "a.svg", summary(tmp_path, 0))
    assert not (tmp_path / "a.svg").exists()
