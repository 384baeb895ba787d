"""What of the tool's words is shown, and how its end is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_msmodelslim
from slim_case import Machine

from omnikit.weights.msmodelslim import run as msmodelslim_run
from omnikit.weights.msmodelslim.run import Bars, failure


def test_a_bar_is_shown_now_and_then_and_when_it_is_full() -> None:
    bars = Bars(every_s=3600)
    lines = ["start", " 1%|#| 1/9", "10%|#| 2/9", "a warning", "99%|#| 8/9", "100%|#| 9/9"]
    shown = [line for line in lines if bars.show(line)]
    assert shown == ["start", " 1%|#| 1/9", "a warning", "100%|#| 9/9"]
    always = Bars(every_s=0)
    assert all(always.show(line) for line in lines)


def test_the_last_lines_the_cause_and_what_to_do() -> None:
    lines = [f"line {number}" for number in range(40)]
    error = failure([*lines, "OSError: No space left on device"], 1, Path("/l"))
    text = str(error)
    assert "line 39" in text and "line 20" not in text
    assert "Likely cause: the disk is full." in text
    assert "What to do: free some space" in text
    unknown = str(failure(lines, -15, Path("/the/log")))
    assert "was ended by signal 15" in unknown and "Likely" not in unknown
    assert "What to do: read /the/log; then the same command again" in unknown


def test_a_silent_tool_gets_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(msmodelslim_run, "_SIGN_EVERY_S", 0.01)
    machine = Machine(tmp_path)
    assert run_msmodelslim.main(machine.options()) == 0
    signs = [line for line in capsys.readouterr().err.split("\n") if ", 0 weight files" in line]
    assert signs and signs[0].startswith("msmodelslim: converting")
    [log] = machine.side.glob("log-*.txt")
    assert signs[0] in log.read_text()
