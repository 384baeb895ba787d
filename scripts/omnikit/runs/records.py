"""What commands began, on the control host: a folder for each that is under way or was cut off.

The lock of the control folder keeps two apart. So whoever holds it and finds such a folder knows
that its command is dead. What was changed on the hosts and never proved is added up until a
deployment is proved, what ran before is brought back, or all is stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

from hostkit.base.writing import write_atomically
from omnikit.config import report
from omnikit.config.config import Config
from omnikit.config.layers import control_folder

_KEPT = 200  # ids of ended runs: a lock that comes late from a dying connection is known by them


@dataclass(frozen=True)
class Changes:
    """touched: what was started, restarted, reloaded or removed, by node. ran: nodes that served
    what was proved, and were replaced.
    """

    touched: Mapping[str, str] = field(default_factory=dict)
    ran: Sequence[str] = ()

    def then(self, later: Changes) -> Changes:
        """Both: what had been touched before was not proved any more when it was touched again."""
        new = [name for name in later.ran if name not in self.touched and name not in self.ran]
        return Changes({**self.touched, **later.touched}, [*self.ran, *new])


@dataclass(frozen=True)
class Begun:
    """A command. proved: real requests have passed, what is left is to write it down. told: that it
    was cut off has been said, and a host of it could not be reached.
    """

    folder: Path
    run: str
    owner: str
    what: str
    time: str
    proved: bool = False
    told: bool = False
    changes: Changes = Changes()

    @property
    def release(self) -> Path:
        """The release that it becomes, as soon as it is proved."""
        return self.folder / "release"

    @property
    def settings(self) -> Path:
        """The settings that it works with."""
        return self.folder / f"{self.folder.parents[1].name}.yaml"

    def write(self, **more: Any) -> Begun:
        """Write it down with these changes."""
        made = replace(self, **more)
        data = {name: value for name, value in asdict(made).items() if name != "folder"}
        write_atomically(self.folder / "run.json", json.dumps(data, indent=1) + "\n", 0o600)
        return made


def _folder(environment: str) -> Path:
    return control_folder(environment) / "begun"


def begin(config: Config, run: str, owner: str, what: str) -> Begun:
    """Write down that a command begins, before it locks a host."""
    folder = _folder(config.environment) / run.rpartition("/")[2]
    folder.mkdir(parents=True, mode=0o700)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made = Begun(folder, run, owner, what, stamp)
    write_atomically(made.settings, report.without_secrets(config), 0o600)
    return made.write()


def all_of(environment: str) -> list[Begun]:
    """Commands that were cut off, the oldest first. The control folder's lock is held."""
    found = []
    for folder in _folder(environment).glob("*/"):
        try:
            data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            data["changes"] = Changes(**data["changes"])
            found.append(Begun(folder=folder, **data))
        except (OSError, ValueError, TypeError, KeyError):  # cut off before it did anything
            shutil.rmtree(folder, ignore_errors=True)
    return sorted(found, key=lambda one: one.time)


def ended(begun: Begun) -> None:
    """Forget a command of which nothing is left to do."""
    path = begun.folder.parents[1] / "ended.json"
    write_atomically(path, json.dumps([*_ids(path), begun.run][-_KEPT:]) + "\n", 0o600)
    shutil.rmtree(begun.folder, ignore_errors=True)


def dead(environment: str) -> dict[str, bool]:
    """Runs that are dead, and whether each was proved: what they left on hosts is finished."""
    known = dict.fromkeys(_ids(control_folder(environment) / "ended.json"), False)
    return {**known, **{one.run: one.proved for one in all_of(environment)}}


def _ids(path: Path) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def unproved(environment: str) -> Changes:
    """What was changed on the hosts since a deployment was proved."""
    try:
        data = json.loads((control_folder(environment) / "unproved.json").read_text("utf-8"))
        return Changes(**data)
    except (OSError, ValueError, TypeError):
        return Changes()


def add_unproved(environment: str, changes: Changes) -> None:
    """Add to that; the same again adds nothing."""
    if changes.touched:
        _write(environment, unproved(environment).then(changes))


def nothing_unproved(environment: str) -> None:
    """What runs is proved, is again what ran before, or nothing runs."""
    (control_folder(environment) / "unproved.json").unlink(missing_ok=True)


def _write(environment: str, changes: Changes) -> None:
    path = control_folder(environment) / "unproved.json"
    write_atomically(path, json.dumps(asdict(changes)) + "\n", 0o600)
