"""What is printed of a conversion with msmodelslim, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnikit.weights.msmodelslim import run as msmodelslim_run
from omnikit.weights.msmodelslim.checks import Check
from omnikit.weights.msmodelslim.run import Report


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 2)])
def test_what_is_missing_is_wrong_input(
    ready: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    check = Check("torch-npu", ok=ready, found="", todo="")
    report = Report(result="checked", steps={}, checks=(check,), text="a table")
    assert msmodelslim_run.shown(report, Path("a"), Path("b"), False) == code
    assert capsys.readouterr().out == "a table\n"
    assert msmodelslim_run.shown(report, Path("a"), Path("b"), True) == code
    assert json.loads(capsys.readouterr().out)["result"] == "checked"
