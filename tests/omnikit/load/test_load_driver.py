"""What runs in the engine's Python: the arguments of several loads, and lines about each."""

from __future__ import annotations

import doctest
import json
from typing import Any

from load_cases import PLACE

from hostkit.base import run
from omnikit.load import driver
from omnikit.load.targets import DRIVER, Place

WORDS = ["--num-prompts=3", "--max-concurrency=2"]


def told(place: Place, *words: str) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Exit status, the marked lines as data, and all others."""
    lines: list[str] = []
    argv = place.argv(words)
    code = run.stream(argv, lines.append, env=place.env, redrawn=True, stdin=place.stdin)
    marked = [line for line in lines if line.startswith(driver.MARK)]
    events = [json.loads(line[len(driver.MARK) :]) for line in marked]
    return code, events, [line for line in lines if line not in marked]


def test_examples() -> None:
    assert doctest.testmod(driver).failed == 0


def test_several_loads_run_in_turn_and_each_result_comes_as_one_line() -> None:
    code, events, lines = told(PLACE, "--model=a", *WORDS, "---", "--model=b", *WORDS)
    assert code == 0
    assert [(e["load"], e["state"]) for e in events] == [
        (0, "began"),
        (0, "ended"),
        (1, "began"),
        (1, "ended"),
    ]
    assert events[1]["result"]["completed"] == 3
    assert " 2/3 [00:01<00:02]" in lines  # a state of the bar, as a line


def test_after_a_load_without_an_answer_the_next_is_not_tried() -> None:
    code, events, _ = told(PLACE, "--model=none", *WORDS, "---", "--model=b", *WORDS)
    assert code == 1
    assert [(e["load"], e["state"]) for e in events] == [(0, "began"), (0, "ended")]


def test_a_generator_that_fails_says_why() -> None:
    code, events, lines = told(PLACE, "--model=broken", *WORDS)
    assert code == 1
    assert events[-1]["error"] == "ValueError: Initial test run failed"
    assert any(line.startswith("Traceback") for line in lines)
    code, events, _ = told(PLACE, "--no-such-option")
    assert code == 1 and events[-1]["error"] == "SystemExit: 2"


def test_its_text_can_be_sent_where_its_file_is_not() -> None:
    there = Place("a host", (PLACE.before[0], "-"), PLACE.env, DRIVER)
    code, events, _ = told(there, "--model=a", *WORDS)
    assert code == 0 and events[-1]["result"]["completed"] == 3
