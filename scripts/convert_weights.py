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
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config

_MEASURED = ("read", "compute", "write")


def body(options: argparse.Namespace) -> int:
    """Look, compare, convert, report."""
    from omnikit.errors import InputError
    from omnikit.log import say
    from omnikit.weights import (
        checkpoint,
        convert_places,
        convert_plan,
        convert_records,
        convert_run,
    )
    from omnikit.weights.meter import Meter, duration, size_text

    config = load_config(options)
    weights = config.settings.weights
    source, target = _places(options, config.settings)
    if options.method == "msmodelslim":
        return _msmodelslim(options, config.settings, source, target)
    threads = options.threads or weights.threads or len(os.sched_getaffinity(0))
    conversion = convert_plan.plan(checkpoint.read(source))
    convert_places.check_places(source, target)
    total = sum(conversion.checkpoint.sizes.values())
    result: dict[str, Any] = {"source": str(source), "target": str(target), "source_bytes": total}
    result["target_bytes"] = conversion.size
    if convert_records.finished(target, conversion):
        if not options.dry_run:
            convert_records.forget(target)  # of a run that was cut right before its end
        return _report(options, {**result, "result": "unchanged"})
    needed, free = convert_places.space_needed(conversion, target)
    if needed > free and not options.dry_run:
        raise InputError(
            f"needs {size_text(needed)} more, {size_text(free)} are free.",
            where=str(target),
            todo="free some space, or choose another target",
        )
    if options.dry_run:
        result["actions"] = actions(conversion)
        result.update(_estimate(conversion, target, threads, needed, free))
        return _report(options, {**result, "result": "would be converted"})
    files = len(conversion.checkpoint.shards)
    say(f"{source}: {size_text(total)} in {files} files, {threads} threads")
    meter = Meter(sum(piece.source.size for new in conversion.shards for piece in new.pieces), say)
    convert_run.run(conversion, target, threads, meter, _convert(options.device or weights.device))
    say(f"converted in {duration(meter.seconds)}")
    return _report(options, {**result, "seconds": round(meter.seconds, 3), "result": "converted"})


def _places(options: argparse.Namespace, settings: Any) -> tuple[Path, Path]:
    """Source and target."""
    from omnikit.errors import InputError
    from omnikit.weights import convert_places

    source = options.source or settings.weights.source
    if source is None:
        raise InputError(
            "no source is named.",
            where="weights.source",
            todo="--source FOLDER of the original checkpoint, or set weights.source",
        )
    target = options.target or settings.weights.target or settings.model.path
    return Path(source).expanduser(), convert_places.settled(Path(target).expanduser())


def _msmodelslim(options: argparse.Namespace, settings: Any, source: Path, target: Path) -> int:
    """Ascend's own tool, as run_msmodelslim.py runs it."""
    from omnikit.log import say
    from omnikit.weights import msmodelslim_report, msmodelslim_run, msmodelslim_tool

    tool = msmodelslim_tool.of_settings(settings)
    act = msmodelslim_run.describe if options.dry_run else msmodelslim_run.run_msmodelslim
    return msmodelslim_report.shown(act(source, target, tool, say), source, target, options.json)


def _convert(device: str) -> Any:
    """What does the arithmetic."""
    from omnikit.weights import convert_rows

    if device == "cpu":
        return convert_rows.convert
    from omnikit.weights import convert_torch

    return convert_torch.converter(device)


def actions(conversion: Any) -> dict[str, int]:
    """How many tensors become what."""
    found: dict[str, int] = {}
    for shard in conversion.shards:
        for piece in shard.pieces:
            found[piece.what] = found.get(piece.what, 0) + 1
    return found


def _estimate(
    conversion: Any, target: Path, threads: int, needed: int, free: int
) -> dict[str, Any]:
    from omnikit.errors import InputError
    from omnikit.weights import convert_estimate

    above = next(folder for folder in target.absolute().parents if folder.is_dir())
    try:
        found = convert_estimate.measure(conversion, above, threads)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}.", where=str(above), todo="choose another target"
        ) from error
    return {"needed_bytes": needed, "free_bytes": free, "threads": threads, "estimate": found}


def _report(options: argparse.Namespace, result: dict[str, Any]) -> int:
    from omnikit.weights.meter import duration, size_text

    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    if "estimate" in result:
        found = result["estimate"]
        done = ", ".join(f"{count} tensors {what}" for what, count in result["actions"].items())
        sizes = [size_text(result[key]) for key in ("source_bytes", "target_bytes")]
        print(f"source: {sizes[0]}; result: {sizes[1]}")
        print(f"to do: {done}")
        space = [size_text(result[key]) for key in ("needed_bytes", "free_bytes")]
        print(f"space: {space[0]} needed, {space[1]} free")
        rates = ", ".join(f"{what} {size_text(found[what])}/s" for what in _MEASURED)
        took = f"about {duration(found['seconds'])} with {result['threads']} threads"
        print(f"time: {took} ({rates})")
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
    count = int(text)
    if not 1 <= count <= 1024:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 to 1024")
    return count


if __name__ == "__main__":
    sys.exit(main())
