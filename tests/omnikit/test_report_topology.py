"""The drawing of a topology."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from omnikit import config, report_data, report_sections, report_topology
from omnikit.report_words import words
from omnikit.topology import make_plan
from settings_file import load


def drawn(environment: str, width: int, **states: str) -> ElementTree.Element:
    loaded = config.load(environment, environ={})
    plan = report_data.plan_data(loaded, make_plan(loaded))
    made = report_topology.draw("t", plan, states, width, words("en"))
    return ElementTree.fromstring(made)


def shapes(tree: ElementTree.Element, word: str) -> list[ElementTree.Element]:
    return [e for e in tree.iter() if word in e.get("class", "").split()]


@pytest.mark.parametrize("width", [336, 960])
def test_every_host_device_and_link_is_drawn(width: int) -> None:
    tree = drawn("18p1d", width)
    assert len(shapes(tree, "card")) == 36 + 1
    assert len(shapes(tree, "square")) == 36 * 16
    assert [len(shapes(tree, role)) for role in ("prefill", "decode")] == [289, 289]
    assert len(shapes(tree, "asks")) == 2 * 2 and len(shapes(tree, "kv")) == 2


@pytest.mark.parametrize("width", [336, 960])
@pytest.mark.parametrize("environment", ["local", "2p1d", "18p1d", "colocated"])
def test_nothing_lies_outside_and_no_cards_overlap(environment: str, width: int) -> None:
    tree = drawn(environment, width)
    _, _, wide, tall = map(float, tree.get("viewBox", "").split())
    cards = []
    for box in tree.iter("rect"):
        x, y, w, h = (float(box.get(key, "nan")) for key in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= wide and y + h <= tall
        if "card" in box.get("class", ""):
            cards.append((x, y, w, h))
    for n, (x, y, w, h) in enumerate(cards):
        for a, b, c, d in cards[n + 1 :]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y


def test_states_are_words_and_the_drawing_says_what_it_shows() -> None:
    tree = drawn("2p1d", 960, p0="ready", d1="failed")
    said = ["".join(e.itertext()) for e in tree.iter("text")]
    assert "● ready" in said and "● failed" in said
    about = tree.findtext("desc") or ""
    assert "prefill: 2 instances on 2 hosts" in about and "KV transfer: prefill → decode" in about
    assert tree.get("role") == "img" and tree.get("aria-labelledby") == "t-title t-about"


def test_a_single_server_has_no_links() -> None:
    tree = drawn("colocated", 336)
    assert shapes(tree, "line") == [] and len(shapes(tree, "card")) == 1


TWO_HOSTS = """
profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}
hosts:
  p0: {address: 192.0.2.11}
  p1: {address: 192.0.2.12}
  p2: {address: 192.0.2.13}
  d0: {address: 192.0.2.15}
topology: {prefill: [{hosts: [p0, p1]}, {hosts: [p2]}], decode: [{hosts: [d0]}], proxy: d0}
"""


@pytest.mark.parametrize("width", [336, 960])
def test_the_hosts_of_one_instance_say_so_and_have_its_state(tmp_path: Path, width: int) -> None:
    loaded = load(tmp_path, TWO_HOSTS)
    plan = report_data.plan_data(loaded, make_plan(loaded))
    data = {"plan": plan, "status": {"asked": True, "nodes": [{"node": "p0", "state": "failed"}]}}
    [block] = report_sections.topology(data, words("en")).blocks
    tree = ElementTree.fromstring(block["wide" if width == 960 else "narrow"])
    said = ["".join(e.itertext()) for e in tree.iter("text")]
    assert "p0, host 1 of 2" in said and "p0, host 2 of 2" in said
    assert not [text for text in said if text.startswith(("p2, host", "d0, host"))]
    assert said.count("\u25cf failed") == 2
    data["status"]["asked"] = False
    [block] = report_sections.topology(data, words("en")).blocks
    assert "\u25cf" not in block["wide"]
