"""What is drawn; where it stands on the page is for a real browser: test_report_in_browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from settings_file import load
from timeline_cases import SPANS, write

from omnikit.config import config
from omnikit.report import data, drawings, page
from omnikit.report.words import Words
from omnikit.timeline import summary
from omnikit.timeline.records import read
from omnikit.topology.topology import make_plan

T = Words("en")


def topology(environment: str, **states: str) -> dict[str, Any]:
    loaded = config.load(environment, environ={})
    return drawings.topology(data.plan_data(loaded, make_plan(loaded)), states, T)


def test_every_host_and_device_is_drawn() -> None:
    made = topology("18p1d")
    cards = {frame["role"]: frame["cards"] for frame in made["frames"]}
    assert {role: len(own) for role, own in cards.items()} == {"prefill": 18, "decode": 18}
    assert all(len(card["devices"]) == 16 for own in cards.values() for card in own)
    assert cards["prefill"][17]["devices"][15] == "p17 device 15: p17, API 9017, dp 0"
    assert cards["prefill"][0]["lines"] == ["192.0.2.11", "API 9000", "devices 0-15"]


def test_states_are_words_and_the_drawing_says_what_it_shows() -> None:
    made = topology("2p1d", p0="ready", d1="failed")
    cards = {card["title"]: card for frame in made["frames"] for card in frame["cards"]}
    assert (cards["p0"]["state"], cards["p0"]["kind"]) == ("ready", "good")
    assert (cards["d1"]["state"], cards["d1"]["kind"]) == ("failed", "bad")
    assert "prefill: 2 instances on 2 hosts" in made["about"]
    assert "KV transfer: prefill → decode" in made["about"]


def test_a_single_server_has_no_links() -> None:
    made = topology("colocated")
    assert made["proxy"] is None and [len(one["cards"]) for one in made["frames"]] == [1]
    assert "→" not in made["about"]


TWO_HOSTS = """
profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}
hosts:
  p0: {address: 192.0.2.11}
  p1: {address: 192.0.2.12}
  p2: {address: 192.0.2.13}
  d0: {address: 192.0.2.15}
topology: {prefill: [{hosts: [p0, p1]}, {hosts: [p2]}], decode: [{hosts: [d0]}], proxy: d0}
"""


def test_the_hosts_of_one_instance_say_so_and_have_its_state(tmp_path: Path) -> None:
    loaded = load(tmp_path, TWO_HOSTS)
    plan = data.plan_data(loaded, make_plan(loaded))
    found = {"plan": plan, "status": {"asked": True, "nodes": [{"node": "p0", "state": "failed"}]}}

    def cards() -> dict[str, Any]:
        [block] = page.topology(found, T).blocks
        return {one["title"]: one for frame in block["drawing"]["frames"] for one in frame["cards"]}

    made = cards()
    assert "p0, host 1 of 2" in made["p0"]["lines"] and "p0, host 2 of 2" in made["p1"]["lines"]
    assert not [line for name in ("p2", "d0") for line in made[name]["lines"] if "host" in line]
    assert [one["state"] for one in made.values()] == ["failed", "failed", "", ""]
    found["status"] = {"asked": False}
    assert [one["state"] for one in cards().values()] == [""] * 4


@pytest.fixture
def timeline(tmp_path: Path) -> dict[str, Any]:
    return summary.as_data(read(write(tmp_path)))


def bars(made: dict[str, Any]) -> dict[str, Any]:
    return {bar["tip"].split(":")[0]: bar for row in made["rows"] for bar in row["bars"]}


def test_a_bar_for_every_step_and_server_in_its_place(timeline: Any) -> None:
    found = bars(drawings.gantt(timeline, T))
    assert len(found) == 7 + 2 and "d0 starts" in found
    wait, start = found["Wait for the servers, d0"], found["Start the servers, d0"]
    scale = wait["width"] / 80
    assert start["width"] == pytest.approx(2 * scale)
    assert wait["left"] - start["left"] == pytest.approx(2 * scale)
    assert all(bar["left"] >= 0 and bar["left"] + bar["width"] < 100.01 for bar in found.values())


@pytest.mark.parametrize("seconds", [0.3, 4.0, 92.0, 290.0, 3599.0, 90000.0])
def test_the_axis_has_words_that_have_room(timeline: Any, seconds: float) -> None:
    timeline.update(seconds=seconds, spans=[], engines=[])
    axis = drawings.gantt(timeline, T)["axis"]
    assert axis[0] == {"left": 0, "label": "0 s", "main": True}
    for ticks, room in ((axis, 6), ([tick for tick in axis if tick["main"]], 19)):
        places = [tick["left"] for tick in ticks]
        assert len(places) >= 2 and places[-1] <= 90.1
        assert min(b - a for a, b in zip(places, places[1:])) > room


def test_the_slowest_steps_have_colours_and_the_rest_share_one(timeline: Any) -> None:
    kinds = drawings.colours(timeline)
    assert kinds["Wait for the servers"] == "step1"
    many = [{"step": f"s{n}"} for n in range(9)]
    assert list(drawings.colours({"steps": many}).values())[6:] == ["step0"] * 3
    names = dict(drawings.legend(timeline, T))
    assert names["step1"] == "1: Wait for the servers" and names["server"] == "start of a server"
    assert "wrong" not in names


def test_bars_are_told_apart_without_colours(timeline: Any) -> None:
    for bar in bars(drawings.gantt(timeline, T)).values():
        assert bar["number"] == (bar["kind"][-1] if bar["kind"].startswith("step") else "")


def test_a_failed_step_is_marked(tmp_path: Path) -> None:
    spans = (*SPANS[:4], ("Wait for the servers", "d0", 5.0, 85.0, "failed"))
    timeline = summary.as_data(read(write(tmp_path, spans=spans, error="x")))
    made = drawings.gantt(timeline, T)
    assert [bar["tip"] for bar in bars(made).values() if bar["bad"]] == [
        "Wait for the servers, d0: 80.0 s, failed"
    ]
    assert "Wait for the servers: 80.0 s, d0, failed on d0; " in made["about"]
    assert ("wrong", "✕ failed") in drawings.legend(timeline, T)
    assert ("wrong", "✕ 失败") in drawings.legend(timeline, Words("zh"))


def test_a_failed_server_is_marked_and_told(timeline: Any) -> None:
    timeline["engines"][1]["result"] = "failed"
    made = drawings.gantt(timeline, T)
    assert [name for name, bar in bars(made).items() if bar["bad"]] == ["d0 starts"]
    assert made["about"].endswith("; d0 starts: failed")
    assert ("wrong", "✕ failed") in drawings.legend(timeline, T)
