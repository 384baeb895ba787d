"""Timing of whole commands, and a table of the figures with what they are held against."""

from __future__ import annotations

import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Figure:
    """One measured figure in seconds. bar: what it should not exceed; None: nothing is promised."""

    name: str
    seconds: float
    bar: float | None
    note: str = ""

    def row(self) -> list[str]:
        """For a table."""
        bar = "-" if self.bar is None else f"<= {self.bar:g} s"
        held = "-" if self.bar is None else ("yes" if self.seconds <= self.bar else "NO")
        return [self.name, f"{self.seconds:.3f} s", bar, held, self.note]


HEADER = ["what", "median", "bar", "held", "note"]


def command_seconds(argv: Sequence[str], runs: int = 5) -> float:
    """Median wall time of a command, after one run that is not counted."""
    times = []
    for number in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
        if number:
            times.append(time.perf_counter() - began)
    return statistics.median(times)
