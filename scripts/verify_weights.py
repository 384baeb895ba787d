#!/usr/bin/env python3
"""Verify a converted checkpoint: all tensors there, files unchanged, numbers as near as they must.

Runs on any machine that has the files. Knows what convert_weights.py makes and what msmodelslim
makes. Always: every tensor's dtype and shape, every scale a number above 0, hashes where they are
recorded. With --source also the numbers: of each kind of matrix (--matrices) the scales of all rows
and the values of some (--rows), or of all (--all). --loadable has vLLM (or else transformers with
the compressed-tensors library) load a small model of this architecture, converted, and compares log
probabilities. Changes nothing; --out DIR gets the report as JSON and a picture.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional

from hostkit.base import cli
from hostkit.base.errors import ActionError, InputError, ToolkitError
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Look first whether all can be had, verify, report."""
    from hostkit.base.log import say
    from omnikit.weights.verify import verification

    config = load_config(options)
    weights = config.settings.weights
    target = Path(options.target or weights.target or config.settings.model.path).expanduser()
    source = _source(options.source, weights.source)
    threads = weights.threads or len(os.sched_getaffinity(0))
    sample = None if options.all else (options.matrices, options.rows)
    out = Path(options.out).expanduser() if options.out else None
    if out:
        verification.prepare(out)
    reader = None
    if options.loadable:
        from omnikit.weights.loadable import check as loadable

        reader = loadable.reader(options.python or _engine_python(config.settings))
    result = verification.verify(target, source, sample, threads, say)
    failure = _load(result, target, reader, threads, say) if reader else None
    if out:
        verification.write(out, result)
    said = verification.as_text(result, source is not None, _tried(result.get("loadable")))
    print(verification.as_json(result) if options.json else said)
    if failure:
        raise failure
    return 0 if result["ok"] else 1


def _source(named: Optional[str], setting: Optional[str]) -> Optional[Path]:
    """Raises InputError: there is none of that name."""
    text = named or setting
    if not text:
        return None
    source = Path(text).expanduser()
    if not source.is_dir():
        raise InputError(
            f"there is no such folder: {source}.",
            where="--source" if named else "weights.source",
            todo="name the checkpoint that the target was made of (--source), or leave it out",
        )
    return source


def _load(
    result: dict[str, Any], target: Path, reader: Any, threads: int, say: Callable[[str], None]
) -> Optional[ToolkitError]:
    """Try it, and add what came of it to the result; what went wrong is for later, for the
    verification's own findings are to be shown first.
    """
    from omnikit.weights.checkpoint import headers
    from omnikit.weights.loadable import check as loadable

    try:
        config = headers.read_json(target / "config.json")
        result["loadable"] = loadable.check(config, reader, threads, say)
        result["ok"] = result["ok"] and result["loadable"]["ok"]
        return None
    except ToolkitError as error:
        failure = error
    except OSError as error:
        failure = ActionError(
            f"small models cannot be written: {error.strerror}.",
            where=str(error.filename or tempfile.gettempdir()),
            todo="free some space there, or name another folder in TMPDIR",
        )
    result["loadable"] = {"ok": False, "error": failure.what}
    result["ok"] = False
    return failure


def _tried(told: Optional[dict[str, Any]]) -> list[str]:
    """What came of it, for a person."""
    from omnikit.weights.loadable import check as loadable

    if told is None:
        return []
    return [f"problem: {told['error']}"] if "error" in told else loadable.as_lines(told)


def _engine_python(settings: Any) -> str:
    """Of the engine on this machine; where it has no environment of its own, as in containers, the
    python3 on PATH.
    """
    from omnikit.config.layers import resolve_path

    venv = settings.engine.venv
    return f"{resolve_path(venv, True)}/bin/python" if venv else "python3"


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--source", metavar="DIR", help="what it was made of (default: weights.source)"
    )
    made.add_argument("--target", metavar="DIR", help="default: weights.target, else model.path")
    made.add_argument("--all", action="store_true", help="compare all numbers, not a sample")
    made.add_argument(
        "--matrices", type=cli.positive, default=8, metavar="N", help="of each kind (8)"
    )
    made.add_argument(
        "--rows", type=cli.positive, default=64, metavar="N", help="of each matrix (64)"
    )
    made.add_argument("--loadable", action="store_true", help="try it with the engine, small")
    made.add_argument(
        "--python", metavar="FILE", help="what --loadable uses (default: the engine's)"
    )
    made.add_argument("--out", metavar="DIR", help="gets weights.json and weights.svg")
    add(made, "json")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/verify_weights.py --source DeepSeek-R1 --target DeepSeek-R1-W8A8",
)


if __name__ == "__main__":
    sys.exit(main())
