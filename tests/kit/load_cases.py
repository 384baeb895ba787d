"""Loads and results for the tests of the load test, and a place with the stand-in generator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hostkit.access.service import Service
from omnikit.load.levels import Level, Load, Target
from omnikit.load.targets import DRIVER, ENV, Place

GENERATOR = Path(__file__).parents[1] / "generator"
PLACE = Place("this machine", (sys.executable, str(DRIVER)), {**ENV, "PYTHONPATH": str(GENERATOR)})


def a_load(**given: Any) -> Load:
    """A small load; options replace what is given."""
    usual: dict[str, Any] = {
        "levels": (Level(1), Level(4)),
        "input_tokens": 8,
        "output_tokens": 4,
        "requests": 6,
        "warmups": 2,
        "seed": 0,
        "chat": False,
    }
    return Load(**{**usual, **given})


def a_target(model: str = "tiny", url: str = "http://127.0.0.1:1") -> Target:
    return Target("local", Service(url), model, "/models/tiny")


def a_raw(failed: int = 0, good: int = 4, ms: float = 10.0) -> dict[str, Any]:
    """What the generator saves, as far as it is read."""
    made: dict[str, Any] = {
        "completed": good,
        "duration": 2.0,
        "total_input_tokens": 8 * good,
        "total_output_tokens": 4 * good,
        "request_throughput": good / 2,
        "output_throughput": 2.0 * good,
        "total_token_throughput": 6.0 * good,
        "output_lens": [4] * good + [0] * failed,
        "ttfts": [ms / 1000] * good + [0.0] * failed,
        "itls": [[ms / 1000, ms / 500]] * good + [[]] * failed,
        "errors": [""] * good + ["Bad Gateway"] * failed,
    }
    for metric in ("ttft", "tpot", "itl", "e2el"):
        made.update({f"{w}_{metric}_ms": ms for w in ("mean", "p50", "p90", "p95", "p99")})
    return made


def a_result(name: str, *runs: dict[str, Any], **load: Any) -> dict[str, Any]:
    """A result with these runs."""
    from omnikit.load.results import FORMAT

    levels = [{"concurrency": run["concurrency"], "rate": run["rate"]} for run in runs]
    asked = {"levels": levels, "input_tokens_each": 8, "output_tokens_each": 4, "chat": False}
    return {
        "format": FORMAT,
        "name": name,
        "url": "http://127.0.0.1:7000",
        "model": "tiny",
        "began": "2026-01-02 03:04:05",
        "load": {**asked, **load},
        "cause": None,
        "runs": list(runs),
    }
