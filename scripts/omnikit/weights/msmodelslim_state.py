"""How far a conversion has come, kept beside its result so that a second run goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Mapping

from omnikit.errors import InputError
from omnikit.host_records import write_atomically

STEPS = ("checked", "prepared", "converted", "finished")


class State:
    """The steps done for one result, with what they were done with (fingerprint)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fingerprint: dict[str, str] = {}
        self.steps: dict[str, str] = {}
        self.partial = False  # whether the folder for the result was made by us
        self.changed: list[str] = []  # inputs for which steps are done anew; not kept

    @classmethod
    def load(cls, path: Path) -> State:
        """What an earlier run left, or a new one. Raises InputError when it cannot be read."""
        state = cls(path)
        try:
            data: dict[str, Any] = json.loads(path.read_text("utf-8"))
            state.fingerprint, state.steps = dict(data["fingerprint"]), dict(data["steps"])
            state.partial = bool(data["partial"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"cannot be read: {error!r}.",
                where=str(path),
                todo="remove it together with the unfinished result beside it",
            ) from error
        return state

    def done(self, step: str) -> bool:
        """Whether a step is done."""
        return step in self.steps

    def differences(self, fingerprint: Mapping[str, str]) -> list[str]:
        """Which inputs are not those that the steps were done with."""
        names = {**self.fingerprint, **fingerprint}
        return [n for n in names if self.fingerprint.get(n) != fingerprint.get(n)]

    def begin(self, fingerprint: Mapping[str, str]) -> None:
        """Forget all steps: they are done anew with these inputs."""
        self.changed = self.differences(fingerprint) if self.steps else []
        self.fingerprint, self.steps = dict(fingerprint), {}

    def mark(self, step: str) -> None:
        """A step is done, and those after it are not."""
        before = STEPS[: STEPS.index(step)]
        self.steps = {name: at for name, at in self.steps.items() if name in before}
        self.steps[step] = time.strftime("%Y-%m-%d %H:%M:%S")
        self.save()

    def save(self) -> None:
        """Write it, whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = {"fingerprint": self.fingerprint, "steps": self.steps, "partial": self.partial}
        write_atomically(self.path, json.dumps(data, indent=1) + "\n")
