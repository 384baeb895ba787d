#!/usr/bin/env python3
"""Verify a converted checkpoint: all tensors there, files unchanged, numbers as near as they must.

Runs on any machine that has the files. With --source it compares numbers: a sample, or all of them.
Knows what convert_weights.py makes and what msmodelslim makes. --loadable has the engine itself
load a small model of this architecture, converted, and compares log probabilities.
Changes nothing; --out DIR gets the report as JSON and a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config

_SHOWN = 20


def body(options: argparse.Namespace) -> int:
    """Verify and report."""
    from omnikit.log import say
    from omnikit.weights import verify

    config = load_config(options)
    weights = config.settings.weights
    target = Path(options.target or weights.target or config.settings.model.path).expanduser()
    source_text = options.source or weights.source
    source = Path(source_text).expanduser() if source_text else None
    threads = weights.threads or len(os.sched_getaffinity(0))
    sample = None if options.all else (options.matrices, options.rows)
    result = verify.verify(target, source, sample, threads, say)
    if options.loadable:
        from omnikit.weights import checkpoint, loadable

        python = options.python or _engine_python(config.settings)
        told = checkpoint.read_json(target / "config.json")
        result["loadable"] = loadable.check(told, python, threads, say)
        result["ok"] = result["ok"] and result["loadable"]["ok"]
    if options.out:
        _write(Path(options.out).expanduser(), result)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _print(result, source is not None)
    return 0 if result["ok"] else 1


def _engine_python(settings: Any) -> str:
    """Of the engine on this machine; where it has no environment of its own, as in containers, the
    python3 on PATH.
    """
    from omnikit.topology import resolve_path

    venv = settings.engine.venv
    return f"{resolve_path(venv, True)}/bin/python" if venv else "python3"


def _write(folder: Path, result: dict[str, Any]) -> None:
    from omnikit.errors import ActionError
    from omnikit.weights import verify_plot

    kinds = [kind for kind in result["kinds"] if kind["what"] == "quantised"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.json").write_text(json.dumps(result, indent=1) + "\n")
        if kinds:
            (folder / "weights.svg").write_text(verify_plot.errors(kinds, kinds[0]["bound"]))
    except OSError as error:
        raise ActionError(f"cannot be written: {error.strerror}.", where=str(folder)) from error


def _print(result: dict[str, Any], compared: bool) -> None:
    from omnikit.log import table

    if result["kinds"]:
        header = ["kind", "checked", "values", "max error", "mean error", "relative", "good"]
        print(table([_row(kind) for kind in result["kinds"]], header))
        print("errors in steps of the row's scale; relative: root mean square, of the values'")
    for problem in result["problems"][:_SHOWN]:
        print(f"problem: {problem}")
    if len(result["problems"]) > _SHOWN:
        print(f"and {len(result['problems']) - _SHOWN} more problems (--json shows all)")
    for kind in result["kinds"]:
        if kind["different"]:
            print(f"problem: not equal to the source: {kind['different']}")
        elif not kind["ok"]:
            print(f"problem: an error above {kind['bound']:.4f} steps: {kind['worst']}")
    if "loadable" in result:
        from omnikit.weights import loadable

        print("\n".join(loadable.as_lines(result["loadable"])))
    hashes = f"{result['hashes']} files as made" if result["hashes"] else "no hashes recorded"
    numbers = "" if compared else ", numbers not compared (name --source)"
    verdict = "good" if result["ok"] else "NOT GOOD"
    said = f"{result['form']}, {result['quantised']} of {result['tensors']} tensors int8"
    print(f"{result['target']}: {verdict}: {said}, {hashes}{numbers}")


def _row(kind: dict[str, Any]) -> list[str]:
    head = [kind["kind"], f"{kind['checked']} of {kind['matrices']}", f"{kind['values']:,}"]
    good = "yes" if kind["ok"] else "NO"
    if kind["what"] != "quantised":
        return [*head, "equal" if not kind["different"] else "different", "-", "-", good]
    errors = [kind["max_error_steps"], kind["mean_error_steps"], kind["relative_rms_error"]]
    return [*head, *(f"{error:.4f}" for error in errors), good]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    example = "python scripts/verify_weights.py --source DeepSeek-R1 --target DeepSeek-R1-W8A8"
    made = cli.parser(__doc__ or "", example=example)
    add_config_options(made)
    made.add_argument(
        "--source", metavar="DIR", help="what it was made of (default: weights.source)"
    )
    made.add_argument("--target", metavar="DIR", help="default: weights.target, else model.path")
    made.add_argument("--all", action="store_true", help="compare all numbers, not a sample")
    made.add_argument("--matrices", type=_count, default=8, metavar="N", help="of each kind (8)")
    made.add_argument("--rows", type=_count, default=64, metavar="N", help="of each matrix (64)")
    made.add_argument("--loadable", action="store_true", help="try it with the engine, small")
    made.add_argument(
        "--python", metavar="FILE", help="that has vLLM, for --loadable (default: the engine's)"
    )
    made.add_argument("--out", metavar="DIR", help="gets weights.json and weights.svg")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 or more")
    return count


if __name__ == "__main__":
    sys.exit(main())
