"""What fills the terminal, from any look: whole at every width, and clear without colour."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from omnikit.monitor import look, screen

WIDTHS = (80, 100, 140, 220)


def instance(name: str, role: str = "prefill", **more: Any) -> dict[str, Any]:
    made = {
        **{"name": name, "role": role, "host": f"host-{name}", "state": "ready", "servers": 1},
        **{"in_pool": True, "why": "", "up_s": 4000.0, "running": 3.0, "waiting": 0.0, "kv": 0.42},
        **{"requests_s": 1.25, "tokens_s": 310.0, "first_s": 0.18},
    }
    return {**made, **more}


def snapshot(instances: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    well = [one for one in instances if one["state"] == "ready" and one["in_pool"]]
    made = {
        **{"environment": "18p1d", "url": "http://192.0.2.11:7000", "at": 1764500000.0},
        **{"error": "", "instances": instances, "doing": None, "events": []},
        "total": {
            **{"requests_s": 22.5, "tokens_s": 5580.0, "running": 54.0, "waiting": 2.0},
            **{"first_s": 0.18, "ready": len(well), "of": len(instances)},
        },
    }
    return {**made, **more}


def lines(found: dict[str, Any], width: int, height: int = 50) -> list[str]:
    console = Console(width=width, file=io.StringIO(), no_color=True, highlight=False)
    console.print(screen.view(found, width, height))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b" not in text
    return [line.rstrip() for line in text.splitlines()]


LARGE = [
    *(instance(f"p{number}", servers=16) for number in range(18)),
    *(instance(f"d{number}", "decode", servers=16) for number in range(18)),
    instance("c0", "proxy", running=None, waiting=None, kv=None, requests_s=None, first_s=None),
]
_DIED = {"hosts": ["h"], "node": "p1", "what": "died", "why": "x" * 300}
EVENTS = [{"time": f"2026-11-30T10:0{number}:00Z", **_DIED} for number in range(8)]
DOING = {
    **{"what": "roll of 18p1d", "owner": "ann@bastion", "began": 1764499970.0, "about_s": 120.0},
    "said": ["[  12.3 s] p1: out of the proxy", "y" * 300],
}


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_or_longer_than_the_terminal(width: int) -> None:
    sick = instance("p3", state="failed", in_pool=False, why="z" * 300)
    found = snapshot([*LARGE[:3], sick, *LARGE[4:]], events=EVENTS, doing=DOING, error="e" * 70)
    for height in (24, 40, 60):
        shown = lines(found, width, height)
        assert max(map(len, shown)) <= width and len(shown) <= height
        assert [line for line in shown if line.startswith("! p3") and "failed" in line]
        assert any("roll of 18p1d by ann@bastion: 30 s of about 2 min" in line for line in shown)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_there_whole(width: int) -> None:
    shown = lines(snapshot([instance("d0", "decode", servers=16)]), width)
    [row] = [line for line in shown if "d0 x16" in line]
    assert all(word in row for word in ("decode", "ready", "1.25", "0.18 s", "3", "0", "42 %"))
    assert ("310" in row and "67 min" in row) == (width >= 110)
    assert "22 requests/s   5580 tokens/s   first token 0.18 s   54 running   2 waiting" in shown[1]
    assert "1 of 1 serve" in shown[0] and "!" not in "".join(shown)


def test_the_first_token_is_what_a_client_waits_for() -> None:
    prefill = [
        instance("p0", first_s=0.2),
        instance("p1", first_s=0.4),
        instance("p2", first_s=None),
    ]
    total = look._total([*prefill, instance("d0", "decode", first_s=0.1)])
    assert round(total["first_s"], 6) == 0.4 and total["requests_s"] == 1.25
    assert look._total(prefill[2:])["first_s"] is None


def test_what_logs_say_is_shown_as_it_is() -> None:
    evil = "[/red] [bold]x :smile: \x1b]0;title\x07 \x1b[2J"
    sick = instance("p1", state="failed", why=evil, host="[/x]")
    event = {**EVENTS[0], "why": evil, "node": "[/p]"}
    shown = lines(look._clean(snapshot([sick], events=[event], error=evil)), 120)
    plain = r"[/red] [bold]x :smile: \u001b]0;title\u0007 \u001b[2J"
    assert shown[2] == f"! {plain}" and shown[-1].endswith(f"[/p] died  {plain}")
    assert "[/x]" in shown[4] and shown[5] == f"! p1: {plain}"


def test_times_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        shown = lines(snapshot([instance("p1")], events=EVENTS[:1]), 80)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert shown[0].endswith("18:53:20") and shown[-1].startswith("18:00:00 p1 died")


def test_who_is_not_well_is_seen_first_where_not_all_have_room() -> None:
    out = instance("d17", "decode", in_pool=False, why="the proxy gives d17.3 no requests")
    shown = lines(snapshot([*LARGE[:-2], out, LARGE[-1]]), 80, 24)
    assert "! 36 of 37 serve" in shown[0]
    rows = shown[3:]
    assert rows[0].startswith("! d17") and "ready, out" in rows[0] and rows[1].startswith("  p0")
    assert "and 18 more, all ready" in "\n".join(shown)
    assert "! d17: the proxy gives d17.3 no requests" in shown
