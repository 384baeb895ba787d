"""Pieces of SVG: escaped, and cut to their place."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st
from omnikit import report_svg

HOSTILE = "<script>\"&'</text>"


def test_what_does_not_fit_is_cut_and_whole_as_a_tooltip() -> None:
    made = ElementTree.fromstring(report_svg.words(0, 0, "a" * 100, room=70))
    assert made[0].tag == "title" and made[0].text == "a" * 100
    assert made[0].tail is not None and made[0].tail.endswith("…") and len(made[0].tail) < 15
    assert len(ElementTree.fromstring(report_svg.words(0, 0, "short", room=70))) == 0


def test_chinese_takes_twice_the_room() -> None:
    assert report_svg.extent("主机", 12) > 1.7 * report_svg.extent("ab", 12)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_every_text_is_escaped(text: str) -> None:
    parts = [report_svg.words(1, 2, text, room=50), report_svg.box(0, 0, 1, 1, "x", tip=text)]
    made = report_svg.drawing("d", 10, 10, text, text + HOSTILE, "".join(parts))
    tree = ElementTree.fromstring(made)
    assert {element.tag for element in tree.iter()} <= {"svg", "title", "desc", "text", "rect"}
    assert tree[1].text == text + HOSTILE


def test_arrows_point_where_they_go() -> None:
    down = report_svg.arrow([(5, 0), (5, 20)], "asks")
    assert 'points="5.0,20.0 0.8,14.0 9.2,14.0"' in down
    right = report_svg.arrow([(0, 5), (20, 5)], "asks")
    assert 'points="20.0,5.0 14.0,0.8 14.0,9.2"' in right
