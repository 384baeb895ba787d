"""Results as tables, beside earlier ones."""

from __future__ import annotations

import doctest

from load_cases import a_raw, a_result

from omnikit.load import results
from omnikit.load.levels import Level
from omnikit.load.results import as_text, names, run_of

NOW = a_result("local", run_of(Level(1), a_raw(ms=10.0), 4, 4), run_of(Level(4), a_raw(), 4, 4))


def test_examples() -> None:
    assert doctest.testmod(results).failed == 0


def test_every_figure_of_every_run_is_shown() -> None:
    text = as_text(NOW, [])
    assert text.count("concurrency 1 ") == 5 and text.count("concurrency 4 ") == 5
    assert "4 of 4" in text and "difference" not in text


def test_an_earlier_result_stands_below_each_run_with_the_difference() -> None:
    earlier = a_result("colocated", run_of(Level(1), a_raw(ms=8.0), 4, 4))
    lines = as_text(NOW, [earlier]).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("TTFT"))
    assert lines[place].split()[2:] == ["concurrency", "1", "local", "10", "10", "10", "10", "10"]
    assert lines[place + 1].split()[2:] == ["colocated", *["8"] * 5]
    assert lines[place + 2].split()[2:] == ["difference", *["+25.0", "%"] * 5]
    assert lines[-1] == "colocated has no run with: concurrency 4"


def test_loads_that_are_not_the_same_are_named() -> None:
    earlier = a_result("local", run_of(Level(1), a_raw(), 4, 4), input_tokens_each=16)
    assert names(NOW, [earlier]) == ["local 2026-01-02 03:04:05"]
    text = as_text(NOW, [earlier])
    assert "not the same load: input tokens each 8 here, 16 in local 2026" in text


def test_errors_and_short_answers_are_told() -> None:
    text = as_text(a_result("x", run_of(Level(2), a_raw(failed=3), 7, 5)), [])
    assert "concurrency 2: 3 x answer: Bad Gateway" in text
    assert "concurrency 2: 4 answers were shorter than asked for" in text


def test_nothing_answered_is_shown_as_nothing() -> None:
    text = as_text(a_result("x", run_of(Level(2), a_raw(good=0, failed=3), 3, 4)), [NOW])
    assert "0 of 3" in text and "0.0" not in text
