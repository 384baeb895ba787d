"""After a deployment that failed: what it started is stopped, what it replaced is brought back."""

from __future__ import annotations

from typing import Mapping, Sequence

from omnikit import fleet
from omnikit.deployment import Deployment
from omnikit.errors import ActionError
from omnikit.progress import Progress


def undo(
    deployment: Deployment,
    changes: Mapping[str, str],
    replaced: Sequence[str],
    error: BaseException,
    progress: Progress,
) -> None:
    """Undo this run's changes. Raises ActionError, which names error too, when that fails."""
    only = ",".join(name for name, what in changes.items() if what in ("start", "restart"))
    if only:
        _stop(deployment, only, error, progress)
    before = [*replaced, *(name for name, what in changes.items() if what == "reload")]
    if not before:
        return
    progress.say(f"bringing back what ran before: {', '.join(before)}")
    back = fleet.play(
        "restore.yml",
        deployment.inventory,
        deployment.config.settings,
        progress.on_event,
        {"omnikit_only": ",".join(before)},
    )
    if back.failures:
        left = "what ran before could not be brought back; try: invoke rollback"
        raise ActionError(f"{error}\n{left}") from error


def _stop(deployment: Deployment, only: str, error: BaseException, progress: Progress) -> None:
    settings = deployment.config.settings
    progress.say("stopping what this run started")
    stopped = fleet.play(
        "stop_server.yml", deployment.inventory, settings, variables={"omnikit_only": only}
    )
    if stopped.failures:
        left = "some of what was started could not be stopped; try: make stop"
        raise ActionError(f"{error}\n{left}") from error
