"""A load from its beginning to its kept result: check, run, show, draw."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from hostkit.base.errors import ActionError
from hostkit.base.log import say
from hostkit.base.run import stream
from hostkit.base.writing import unwritten
from omnikit.config.config import Config
from omnikit.config.layers import control_folder
from omnikit.load import driver, levels, results, targets
from omnikit.load.levels import Level, Load, Target
from omnikit.load.targets import Place

LOG = "generator.log"
_COUNT = re.compile(r"(\d+)/(\d+) \[")  # of the generator's progress bar
_QUIET_S = 5.0  # between two lines of progress


def arguments(generator: str, target: Target, load: Load) -> list[str]:
    """The driver's arguments: the warm-up, if there is one, and each level."""
    runs = [levels.warm_up(generator, target, load)] if load.warmups else []
    runs += [
        levels.arguments(generator, target, load, level, index)
        for index, level in enumerate(load.levels)
    ]
    return [word for run in runs for word in (driver.BETWEEN, *run)][1:]


class Watch:
    """Reads what the generator says: progress is told, results are kept, all else is logged."""

    def __init__(self, load: Load, log: Callable[[str], None], done: Callable[[], None]) -> None:
        self.load = load
        self.log = log
        self.done = done
        self.runs: list[dict[str, Any]] = []
        self.level: Optional[Level] = None  # None: warm-up
        self.broken: Optional[str] = None  # why the generator itself failed
        self.spoke = time.monotonic()

    def on_line(self, line: str) -> None:
        """One line of the generator."""
        if line.startswith(driver.MARK):
            self._event(json.loads(line[len(driver.MARK) :]))
        elif line.strip():
            self.log(line)
            self._progress(line)

    def _progress(self, line: str) -> None:
        found = _COUNT.search(line)
        if found and time.monotonic() - self.spoke >= _QUIET_S:
            self.spoke = time.monotonic()
            say(f"{self.level or 'warm-up'}: {found[1]} of {found[2]} requests")

    def _event(self, event: dict[str, Any]) -> None:
        index = event["load"] - (1 if self.load.warmups else 0)
        self.level = self.load.levels[index] if index >= 0 else None
        requests = self.load.requests if index >= 0 else self.load.warmups
        what = self.level or f"warm-up, {requests} requests"
        # A warm-up counts only when it fails, and then as the first level.
        level = self.level or self.load.levels[0]
        if event["state"] == "began":
            self.spoke = time.monotonic()
            say(f"{what}: began")
        elif event["state"] == "failed":
            self.broken = f"the load generator failed: {event['error']}"
            self._keep(results.broken(level, event["error"], requests))
        elif self.level or not event["result"].get("completed"):
            result = event["result"]
            self._keep(results.run_of(level, result, requests, self.load.output_tokens))

    def _keep(self, run: dict[str, Any]) -> None:
        self.runs.append(run if self.level else {**run, "warm_up": True})
        seconds = f" in {run['duration_s']:.0f} s" if run["duration_s"] else ""
        say(f"{self.level or 'warm-up'}: {run['completed']} of {run['requests']} answered{seconds}")
        self.done()


def above(config: Config, out: Optional[Path], kind: str) -> Path:
    """Where folders of results are made."""
    return out or control_folder(config.environment) / kind


def folder(config: Config, out: Optional[Path], began: datetime, kind: str = "benchmarks") -> Path:
    """A new folder for one result."""
    made = above(config, out, kind) / f"{began:%Y-%m-%d_%H-%M-%S}"
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise ActionError(
            f"the folder for the result cannot be made: {error.strerror}.",
            where=str(made),
            todo="choose another place: --out DIR",
        ) from error
    return made


def measure(
    config: Config, target: Target, load: Load, place: Place, into: Path, began: datetime
) -> dict[str, Any]:
    """Run the load and keep result.json, result.csv and the generator's output in a folder.

    What was measured is kept also when the rest fails or is interrupted. Raises ActionError when
    the generator ended without a result.
    """
    generator = config.settings.benchmark.generator
    argv = place.argv(arguments(generator, target, load))
    result: dict[str, Any] = {
        "format": results.FORMAT,
        "name": target.name,
        "environment": config.environment,
        "url": target.url,
        "model": target.model,
        "began": began.strftime("%Y-%m-%d %H:%M:%S"),
        "generator": generator,
        "ran_on": place.name,
        "command": place.shown(arguments(generator, target, load)),
        "load": _load(load),
        "cause": None,
        "runs": [],
    }
    with _Log(into / LOG) as log:

        def keep() -> None:
            with suppress(OSError):  # finish says it, when the figures have been shown
                results.keep(into, {**result, "runs": watch.runs})

        watch = Watch(load, log.line, keep)
        say(f"the load comes from {place.name}; its generator starts")
        with place.opened(target.service) as (env, stdin):
            code = stream(argv, watch.on_line, env=env, redrawn=True, stdin=stdin)
    result["runs"] = watch.runs
    last = "\n".join(log.last)
    if not watch.runs:
        raise ActionError(
            f"the load generator ended with exit status {code} before the first answer:\n{last}",
            where=place.name,
            todo=f"read all that it said: {into / LOG}",
        )
    if watch.broken:
        result["cause"] = f"{watch.broken}\n{last}"
        result["generator_failed"] = True
    elif not watch.runs[-1]["completed"]:
        result["cause"] = targets.why_not(config, target, load)
    keep()
    return result


class _Log:
    """What the generator says, in a file, and its last lines. A full disk ends the file only."""

    def __init__(self, path: Path) -> None:
        self.last: list[str] = []
        try:
            self.file = path.open("wb", buffering=0)
        except OSError as error:
            raise unwritten(error, path.parent) from error

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def line(self, text: str) -> None:
        """Write a line down."""
        self.last = [*self.last[-8:], text]
        if self.file.closed:
            return
        try:
            self.file.write(f"{text}\n".encode())
        except OSError as error:
            say(f"the generator's output is not kept any more: {error.strerror}")
            self.file.close()


def finish(into: Path, result: dict[str, Any], others: Sequence[dict[str, Any]]) -> None:
    """Keep result and pictures. Raises ActionError; the figures have been shown before."""
    try:
        results.keep(into, result)
        drawn(into, result, others)
    except OSError as error:
        raise unwritten(error, into) from error


def remedy(result: dict[str, Any], into: Path) -> str:
    """What to do about a result that is not ok."""
    said = f"generator's words: {into / LOG}"
    if result.get("generator_failed"):
        return (
            "an option that it does not know: benchmark.generator must be the engine's release; a"
            f" module that is not there: engine.venv; {said}"
        )
    return f"invoke status, invoke doctor; {said}"


def _load(load: Load) -> dict[str, Any]:
    return {
        "levels": [{"concurrency": one.concurrency, "rate": one.rate} for one in load.levels],
        "input_tokens_each": load.input_tokens,
        "output_tokens_each": load.output_tokens,
        "requests": load.requests,
        "warmups": load.warmups,
        "seed": load.seed,
        "chat": load.chat,
    }


def drawn(into: Path, result: dict[str, Any], others: Sequence[dict[str, Any]]) -> list[Path]:
    """The pictures, unless nothing was answered at all."""
    if not any(run["completed"] for run in result["runs"]):
        return []
    try:
        return results.draw(into, result, others)
    except ImportError as error:  # a .venv from before: what was measured is not lost for it
        say(f"no pictures: {error}. What to do: bash scripts/setup_toolkit.sh .venv")
        return []
