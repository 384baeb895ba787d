"""vLLM's own argument parsers, asked by tests: those of omni-infer's release, of the CPU engine,
and of vllm-ascend's release with that plugin's checks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

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
NPU_PROGRAM = TESTS / "parser" / "check_npu_lines.py"
DESCRIPTION_PROGRAM = TESTS / "parser" / "read_description.py"
NPU_PINS = TESTS / "vllm-0.23.0-requirements.txt"
NPU_VENV = TESTS.parent / "build" / "parser-0.23.0"
# Kernels are two thirds of the packages, and nothing here computes.
KERNELS = ("vllm/*.so", "vllm_ascend/_cann_ops_custom", "vllm_ascend/*.so")
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


@dataclass(frozen=True)
class Question:
    """A line for vllm-ascend. environ: the server's variables, where its checks are asked too."""

    words: Sequence[str]
    environ: Optional[Mapping[str, str]] = None


@dataclass(frozen=True)
class NpuAnswers:
    """What vllm-ascend's environment said: versions, the parser's short flags, and of each line the
    answer and, if it was checked, what the engine would be configured as."""

    version: str
    plugin: str
    short_flags: dict[str, str]
    lines: list[Answer]
    engines: list[dict[str, Any]]


def _npu(python: Path, program: Path, asked: Any) -> Any:
    # The plugin writes logs and settings into its user's home.
    env = {**QUIET, "HOME": str(NPU_VENV / "home"), "VLLM_CACHE_ROOT": str(NPU_VENV / "cache")}
    done = run.run([python, program], env=env, cwd=PROGRAM.parent, stdin=json.dumps(asked))
    return json.loads(done.out)


def kinds_of_layers(
    python: Path, folder: Path, model_type: str, layers: Sequence[str]
) -> dict[str, str]:
    """How vllm-ascend computes each layer of a checkpoint, by the checkpoint's own description."""
    asked = {"folder": str(folder), "model_type": model_type, "layers": list(layers)}
    found: dict[str, str] = _npu(python, DESCRIPTION_PROGRAM, asked)
    return found


def ask_npu(python: Path, questions: Sequence[Question]) -> NpuAnswers:
    """Have vLLM and vllm-ascend read command lines, without an NPU. Takes many seconds."""
    asked = [{"words": list(q.words), "environ": q.environ and dict(q.environ)} for q in questions]
    got = _npu(python, NPU_PROGRAM, asked)
    answers = [Answer(a["accepted"], a["said"], a.get("values", {})) for a in got["answers"]]
    engines = [a.get("engine", {}) for a in got["answers"]]
    return NpuAnswers(got["version"], got["plugin"], got["short_flags"], answers, engines)


def install() -> Path:
    """The interpreter of the environment with vLLM 0.9.0's parser; made when it is not there."""
    return _made(VENV, PINS, None)


def install_npu(engine: Path) -> Path:
    """That of the environment with vLLM 0.23.0's parser and vllm-ascend's checks.

    engine: the CPU engine's, from which all packages come that are not in the lock file.
    """
    return _made(NPU_VENV, NPU_PINS, engine)


def _made(venv: Path, lock_file: Path, engine: Optional[Path]) -> Path:
    """An environment's interpreter; made when it is not there, or from another lock file."""
    packages = pins.read_lock(lock_file)
    stamp = venv / "pins.sha256"
    wanted = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    site = None
    if engine is not None:
        site = pins.site_packages(engine.parents[1], pins.PYTHON)
        wanted += f" {site}"
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / pins.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not stamp.exists() or stamp.read_text() != wanted:
            python = engine_python.find(None)
            progress = Progress(say, 5.0)
            steps.make_venv(python, venv, progress)  # from scratch: it takes a minute
            index = config.load("local").settings.engine.torch_index
            for step in steps.pip_steps(venv, packages, index):
                steps.run_pip(step, venv, python.version, len(packages), progress)
            if site is not None:
                _borrow(pins.site_packages(venv, python.version), site)
            stamp.write_text(wanted)
    return pins.python_of(venv)


def _borrow(own: Path, site: Path) -> None:
    """Take what is not in an environment from another, and drop what nobody loads."""
    for pattern in KERNELS:
        for path in own.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (own / "engine.pth").write_text(f"{site}\n")  # behind the environment's own packages


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
