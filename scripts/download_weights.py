#!/usr/bin/env python3
"""Download a model from ModelScope, Hugging Face, a web server or a folder, whole and checked.

Runs on any machine; writes below --target only. Files are fetched side by side, go on where a cut
left them, are checked against published sizes and hashes, and only then get their names. A second
run fetches what is missing or has changed there, else says "unchanged".
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Ask, compare, fetch, report."""
    from omnikit.log import say
    from omnikit.weights import download_run, download_sources
    from omnikit.weights.download_fetch import Fetcher
    from omnikit.weights.meter import duration, size_text

    config = load_config(options)
    settings = config.settings.weights.download
    origin_text, target = _places(options, config.settings)
    sums = Path(options.checksums).expanduser() if options.checksums else None
    origin = download_sources.find(origin_text, _access(settings, options.revision), sums)
    include = options.include or settings.include
    files = download_run.chosen(origin.files, include, [*settings.exclude, *options.exclude])
    need = download_run.look(target, files, options.verify)
    result: dict[str, Any] = {"origin": origin.shown, "target": str(target), "files": len(files)}
    result["fetched"] = len(need.todo)
    result["bytes"] = need.bytes
    if options.dry_run:
        result["names"] = {one.name: one.size for one in need.todo}
        return _report(
            options, {**result, "result": "would be fetched" if need.todo else "unchanged"}
        )
    if need.todo:
        download_run.check_space(target, need)
        hashes = sum(one.sha256 is not None for one in need.todo)
        say(
            f"{origin.shown}: {len(need.todo)} of {len(files)} files, {size_text(need.bytes)},"
            f" {hashes} with a published hash"
        )
        meter = download_run.meter(need, say)
        fetcher = Fetcher(
            headers=origin.headers,
            attempts=settings.attempts,
            delay_s=settings.delay_s,
            timeout_s=settings.timeout_s,
            stop=threading.Event(),
            on_bytes=meter.add,
            say=say,
        )
        workers = options.workers or settings.workers
        download_run.run(origin, target, need, workers, fetcher)
        say(f"downloaded in {duration(meter.seconds)}")
    if not include and not options.exclude and not settings.exclude:
        result["shards"] = download_run.check_whole(target)
    return _report(options, {**result, "result": "downloaded" if need.todo else "unchanged"})


def _places(options: argparse.Namespace, settings: Any) -> tuple[str, Path]:
    """Origin and target."""
    from omnikit.errors import InputError

    origin = options.origin or settings.weights.download.origin
    target = options.target or settings.weights.source
    if origin is None:
        raise InputError(
            "no origin is named.",
            where="weights.download.origin",
            todo="--origin modelscope:deepseek-ai/DeepSeek-R1, hf:ORG/NAME, https://… or a folder",
        )
    if target is None:
        raise InputError("no target is named.", where="weights.source", todo="--target FOLDER")
    return origin, Path(target).expanduser()


def _access(settings: Any, revision: Optional[str]) -> Any:
    from omnikit.config import read_secret
    from omnikit.weights.download_sources import Access

    token = read_secret(settings.token, "weights.download.token") if settings.token else None
    return Access(revision or settings.revision, settings.endpoint, token, settings.timeout_s)


def _report(options: argparse.Namespace, result: dict[str, Any]) -> int:
    from omnikit.weights.meter import size_text

    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    for name, size in result.get("names", {}).items():
        print(f"{name}  {size_text(size) if size is not None else 'size not known'}")
    if result.get("names"):
        print(f"{result['fetched']} of {result['files']} files, {size_text(result['bytes'])}")
    whole = f", all {result['shards']} files of its index" if result.get("shards") else ""
    print(f"{result['target']}: {result['result']}{whole}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    example = "python scripts/download_weights.py --origin modelscope:deepseek-ai/DeepSeek-R1 \\\n"
    made = cli.parser(__doc__ or "", example=f"{example}    --target /data/models/DeepSeek-R1")
    add_config_options(made)
    made.add_argument(
        "--origin", metavar="FROM", help="hf:ORG/NAME, modelscope:ORG/NAME, http(s)://… or a folder"
    )
    made.add_argument(
        "--target", metavar="DIR", help="folder of the model (default: weights.source)"
    )
    made.add_argument("--revision", metavar="REV", help="branch, tag or commit")
    made.add_argument("--checksums", metavar="FILE", help="hashes as sha256sum writes them")
    made.add_argument("--include", action="append", default=[], metavar="GLOB", help="only these")
    made.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="not these")
    made.add_argument("--workers", type=_count, metavar="N", help="files at the same time")
    made.add_argument("--verify", action="store_true", help="read files that are there again")
    made.add_argument("--dry-run", action="store_true", help="show what would be fetched")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 to 64")
    return count


if __name__ == "__main__":
    sys.exit(main())
