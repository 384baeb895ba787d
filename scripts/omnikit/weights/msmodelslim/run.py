"""DeepSeek weights from fp8 to W8A8 with Ascend's msmodelslim: check, prepare, convert, finish.

Beside the result TARGET lie, while it is made, TARGET.incomplete, and TARGET.msmodelslim/ with the
state and the logs. TARGET itself appears whole, by renaming, when all is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.records import lock_holder, locked
from hostkit.base.writing import write_atomically
from hostkit.files import regular
from omnikit.engine.progress import Say
from omnikit.weights.checkpoint import whole
from omnikit.weights.msmodelslim import checks as msmodelslim_checks
from omnikit.weights.msmodelslim import convert as msmodelslim_convert
from omnikit.weights.msmodelslim import edited_files, edits
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.checks import Check, Looked
from omnikit.weights.msmodelslim.tool import Tool

STEPS = ("checked", "prepared", "converted", "finished")


class State:
    """The steps done for one result, with what they were done with (fingerprint).

    Kept beside it, so that a second run goes on.
    """

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
            data: dict[str, Any] = regular.parsed(path)
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


@dataclass(frozen=True)
class Report:
    """What was found and done. text: for people; checks: empty where nothing was to be checked."""

    result: str
    steps: Mapping[str, str]
    checks: tuple[Check, ...]
    text: str

    @property
    def ready(self) -> bool:
        """Whether no check failed."""
        return all(check.ok for check in self.checks)


class _Places:
    """Where the parts of one conversion are."""

    def __init__(self, source: Path, out: Path) -> None:
        self.source, self.out = source.absolute(), out.absolute()
        self.partial = self.out.with_name(f"{self.out.name}.incomplete")
        self.side = self.out.with_name(f"{self.out.name}.msmodelslim")
        self.state = self.side / "state.json"
        self.log = self.side / time.strftime("log-%Y%m%d-%H%M%S.txt")
        # Links followed, for a name may lead into the other; realpath ends where links go round.
        real_source, real_out = (Path(os.path.realpath(one)) for one in (self.source, self.out))
        inside = real_source == real_out or real_source in real_out.parents
        if inside or real_out in real_source.parents:
            raise InputError(
                f"the result {self.out} and the source {self.source} lie in one another.",
                where="--target",
                todo="choose a folder beside the source",
            )


def run_msmodelslim(source: Path, out: Path, tool: Tool, say: Say) -> Report:
    """Convert source into out, or go on where an earlier run ended; unchanged when it is done.

    Raises InputError before anything is changed (a check that failed, a folder that is not ours),
    ActionError when a step fails; the same call goes on then.
    """
    places = _Places(source, out)
    state = _state(places, tool)
    if _is_finished(places, state):
        return _unchanged(places, state)
    looked = None
    if not state.done("converted"):
        looked = msmodelslim_checks.look(tool, places.source, places.out, say)
        say(msmodelslim_checks.overview(looked.checks))
        msmodelslim_checks.refuse(looked.checks)
    with _writable(places), _locked(places):
        state = _state(places, tool)  # another may just have gone on
        if _is_finished(places, state):
            return _unchanged(places, state)
        for line in _so_far(state):
            say(line)
        if not state.done("converted"):
            if looked is None:
                raise InputError("another run has begun anew.", where=str(places.out), todo="again")
            _convert(places, state, tool, looked, say)
        _finish(places, state, say)
    checks = looked.checks if looked else ()
    return Report("converted", state.steps, checks, f"{places.out}: converted\n{_back(places)}")


def _unchanged(places: _Places, state: State) -> Report:
    text = f"{places.out}: unchanged, finished on {state.steps['finished']}"
    return Report("unchanged", state.steps, (), text)


def _so_far(state: State) -> list[str]:
    """Which steps are done, and why those that were are to be done anew."""
    lines = [f"{step}: {state.steps.get(step, 'to do')}" for step in STEPS]
    if state.changed:
        lines.append(f"done anew, because of what changed: {', '.join(state.changed)}")
    elif state.partial and not state.done("converted"):
        lines.append("the conversion was cut off or failed: it is done anew, into an empty folder")
    return lines


def _convert(places: _Places, state: State, tool: Tool, looked: Looked, say: Say) -> None:
    state.mark("checked")
    changes = edited_files.plan(places.source, edits.before())
    say(edited_files.told(changes, would=False))
    edited_files.apply(changes)
    state.mark("prepared")
    _empty(places, state)
    msmodelslim_convert.convert(tool, places.source, places.partial, looked.environment, places.log)
    state.mark("converted")


def describe(source: Path, out: Path, tool: Tool, say: Say) -> Report:
    """What run_msmodelslim would find and do. Changes nothing."""
    places = _Places(source, out)
    state = _state(places, tool)
    if _is_finished(places, state):
        return _unchanged(places, state)
    lines = _so_far(state)
    if state.done("converted"):
        return Report("would be converted", state.steps, (), "\n".join([*lines, *_ending(places)]))
    looked = msmodelslim_checks.look(tool, places.source, places.out, say)
    lines = [msmodelslim_checks.text(looked.checks), "", *lines, ""]
    with contextlib.suppress(InputError):  # among the checks then
        changes = edited_files.plan(places.source, edits.before())
        lines += [edited_files.told(changes, would=True), ""]
    lines += [
        f"source {run.show([tool.set_env])}",
        f"cd {run.show([tool.script.parent])}",
        msmodelslim_tool.shown(tool, places.source, places.partial, looked.environment),
        *_ending(places),
    ]
    return Report("would be converted", state.steps, looked.checks, "\n".join(lines))


def _ending(places: _Places) -> list[str]:
    layers = _layers(places.source)
    return [
        f"{places.partial}/config.json: would be done: architectures as servers know it,"
        f" num_hidden_layers {layers}",
        run.show(["mv", places.partial, places.out]),
    ]


def _back(places: _Places) -> str:
    """How the source becomes what it was, for whoever still serves or converts it as fp8."""
    words = run.show(["invoke", "prepare-checkpoint", f"--dir={places.source}", "--revert"])
    return f"the source is edited for msmodelslim; its original files come back with: {words}"


def _layers(source: Path) -> int:
    """Layers of the model without MTP, as the source counts them."""
    return msmodelslim_convert.layers(source) or edits.LAYERS


def _fingerprint(places: _Places, tool: Tool) -> dict[str, str]:
    given: dict[str, Any] = {"flags": tool.flags, "env": sorted(tool.env.items())}
    return {
        "the source's place": str(places.source),
        **_source_fingerprint(places.source),
        "quant script": whole.digest(tool.script),
        **{f"weights.msmodelslim.{name}": _digest(value) for name, value in given.items()},
    }


def _digest(value: object) -> str:
    """A value may be nobody's business; whether it is another is all that is asked."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _source_fingerprint(source: Path) -> dict[str, str]:
    if not source.is_dir():
        return {}
    return {f"source/{k}": v for k, v in whole.fingerprint(source).items()}


