"""DeepSeek weights from fp8 to W8A8 with Ascend's msmodelslim: check, prepare, convert, finish.

Beside the result TARGET lie, while it is made, TARGET.incomplete, and TARGET.msmodelslim/ with the
state and the logs. TARGET itself appears whole, by renaming, when all is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Sequence

from hostkit.base import log, run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.records import lock_holder, locked
from hostkit.base.writing import write_atomically
from hostkit.files import regular
from omnikit.config.layers import PROJECT
from omnikit.engine.progress import Progress, Say
from omnikit.weights.checkpoint import headers
from omnikit.weights.checkpoint.headers import Tensor
from omnikit.weights.msmodelslim import checks as msmodelslim_checks
from omnikit.weights.msmodelslim import edits
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.checks import Check, Looked
from omnikit.weights.msmodelslim.tool import Tool

_BAR = re.compile(r"\d+%\|.*\|")
_BAR_EVERY_S = 10.0
_SIGN_EVERY_S = 60.0
_KEPT = 200
_SHOWN = 15
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
STEPS = ("checked", "prepared", "converted", "finished")


class Cause(NamedTuple):
    """What a line means, and what to do: an entry of configs/msmodelslim_failures.yaml."""

    pattern: str
    cause: str
    todo: str


_KILLED = Cause(
    "",
    "it was killed, most likely by the kernel because this machine ran out of memory",
    "dmesg | grep -i 'killed process'; free -g; end what else runs here",
)


def convert(
    tool: Tool, source: Path, folder: Path, environment: Mapping[str, str], log_file: Path
) -> None:
    """Fill an empty folder. Raises ActionError with the last lines and the likely cause."""
    words = msmodelslim_tool.command(tool, source, folder)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    lines: deque[str] = deque(maxlen=_KEPT)

    def heard(line: str) -> None:
        if line.strip():
            lines.append(line)
            if bars.show(line):
                log.say(line)

    def size() -> str:
        count, written = headers.written(folder)
        return f"{count} weight files, {written / 2**30:.1f} GiB written"

    bars = Bars(_BAR_EVERY_S)
    with log.recording(log_file):
        progress = Progress(log.say, _SIGN_EVERY_S, name="msmodelslim")
        progress.step(f"converting; all it says is in {log_file}")
        log.say(msmodelslim_tool.shown(tool, source, folder, environment))
        with progress.watched(size):
            code = run.stream(words, heard, env=environment, cwd=tool.script.parent, redrawn=True)
        log.say(f"msmodelslim: ended with status {code} after {progress.elapsed:.0f} s, {size()}")
    if code:
        raise failure(list(lines), code, log_file)
    wrong = problems(source, folder)
    if wrong:
        raise ActionError(
            f"msmodelslim ended well, but its result is not whole: {'; '.join(wrong)}.",
            where=str(folder),
            todo=f"read {log_file}; the same command again starts the conversion anew",
        )


class Bars:
    """Which lines to show: all, but of a progress bar that is redrawn only now and then."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._shown = float("-inf")

    def show(self, line: str) -> bool:
        """Whether to show this line now. A full bar is always shown."""
        if not _BAR.search(line) or "100%|" in line:
            return True
        if time.monotonic() - self._shown < self._every_s:
            return False
        self._shown = time.monotonic()
        return True


