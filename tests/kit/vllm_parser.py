"""vLLM's own argument parsers, asked by tests: that of omni-infer's release, the CPU engine's."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from hostkit.base import run
from hostkit.base.log import say
from omnikit.config import config
from omnikit.engine import install as engine_python
from omnikit.engine import install as steps
from omnikit.engine import pins
from omnikit.engine.progress import Progress

TESTS = Path(__file__).resolve().parents[1]
PROGRAM = TESTS / "parser" / "read_arguments.py"
PINS = TESTS / "vllm-0.9.0-requirements.txt"
VENV = TESTS.parent / "build" / "parser-0.9.0"
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Answer:
    """What a parser made of one command line. said: its words of refusal."""

    accepted: bool
    said: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """A parser's vLLM version, and its answers in the order of the questions."""

    version: str
    lines: list[Answer]


def ask(python: Path, lines: Sequence[Sequence[str]]) -> Answers:
    """Have a vLLM read command lines. Takes many seconds, however few the lines are."""
    # Not in the project's folder: what lies there must not be imported.
    done = run.run([python, PROGRAM], env=QUIET, cwd=PROGRAM.parent, stdin=json.dumps(lines))
    got = json.loads(done.out)
    answers = [Answer(a["accepted"], a["said"], a.get("values", {})) for a in got["answers"]]
    return Answers(got["version"], answers)


def install() -> Path:
    """The interpreter of the environment with vLLM 0.9.0's parser; made when it is not there."""
    packages = pins.read_lock(PINS)
    stamp = VENV / "pins.sha256"
    wanted = hashlib.sha256(PINS.read_bytes()).hexdigest()
    VENV.mkdir(parents=True, exist_ok=True)
    with (VENV / pins.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not stamp.exists() or stamp.read_text() != wanted:
            python = engine_python.find(None)
            progress = Progress(say, 5.0)
            steps.make_venv(python, VENV, progress)  # from scratch: it takes a minute
            index = config.load("local").settings.engine.torch_index
            for step in steps.pip_steps(VENV, packages, index):
                steps.run_pip(step, VENV, python.version, len(packages), progress)
            stamp.write_text(wanted)
    return pins.python_of(VENV)


def misread(words: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Flags whose value is not what the words say, as text.

    The parsers let more pass than one thinks: a flag's beginning counts as the flag, and of some
    flags broken JSON becomes a text. A flag must be known by its whole name, with its own value.
    """
    wrong = []
    for flag, given in flags(words).items():
        name = flag.replace("-", "_")
        expected: Any = True if not given else given[0] if len(given) == 1 else given
        if name.startswith("no_") and not given:
            name, expected = name[len("no_") :], False
        got = values.get(name, "nothing of that name")
        if isinstance(expected, str) and expected.startswith("{"):
            got_part = {k: got.get(k) for k in _loads(expected)} if isinstance(got, dict) else got
            same = got_part == _loads(expected)
        elif isinstance(expected, str) and NUMBER.fullmatch(expected):
            same = type(got) in (int, float) and got == float(expected)
        else:
            same = got in (expected, [expected])
        if not same:
            wrong.append(f"--{flag} {expected}: understood was {got!r}")
    return wrong


def flags(words: Sequence[str]) -> dict[str, list[str]]:
    """The flags of a command line and the words that follow each."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name] = [value] if value else []
        elif found:
            found[list(found)[-1]].append(word)
    return found


def _loads(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {"": text}  # no value is equal to this
