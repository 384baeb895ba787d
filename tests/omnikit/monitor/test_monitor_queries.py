"""Expressions for Prometheus."""

from __future__ import annotations

import doctest

from omnikit.monitor import files
from omnikit.monitor.files import quantile, rate
from omnikit.monitor.files import series_of as series


def test_examples() -> None:
    assert doctest.testmod(files).failed == 0


def test_matchers_join_those_that_a_name_brings() -> None:
    assert series("a") == "a"
    assert series("a", 'x="1"', 'y=~"$z"') == 'a{x="1",y=~"$z"}'
    assert rate('a{s="t"}', "5m", 'x="1"') == 'rate(a{s="t",x="1"}[5m])'


def test_a_quantile_keeps_instances_apart() -> None:
    inner = 'sum by (le, instance) (rate(h_bucket{x="1"}[1m]))'
    assert quantile(0.95, "h", "1m", 'x="1"') == f"histogram_quantile(0.95, {inner})"