def _state(places: _Places, tool: Tool) -> State:
    """What was done so far; begun anew where the inputs are others. Writes nothing."""
    state = State.load(places.state)
    now = _fingerprint(places, tool)
    if state.done("converted"):  # source and tool may go then
        kept = state.fingerprint
        gone = [] if places.source.is_dir() else [n for n in kept if n.startswith("source/")]
        gone += [] if tool.script.is_file() else ["quant script"]
        now.update({name: kept[name] for name in gone})
    different = state.differences(now)
    if os.path.lexists(places.out) and (not state.done("converted") or different):
        because = f"from other inputs: {', '.join(different)}" if state.steps else "not by this"
        raise InputError(
            f"it is there already, and was made {because}.",
            where=str(places.out),
            todo="choose another --target, or move that folder away",
        )
    if places.partial.exists() and not state.partial:
        raise InputError(
            "it is there already, and was not made by this.",
            where=str(places.partial),
            todo="move it away: this name is used for the unfinished result",
        )
    if different:
        state.begin(now)
    elif state.done("converted") and not (places.partial.exists() or places.out.exists()):
        state.begin(now)
        state.changed = [f"{places.partial} is gone"]
    return state


def _is_finished(places: _Places, state: State) -> bool:
    if not state.done("finished"):
        return False
    problems = whole.problems(places.out)
    if problems:
        raise ActionError(
            f"it was finished on {state.steps['finished']}, but now: {'; '.join(problems)}.",
            where=str(places.out),
            todo=f"put back what is missing, or remove it and {places.side} to convert anew",
        )
    return True


@contextlib.contextmanager
def _writable(places: _Places) -> Iterator[None]:
    """A full disk also meets the lock, the state, the log and the last renaming."""
    try:
        yield
    except BrokenPipeError:  # whoever reads what is said went away
        raise
    except OSError as error:
        place = places.out.parent
        raise ActionError(
            f"cannot go on: {error.strerror or error}.",
            where=str(error.filename2 or error.filename or place),
            todo=f"free some space, or see who may write there (df -h {place}; ls -ld {place});"
            " then the same command again, which goes on",
        ) from error


@contextlib.contextmanager
def _locked(places: _Places) -> Iterator[None]:
    path = places.side / "lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, f"converting into {places.out}"))
        except ActionError as error:
            holder = lock_holder(path)
            raise InputError(
                f"process {holder.get('pid', '?')} of {holder.get('user', '?')} is converting"
                f" since {holder.get('since', '?')}.",
                where=str(places.out),
                todo="wait until it has ended",
            ) from error
        yield


def _empty(places: _Places, state: State) -> None:
    """An empty folder for the tool; what an interrupted one left is of no use to it."""
    state.partial = True
    state.save()
    if places.partial.exists():
        shutil.rmtree(places.partial)
    places.partial.mkdir(parents=True)


def _finish(places: _Places, state: State, say: Say) -> None:
    if places.partial.exists():  # else a run was cut off behind the renaming
        problems = msmodelslim_convert.problems(places.source, places.partial)
        if problems:
            raise ActionError(
                f"it was converted, but now: {'; '.join(problems)}.",
                where=str(places.partial),
                todo="remove it, then the same command again",
            )
        finishing = edits.after(_layers(places.source))
        changes = edited_files.plan(places.partial, finishing)
        say(edited_files.told(changes, would=False))
        edited_files.apply(changes)
        places.partial.rename(places.out)
    state.partial = False
    state.mark("finished")


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
