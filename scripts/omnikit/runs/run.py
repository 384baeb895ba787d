"""A command that changes hosts: it holds the locks of all of them, or of none.

What it began is written down on the control host, in a folder that is gone when it has ended. The
lock of the control folder keeps two apart, so whoever holds it and finds such a folder knows that
its command is dead. What was changed on the hosts and never proved is added up until a deployment
is proved, what ran before is brought back, or all is stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base import lock as base_lock
from hostkit.base import records as base_records
from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.log import say
from hostkit.base.writing import write_atomically
from omnikit.config import config as config_config
from omnikit.config import report
from omnikit.config.config import Config
from omnikit.config.layers import control_folder
from omnikit.config.schema import Settings
from omnikit.fleet import direct_ssh, identity
from omnikit.plan.types import HostPlan
from omnikit.prepare.deployment import Deployment
from omnikit.runs import releases
from omnikit.topology.topology import make_plan

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


def is_unproved(environment: str) -> bool:
    """Whether what runs was changed since, also by a command that goes on; or one was cut off,
    whatever it did.
    """
    for path in _folder(environment).glob("*/run.json"):
        with suppress(OSError, ValueError, TypeError, KeyError):
            if not json.loads(path.read_text(encoding="utf-8"))["proved"]:
                return True
    return bool(unproved(environment).touched)


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


# The next command finishes what one that was cut off began, before it does anything of its own.


def settle(config: Config) -> None:
    """Finish them all. The control folder's lock is held, so that they are dead.

    What was proved is kept: archives, audit, release. Else the hosts are given up, and what was
    touched there is remembered. A host that cannot be reached is finished when it can be again.
    """
    for begun in all_of(config.environment):
        result = "ok" if begun.proved else "interrupted"
        if not begun.told:
            say(f"{begun.what} of {begun.time} was cut off; finishing it as: {result}")
            folder = control_folder(config.environment)
            base_lock.audit(folder, begun.owner, begun.what, f"{result}, cut off at its end")
        try:
            then = releases.with_passwords(config_config.load_merged(begun.settings), config)
            hosts = make_plan(then).hosts
        except ToolkitError as error:  # of another version of the toolkit
            say(f"note: its settings cannot be read any more: {error.what}")
            then, hosts = config, make_plan(config).hosts
        conclude(then, begun, hosts, {host.name: result for host in hosts})


@contextmanager
def changing(config: Config, what: str) -> Iterator[None]:
    """An environment locked on this machine, what was begun before finished, and a line in its
    audit file.
    """
    lock = control_folder(config.environment) / "lock"
    with identity.audited(config.environment, what), base_records.locked(lock, what):
        settle(config)
        yield


class Refused(InputError):
    """Somebody else changes a host of the environment: nothing was done."""


def job(host: HostPlan, settings: Settings, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A job on one host. Raises InputError, ActionError."""
    given = {"work_dir": host.work_dir, "wait_s": 4 * settings.stop.grace_s, **given}
    with direct_ssh.link(host, settings) as link:
        return link.job(name, given)


def jobs(
    hosts: Sequence[HostPlan], settings: Settings, name: str, given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, ToolkitError]]:
    """A job on all hosts at the same time: results and errors."""
    found: dict[str, dict[str, Any]] = {}
    errors: dict[str, ToolkitError] = {}

    def one(host: HostPlan) -> None:
        try:
            found[host.name] = job(host, settings, name, given[host.name])
        except ToolkitError as error:
            errors[host.name] = error

    with ThreadPoolExecutor(max(1, min(len(hosts), settings.fleet.forks))) as pool:
        list(pool.map(one, hosts))
    return found, errors


def finish(
    hosts: Sequence[HostPlan],
    settings: Settings,
    run: str,
    results: Mapping[str, Optional[str]],
    keep: bool = False,
) -> bool:
    """End a run on its hosts; False where one of them could not be told."""
    given = {name: {"run": run, "result": text, "keep": keep} for name, text in results.items()}
    _, errors = jobs([one for one in hosts if one.name in given], settings, "finish", given)
    for name, error in errors.items():
        say(f"host {name}: what was done there is finished by the next command: {error.what}")
    return not errors


