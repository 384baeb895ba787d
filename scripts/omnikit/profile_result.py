"""What a profile leaves: its traces here, their summary, the picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from omnikit import profile_plot, profile_summary
from omnikit.errors import ActionError
from omnikit.plan_types import NodePlan
from omnikit.profile_fetch import Traces
from omnikit.progress import Progress
from omnikit.result_file import unwritten, written
from omnikit.schema import Settings

SUMMARY, PICTURE, TRACES = "summary.json", "summary.svg", "traces"


def fetch(traces: Traces, into: Path, not_back: Optional[ActionError], progress: Progress) -> None:
    """Have the traces here, and off the hosts. not_back: what an error must say too."""
    progress.say("fetching the traces")
    if not_back is not None:
        progress.say(f"what ran before is not back; the traces come all the same, to {into}")
    try:
        traces.bring(into / TRACES)
    except ActionError as error:
        if not_back is None:
            raise
        raise ActionError(f"{error}\n{not_back.what}", todo=not_back.todo) from error
    say_left(traces.clear(), progress)


def give_up(traces: Traces, into: Path, progress: Progress, *, keep: bool) -> None:
    """Remove what a recording that failed has left. keep: the traces on the hosts are good."""
    shutil.rmtree(into, ignore_errors=True)
    if not keep:
        say_left(traces.clear(), progress)


def say_left(left: Sequence[str], progress: Progress) -> None:
    """Name traces that are still on the hosts: their disks fill up otherwise."""
    if left:
        progress.say(
            f"not removed from the hosts, {len(left)} of another user there (container.user):"
            f" {', '.join(left)}. What to do: remove them as root"
        )


def sum_up(
    nodes: Sequence[NodePlan],
    settings: Settings,
    into: Path,
    about: Mapping[str, Any],
    faults: Sequence[str],
) -> dict[str, Any]:
    """The summary of the traces in a folder. faults: more than the traces tell."""
    steps = settings.profiling.steps
    recorded = [
        profile_summary.read(into / TRACES, node, workers, steps)
        for node in nodes
        for workers in [profile_summary.workers_of(node)]
        if workers
    ]
    summary = profile_summary.build(recorded, steps, about)
    summary["faults"] = [*faults, *summary["faults"]]
    return summary


def keep(into: Path, summary: Mapping[str, Any]) -> None:
    """Write summary and picture, whole or not at all. Raises ActionError."""
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    try:
        with written(into / SUMMARY) as beside:
            beside.write_text(text, encoding="utf-8")
        with written(into / PICTURE) as beside:
            profile_plot.draw(beside, summary)
    except OSError as error:
        raise unwritten(error, into) from error
