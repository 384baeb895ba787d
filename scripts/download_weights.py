#!/usr/bin/env python3
"""Download a model checkpoint: from ModelScope, Hugging Face, an HTTP address or a folder.

Runs on the machine that gets it. Every file is held against its published hash and appears under
its name when it is right; config.json comes last. A run that was cut, by whatever, is continued by
the next; a second run says "unchanged". Unfinished files lie in TARGET/.download.
Proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

_OPTIONS = ("source", "repository", "revision", "checksums", "include", "exclude", "workers")


def body(options: argparse.Namespace) -> int:
    """Ask the source, compare, fetch, report."""
    from hostkit.base.log import say
    from omnikit.config.config import read_secret
    from omnikit.weights.download.job import Job, download

    config = load_config(options)
    given = config.settings.weights.download
    changed = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name)}
    given = given.model_copy(update=changed)
    token = read_secret(given.token, "weights.download.token").strip() if given.token else None
    job = Job(
        _target(options, config.settings),
        given,
        token,
        verify=options.verify,
        replace=options.replace,
        dry_run=options.dry_run,
    )
    result = download(job, say)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _print(result)
    if not options.dry_run:
        what = "what it is and which engines load it"
        say(f"{what}: invoke check-checkpoint --path {result['target']}")
    return 0


def _target(options: argparse.Namespace, settings: Any) -> Path:
    from hostkit.base.errors import InputError
    from omnikit.weights.download.source import expanded

    named = options.target or settings.weights.source
    if named is None and settings.model.generate_seed is not None:
        raise InputError(
            "no target is named, and model.path is the folder of the model that is made here.",
            where="weights.source",
            todo="--target FOLDER, or --environment of a model that is downloaded",
        )
    where = "--target" if options.target else "weights.source" if named else "model.path"
    return expanded(named or settings.model.path, where).absolute()


def _print(result: dict[str, Any]) -> None:
    from hostkit.base.log import duration, size_text, table

    if "needed_bytes" in result and result["dry_run"]:
        rows = [
            [one["name"], "?" if one["size"] is None else size_text(one["size"]), one["action"]]
            for one in result["files"]
        ]
        print(table(rows, ["file", "size", "to do"]))
        space = [size_text(result[key]) for key in ("needed_bytes", "free_bytes")]
        print(f"space: {space[0]} needed, {space[1]} free")
    if result["left_out"]:
        count, size = len(result["left_out"]), size_text(result["left_out_bytes"])
        print(f"left out by include and exclude: {count} files, {size}")
    if result["kept"]:
        print(f"changed here and kept (--replace fetches them again): {', '.join(result['kept'])}")
    if result["unpublished"]:
        files = f"{len(result['unpublished'])} of {len(result['files'])} files"
        print(f"no published hash: {files}, held against length and header alone")
    if result["stale"]:
        print(f"not in this source, left as they are: {', '.join(result['stale'])}")
    revision = f" at {result['revision']}" if result["revision"] else ""
    print(f"source: {result['source']}{revision}")
    took = ""
    if "seconds" in result:
        took = f", {size_text(result['fetched_bytes'])} in {duration(result['seconds'])}"
    total = size_text(result["total_bytes"])
    told = f"{result['result']}: {len(result['files'])} files, {total}{took}"
    print(f"{result['target']}: {told}")


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--source",
        metavar="SOURCE",
        help="modelscope, huggingface, an address, or a folder (default: weights.download.source)",
    )
    made.add_argument("--repository", metavar="OWNER/NAME", help="on that hub")
    made.add_argument("--revision", metavar="NAME", help="branch, tag or commit there")
    made.add_argument("--target", metavar="DIR", help="default: weights.source, else model.path")
    made.add_argument(
        "--include", action="append", metavar="PATTERN", help="only these files (repeatable)"
    )
    made.add_argument(
        "--exclude",
        action="append",
        metavar="PATTERN",
        help="not these, instead of weights.download.exclude (repeatable)",
    )
    made.add_argument("--checksums", metavar="FILE", help="as sha256sum writes it")
    made.add_argument("--workers", type=_workers, metavar="N", help="files at the same time")
    made.add_argument("--verify", action="store_true", help="read all files again")
    add(
        made,
        "json",
        replace="also files that no download of ours made",
        dry_run="files, sizes and space, fetch nothing",
    )


def _workers(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 64):
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 to 64")
    return int(text)


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/download_weights.py --source huggingface"
    " --repository deepseek-ai/DeepSeek-R1 --target DeepSeek-R1",
)


if __name__ == "__main__":
    sys.exit(main())
