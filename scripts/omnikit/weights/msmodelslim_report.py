"""The result of a conversion with msmodelslim, as a script prints it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from omnikit.weights.msmodelslim_run import Report


def shown(report: Report, source: Path, out: Path, as_json: bool) -> int:
    """Print it; returns the exit status: 2 when something that it needs is missing."""
    if as_json:
        answer = {
            "source": str(source),
            "out": str(out),
            "result": report.result,
            "steps": report.steps,
            "checks": [asdict(check) for check in report.checks],
        }
        print(json.dumps(answer))
    else:
        print(report.text)
    return 0 if report.ready else 2