def failure(lines: list[str], code: int, log_file: Path) -> ActionError:
    """The error that says how the tool died."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    shown = "\n".join(f"    {line}" for line in lines[-_SHOWN:])
    cause = likely(lines, code)
    text = f"msmodelslim {how}. Its last lines:\n{shown}"
    if cause:
        text += f"\n  Likely cause: {cause.cause}."
    todo = f"{cause.todo}; then" if cause else f"read {log_file}; then"
    return ActionError(text, todo=f"{todo} the same command again, which starts this step anew")


def likely(lines: Sequence[str], code: int) -> Optional[Cause]:
    """The likely cause: the last line that says something known, else what the exit status says."""
    import yaml  # late: only a failure needs it

    text = (PROJECT / "configs" / "msmodelslim_failures.yaml").read_text(encoding="utf-8")
    known = [Cause(**entry) for entry in yaml.safe_load(text)]
    for line in reversed(lines):
        for cause in known:
            if re.search(cause.pattern, line):
                return cause
    return _KILLED if code in (-9, 137) else None


def problems(source: Path, folder: Path) -> list[str]:
    """Why a folder is no conversion of this source; the source may be gone. Empty: it is one.

    Asks for what every result must have, from headers alone, and not for each name and dtype:
    nothing is published about those, and a guess must not refuse what took hours. Those are
    verify_weights.py's business.
    """
    found = headers.problems(folder)
    if found:
        return found
    tensors: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors.update(headers.read_header(shard)[0])
    return [*_scales(tensors), *_lost_layers(tensors, max(layers(source), layers(folder)))]


def layers(folder: Path) -> int:
    """How many layers a checkpoint's config.json counts; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(regular.parsed(folder / "config.json")["num_hidden_layers"])
    return 0


def _scales(tensors: dict[str, Tensor]) -> list[str]:
    """Each int8 matrix needs a scale for each of its rows; and there must be some."""
    matrices = [one for one in tensors.values() if one.dtype == "I8" and len(one.shape) == 2]
    if not matrices:
        return ["no matrix is int8: nothing was quantised"]
    bare = [one.name for one in matrices if _rows(tensors, f"{one.name}_scale") != one.shape[0]]
    if not bare:
        return []
    return [f"{len(bare)} of {len(matrices)} int8 matrices have no scale for each row: {bare[0]}"]


def _rows(tensors: dict[str, Tensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors and tensors[name].shape else 0


def _lost_layers(tensors: dict[str, Tensor], count: int) -> list[str]:
    there = {int(match[1]) for match in map(_LAYER.match, tensors) if match}
    lost = sorted(set(range(count)) - there)
    return [f"of {count} layers these have no tensor: {', '.join(map(str, lost))}"] if lost else []


@dataclass
class State:
    """The steps done for one result, with what they were done with (fingerprint).

    Kept beside it, so that a second run goes on. partial: whether the folder for the result was
    made by us. changed: inputs for which steps are done anew; not kept.
    """

    path: Path
    fingerprint: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    partial: bool = False
    changed: list[str] = field(default_factory=list)

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
    changes = edits.plan(places.source, edits.before())
    say(edits.told(changes, would=False))
    edits.apply(changes)
    state.mark("prepared")
    _empty(places, state)
    convert(tool, places.source, places.partial, looked.environment, places.log)
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
        changes = edits.plan(places.source, edits.before())
        lines += [edits.told(changes, would=True), ""]
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
    return layers(source) or edits.LAYERS


def _fingerprint(places: _Places, tool: Tool) -> dict[str, str]:
    made = {"the source's place": str(places.source)}
    if places.source.is_dir():
        made.update({f"source/{k}": v for k, v in headers.fingerprint(places.source).items()})
    made["quant script"] = headers.digest(tool.script)
    given: dict[str, Any] = {"flags": tool.flags, "env": sorted(tool.env.items())}
    for name, value in given.items():
        # A value may be nobody's business; whether it is another is all that is asked.
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        made[f"weights.msmodelslim.{name}"] = digest
    return made


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
    problems = headers.problems(places.out)
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
        found = problems(places.source, places.partial)
        if found:
            raise ActionError(
                f"it was converted, but now: {'; '.join(found)}.",
                where=str(places.partial),
                todo="remove it, then the same command again",
            )
        finishing = edits.after(_layers(places.source))
        changes = edits.plan(places.partial, finishing)
        say(edits.told(changes, would=False))
        edits.apply(changes)
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
