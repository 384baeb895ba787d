#!/usr/bin/env python3
"""Convert a checkpoint (FP8, or bf16) to W8A8 INT8, in the format that the engine loads.

Of DeepSeek V3, R1, V3.1, V3.2, Kimi-K2, GLM-4.5, GLM-5 and Qwen3-MoE. --format compressed-tensors
(omni-infer, vLLM) or ascend_v1 (msmodelslim's, for vllm-ascend); a source that is W8A8 already gets
the other format: files that are the same in both become hard links, nothing is computed.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hostkit.base import cli
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Look, compare, convert, report."""
    from hostkit.base.log import duration, say, size_text
    from omnikit.weights.convert import dry as convert_dry
    from omnikit.weights.convert import records as convert_records
    from omnikit.weights.convert import run as convert_run
    from omnikit.weights.convert.records import before_any_change
    from omnikit.weights.meter import Meter

    began = time.monotonic() - time.process_time()  # with what Python's own start took
    with ThreadPoolExecutor(1) as beside:
        # While settings are read: most of it is LLVM's work, outside Python's lock.
        ready = beside.submit(_load) if options.method == "native" else None
        config = load_config(options)
        source, target = _places(options, config.settings)
    if ready is None:
        return _msmodelslim(options, config.settings, source, target)
    weights = config.settings.weights
    threads = options.threads or weights.threads or len(os.sched_getaffinity(0))
    wanted = options.format or weights.format
    with before_any_change(target):
        rest, total = _look(source, target, wanted)
    result: dict[str, Any] = {"source": str(source), "target": str(target), "source_bytes": total}
    result["format"] = wanted
    if rest is None:
        if not options.dry_run:
            convert_records.forget(target)  # of a run that was cut right before its end
        return _report(options, {**result, "result": "unchanged"})
    conversion = rest.conversion
    result["target_bytes"] = conversion.size

    ready.result()
    if options.dry_run:
        start = time.monotonic() - began
        return convert_dry.run(rest, result, start, threads, options.json)
    if rest.needed > rest.free:
        raise convert_dry.no_space(rest)
    files = len(conversion.checkpoint.shards)
    say(f"{source}: {size_text(total)} in {files} files, {threads} threads")
    verb = "repacked" if conversion.repacked else "converted"
    size = sum(piece.source.size for new in conversion.shards for piece in new.pieces)
    meter = Meter(size, say, verb)
    manifest = convert_run.run(conversion, target, threads, meter)
    say(f"{verb} in {duration(meter.seconds)}")
    say(_vouched(manifest["source"].get("published") or {}))
    result["source_published"] = manifest["source"].get("published")
    return _report(options, {**result, "seconds": round(meter.seconds, 3), "result": verb})


def _vouched(published: dict[str, Any]) -> str:
    """How much of the source is known to be as it was published."""
    count, of = published.get("as_published", 0), published.get("of", 0)
    if count:
        return f"source: {count} of {of} files of weights as published ({published['by']})"
    return (
        "source: no published hashes are there, so that a changed byte in it cannot be noticed"
        " (invoke download-weights records them; or put the hub's list there as SHA256SUMS)"
    )


def _look(source: Path, target: Path, format: str) -> tuple[Any, int]:
    """What is still to be done, None: nothing; and the source's bytes."""
    from hostkit.base.errors import InputError
    from omnikit.weights.checkpoint import headers, w8a8
    from omnikit.weights.convert import dry as convert_dry
    from omnikit.weights.convert import records as convert_records

    conversion = w8a8.plan(headers.read(source), format)
    convert_records.check_places(source, target)
    if conversion.repacked and w8a8.format_of(conversion.checkpoint) == format:
        raise InputError(
            f"is W8A8 in the format {format} already.",
            where=str(source),
            todo=f"use it as it is; for another format: --format {' or '.join(w8a8.FORMATS)}",
        )
    total = sum(conversion.checkpoint.sizes.values())
    if convert_records.finished(target, conversion):
        return None, total
    return convert_dry.look(conversion, target), total


def _places(options: argparse.Namespace, settings: Any) -> tuple[Path, Path]:
    """Source and target."""
    from hostkit.base.errors import InputError
    from omnikit.weights.convert import records

    source = options.source if options.source is not None else settings.weights.source
    if source is None:
        todo = "--source FOLDER of the original checkpoint, or set weights.source"
        ready = settings.weights.download.repository
        if ready:  # with no source, what comes from there is what is served
            todo = f"invoke download-weights gets it ready-made ({ready}); to convert: {todo}"
        raise InputError("no source is named.", where="weights.source", todo=todo)
    target = options.target if options.target is not None else settings.weights.target
    target = settings.model.path if target is None else target
    place = records.settled(_absolute(str(target), "--target"))
    return _absolute(str(source), "--source"), place


def _absolute(given: str, option: str) -> Path:
    """A folder as a whole path: "." has no name that another could be made of."""
    from hostkit.base.errors import InputError

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
    from hostkit.base.log import say
    from omnikit.weights.msmodelslim import run as msmodelslim_run
    from omnikit.weights.msmodelslim import tool as msmodelslim_tool

    tool = msmodelslim_tool.of_settings(settings)
    act = msmodelslim_run.describe if options.dry_run else msmodelslim_run.run_msmodelslim
    return msmodelslim_run.shown(act(source, target, tool, say), source, target, options.json)


def _load() -> None:
    """Make the arithmetic ready."""
    from omnikit.weights.convert import kernels  # late: LLVM takes time to load

    kernels.warm()


def _report(options: argparse.Namespace, result: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{result['target']}: {result['result']}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--source", metavar="DIR", help="original checkpoint (default: weights.source)"
    )
    made.add_argument(
        "--target", metavar="DIR", help="result (default: weights.target, model.path)"
    )
    made.add_argument(
        "--format",
        choices=("compressed-tensors", "ascend_v1"),
        help="of the result (default: weights.format, by engine)",
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
    add(made, "json", dry_run="sizes, actions and time, nothing more")


def _count(text: str) -> int:
    count = cli.positive(text)
    if count > 1024:
        raise argparse.ArgumentTypeError(f"{text} is more than 1024")
    return count


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/convert_weights.py --source DeepSeek-R1 --target DeepSeek-R1-W8A8",
)


if __name__ == "__main__":
    sys.exit(main())
