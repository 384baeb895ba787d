"""Bytes, rates and times for people."""

from __future__ import annotations

import pytest

from hostkit.base.log import duration, size_text
from omnikit.weights.meter import Meter


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (689e9, "641.7 GiB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_tells_rate_and_time_left_of_what_was_not_skipped() -> None:
    lines: list[str] = []
    meter = Meter(300 << 20, lines.append)
    meter.add(50 << 20)
    assert lines == []  # what is over within two seconds needs no progress
    meter.skip(100 << 20)
    line = meter.line(meter.began + 10)
    assert line == "150.0 MiB of 300.0 MiB converted, 5.0 MiB/s, 30 s left"
    meter.next = 0
    meter.add(1)
    assert len(lines) == 1


def test_the_rate_is_of_the_last_half_minute() -> None:
    lines: list[str] = []
    meter = Meter(1000 << 20, lines.append)
    for _ in range(10):  # slow at first
        meter.next = 0
        meter.add(1 << 20)
    meter.marks[0] = (meter.began + 100, 10 << 20)
    meter.done += 40 << 20
    assert meter.line(meter.began + 110).split(", ")[1] == "4.0 MiB/s"
