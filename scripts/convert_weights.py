#!/usr/bin/env python3
"""Convert a DeepSeek-V3/R1 checkpoint (FP8, or bf16) to the W8A8 INT8 form that omni-infer loads.

Runs on any machine with the disk space: no NPU, no GPU. Reads the source, writes the target and
nothing else; the target appears under its name when all of it is written and checked, until then
it grows in TARGET.incomplete. A run that was cut is continued by the next; a second run says
"unchanged".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Look, compare, convert, report."""
    from omnikit.log import say
    from omnikit.weights import convert_dry, convert_records, convert_run
    from omnikit.weights.convert_faults import before_any_change
    from omnikit.weights.meter import Meter, duration, size_text

    began = time.monotonic() - time.process_time()  # with what Python's own start took
    config = load_config(options)
    source, target = _places(options, config.settings)
    if options.method == "msmodelslim":
        return _msmodelslim(options, config.settings, source, target)
    weights = config.settings.weights
    threads = options.threads or weights.threads or len(os.sched_getaffinity(0))
    with before_any_change(target):
        rest, total = _look(source, target)
    result: dict[str, Any] = {"source": str(source), "target": str(target), "source_bytes": total}
    if rest is None:
        if not options.dry_run:
            convert_records.forget(target)  # of a run that was cut right before its end
        return _report(options, {**result, "result": "unchanged"})
    conversion = rest.conversion
    result["target_bytes"] = conversion.size
    device = _device(options.device or weights.device)

    def load() -> tuple[Any, float]:
        return _load(device, conversion.block, began)

    if options.dry_run:
        return convert_dry.run(rest, result, load, threads, options.json)
    if rest.needed > rest.free:
        raise convert_dry.no_space(rest)
    files = len(conversion.checkpoint.shards)
    say(f"{source}: {size_text(total)} in {files} files, {threads} threads")
    load()  # before the meter starts: its first rate would be far too low
    meter = Meter(sum(piece.source.size for new in conversion.shards for piece in new.pieces), say)
    convert_run.run(conversion, target, threads, meter, _convert(device))
    say(f"converted in {duration(meter.seconds)}")
    return _report(options, {**result, "seconds": round(meter.seconds, 3), "result": "converted"})


def _look(source: Path, target: Path) -> tuple[Any, int]:
    """What is still to be done, None: nothing; and the source's bytes."""
    from omnikit.weights import (
        checkpoint,
        convert_actions,
        convert_places,
        convert_plan,
        convert_records,
    )

    conversion = convert_plan.plan(checkpoint.read(source))
    convert_places.check_places(source, target)
    total = sum(conversion.checkpoint.sizes.values())
    if convert_records.finished(target, conversion):
        return None, total
    return convert_actions.look(conversion, target), total


def _places(options: argparse.Namespace, settings: Any) -> tuple[Path, Path]:
    """Source and target."""
    from omnikit.errors import InputError
    from omnikit.weights import convert_places

    source = options.source if options.source is not None else settings.weights.source
    if source is None:
        raise InputError(
            "no source is named.",
            where="weights.source",
            todo="--source FOLDER of the original checkpoint, or set weights.source",
        )
    target = options.target if options.target is not None else settings.weights.target
    target = settings.model.path if target is None else target
    place = convert_places.settled(_absolute(str(target), "--target"))
    return _absolute(str(source), "--source"), place


def _absolute(given: str, option: str) -> Path:
    """A folder as a whole path: "." has no name that another could be made of."""
    from omnikit.errors import InputError

    if not given:
        raise InputError("is empty.", where=option, todo=f"name a folder: {option} DIR")
    try:
        path = Path(given).expanduser().absolute()
    except RuntimeError as error:
        user = given.partition("/")[0]
        todo = f"write the whole path, or ./{given} for a folder of this name"
        raise InputError(
            f"there is no user {user}.", where=f"{option} {given}", todo=todo
        ) from error
    return path.resolve() if ".." in path.parts else path


def _msmodelslim(options: argparse.Namespace, settings: Any, source: Path, target: Path) -> int:
    """Ascend's own tool, as run_msmodelslim.py runs it."""
    from omnikit.log import say
    from omnikit.weights import msmodelslim_report, msmodelslim_run, msmodelslim_tool

    tool = msmodelslim_tool.of_settings(settings)
    act = msmodelslim_run.describe if options.dry_run else msmodelslim_run.run_msmodelslim
    return msmodelslim_report.shown(act(source, target, tool, say), source, target, options.json)


def _device(name: str) -> Any:
    """What computes instead of the processor, None: it does. Raises InputError: it cannot."""
    if name == "cpu":
        return None
    from omnikit.weights import convert_torch

    return convert_torch.arithmetic(name)


def _load(device: Any, block: Any, began: float) -> tuple[Any, float]:
    """The arithmetic, ready; and the seconds since began, without those of a first run alone."""
    if device is not None:
        return device, time.monotonic() - began
    # Late: numba takes time to import.
    from omnikit.weights import kernels

    imported = time.monotonic() - began
    kept = kernels.warm(block)
    return kernels, imported if kept else time.monotonic() - began


def _convert(device: Any) -> Any:
    """What converts rows."""
    from omnikit.weights import convert_rows

    if device is None:
        return convert_rows.convert
    from omnikit.weights import convert_torch

    return convert_torch.converter(device)


def _report(options: argparse.Namespace, result: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{result['target']}: {result['result']}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    example = "python scripts/convert_weights.py --source DeepSeek-R1 --target DeepSeek-R1-W8A8"
    made = cli.parser(__doc__ or "", example=example)
    add_config_options(made)
    made.add_argument(
        "--source", metavar="DIR", help="original checkpoint (default: weights.source)"
    )
    made.add_argument(
        "--target", metavar="DIR", help="result (default: weights.target, model.path)"
    )
    made.add_argument(
        "--method",
        choices=("native", "msmodelslim"),
        default="native",
        help="native: here, on any machine (default); msmodelslim: Ascend's own tool",
    )
    made.add_argument(
        "--threads", type=_count, metavar="N", help="default: weights.threads, all cores"
    )
    made.add_argument("--device", choices=("cpu", "cuda"), help="default: weights.device")
    made.add_argument(
        "--dry-run", action="store_true", help="sizes, actions and time, nothing more"
    )
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


def _count(text: str) -> int:
    count = cli.positive(text)
    if count > 1024:
        raise argparse.ArgumentTypeError(f"{text} is more than 1024")
    return count


if __name__ == "__main__":
    sys.exit(main())