class Run:
    """See hold(). changes: what it has touched so far; proved: real requests have passed."""

    def __init__(self, config: Config, what: str) -> None:
        self.config, self.settings = config, config.settings
        self.dead = dead(config.environment)
        self.id, self.owner, self.what = base_lock.new_run(), identity.am_i(), what
        self.begun = begin(config, self.id, self.owner, what)
        self.hosts: list[HostPlan] = []
        self.results: dict[str, Optional[str]] = {}

    @property
    def variables(self) -> dict[str, str]:
        """For playbooks: on whose behalf the hosts work."""
        return {"omnikit_run": self.id, "omnikit_owner": self.owner, "omnikit_what": self.what}

    @property
    def touched(self) -> bool:
        """Whether it may have started or ended something."""
        return bool(self.begun.changes.touched)

    @property
    def proved(self) -> bool:
        """Whether there is no way back: what is left is to write it down."""
        return self.begun.proved

    def take(
        self,
        hosts: Sequence[HostPlan],
        seen: Mapping[str, Mapping[str, Any]],
        frees: bool = False,
    ) -> None:
        """Lock these hosts, one after the other in an order that is the same for everybody: so of
        several commands at once not all can be refused. seen: what each host said of itself.

        Raises Refused; then none is locked.
        """
        dead = dict(self.dead)
        for found in seen.values():
            lock = found.get("lock")
            if lock and lock["owner"] == self.owner and base_lock.has_ended(lock["run"]):
                dead.setdefault(lock["run"], False)
        self.hosts = sorted(hosts, key=lambda host: str(seen[host.name]["place"]))
        for host in self.hosts:
            self.results[host.name] = None
            given = {"owner": self.owner, "what": self.what, "run": self.id, "over": dead}
            more = {name: seen[host.name].get(name) for name in ("archive", "changes")}
            try:
                done = job(host, self.settings, "lock", {**given, **more, "frees": frees})
            except ToolkitError as error:
                where = f"host {host.name}, step 'Take the lock'"
                kind = Refused if isinstance(error, InputError) else type(error)
                raise kind(error.what, where=where, todo=error.todo) from error
            if not done["held"]:
                del self.results[host.name]

    def install(self, deployment: Deployment, seen: Mapping[str, Mapping[str, Any]]) -> None:
        """Another deployment becomes the present one on hosts that are locked already."""
        given = {"owner": self.owner, "what": self.what, "run": self.id, "over": {}}
        each = {name: {**given, "archive": found["archive"]} for name, found in seen.items()}
        for name, error in jobs(deployment.plan.hosts, self.settings, "lock", each)[1].items():
            raise type(error)(error.what, where=f"host {name}", todo=error.todo)

    def touch(self, touched: Mapping[str, str], ran: Sequence[str]) -> None:
        """Write down what is going to be changed, and which nodes serve that."""
        changes = self.begun.changes.then(Changes(dict(touched), list(ran)))
        self.begun = self.begun.write(changes=changes)

    def adopt(self) -> None:
        """What was not proved before is this run's to prove, or to undo."""
        self.begun = self.begun.write(changes=self.all_changes())

    def all_changes(self) -> Changes:
        """What is not proved: its own changes, and those of commands before."""
        return unproved(self.config.environment).then(self.begun.changes)

    def prove(self, staged: releases.Staged) -> None:
        """Real requests have passed: from here on it is finished, by this command or the next."""
        if not staged.is_present():
            staged.write(self.begun.release)
        self.begun = self.begun.write(proved=True)
        self.results = dict.fromkeys(self.results, "ok")

    def undone(self) -> None:
        """What ran before runs again."""
        self.begun = self.begun.write(changes=Changes())
        nothing_unproved(self.config.environment)

    def end(self, result: Optional[str] = None) -> None:
        """Give the hosts up. result: for their audit."""
        if result is not None:
            self.results = dict.fromkeys(self.results, result)
        conclude(self.config, self.begun, self.hosts, self.results)


def conclude(
    config: Config,
    begun: Begun,
    hosts: Sequence[HostPlan],
    results: Mapping[str, Optional[str]],
) -> None:
    """Finish a command, also one that was cut off, as far as its hosts can be reached."""
    if begun.proved:
        all_told = finish(hosts, config.settings, begun.run, results, keep=True)
        releases.keep(config, begun.release)
        nothing_unproved(config.environment)
    else:
        add_unproved(config.environment, begun.changes)
        all_told = finish(hosts, config.settings, begun.run, results)
    if all_told:
        ended(begun)
    else:
        begun.write(told=True)


@contextmanager
def hold(
    config: Config,
    what: str,
    seen: Optional[Mapping[str, Mapping[str, Any]]] = None,
    hosts: Optional[Sequence[HostPlan]] = None,
    frees: bool = False,
) -> Iterator[Run]:
    """A command's hosts, by default all of its plan, locked. The control folder is, too.

    seen: what they said of themselves; None: they are asked, and one that cannot be is left out:
    what is done next fails there. frees: one whose disk is full need not be locked. Raises Refused.
    """
    run = Run(config, what)
    try:
        hosts = make_plan(config).hosts if hosts is None else hosts
        if seen is None:
            seen, away = ask(hosts, config.settings)
            hosts = [host for host in hosts if host.name not in away]
        run.take(hosts, seen, frees)
        yield run
    except BaseException as error:
        failed = "failed" if isinstance(error, Exception) else "interrupted"
        run.end(None if run.proved or isinstance(error, Refused) else failed)
        raise
    run.end()


def ask(
    hosts: Sequence[HostPlan], settings: Settings
) -> tuple[dict[str, dict[str, Any]], dict[str, ToolkitError]]:
    """What hosts say of themselves (see lock.about), and why others cannot be asked."""
    return jobs(hosts, settings, "lock-look", {host.name: {} for host in hosts})
