"""Pictures of a result: whole files of both kinds, the same for the same result."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from load_cases import a_raw, a_result

from omnikit.load.levels import Level
from omnikit.load.results import draw, run_of

# Drawing takes seconds.
pytestmark = pytest.mark.slow

SWEEP = a_result("now", *(run_of(Level(n), a_raw(ms=5.0 * n), 4, 4) for n in (4, 1)))
EARLIER = a_result("earlier", run_of(Level(1), a_raw(), 4, 4))
DEAD = a_result("dead", run_of(Level(1), a_raw(good=0, failed=4), 4, 4))
NAMES = ["distribution", "latency", "throughput"]


def texts(path: Path) -> set[str]:
    """What a picture says: matplotlib leaves each text as a comment beside its shape."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    tree = ElementTree.parse(path, parser)
    comments = (e for e in tree.iter() if e.tag is ElementTree.Comment)
    return {(e.text or "").strip() for e in comments}


def test_three_pictures_as_svg_and_png_with_earlier_results(tmp_path: Path) -> None:
    made = draw(tmp_path, SWEEP, [EARLIER, DEAD])
    assert sorted(p.name for p in made) == [f"{n}.{e}" for n in NAMES for e in ("png", "svg")]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in made if p.suffix == ".png")
    assert {"now p99", "earlier p50", "concurrent requests", "end to end"} <= texts(
        tmp_path / "latency.svg"
    )
    assert {"requests/s", "output tokens/s"} <= texts(tmp_path / "throughput.svg")
    assert {"now, concurrency 4", "earlier, concurrency 1"} <= texts(tmp_path / "distribution.svg")


def test_the_same_result_gives_the_same_picture(tmp_path: Path) -> None:
    rated = a_result("rated", run_of(Level(None, 0.5), a_raw(), 4, 4))
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw(tmp_path / name, rated, [])
        found.append((tmp_path / name / "latency.svg").read_text())
    assert found[0] == found[1]
    assert "requests per second sent" in texts(tmp_path / "a" / "latency.svg")
