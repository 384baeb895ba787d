#!/usr/bin/env python3
"""Put load on an environment and measure it: through the proxy, on one server, or at a URL.

Runs on the control host; the requests come from vLLM's own load generator ("vllm bench serve"),
here if the engine is here, else on the proxy's host, in a container where servers run in
containers. It always streams: without that there is no time to first token. Changes nothing, but
makes a folder with result.json (everything), result.csv (a row per run), pictures and the
generator's output. Exits 1 when a request failed.

TTFT: time to first token. TPOT: mean time per further token of an answer. ITL: between two tokens.
Another --seed sends other prompts: the same ones may be answered out of the prefix cache.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Callable

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least so much."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return int(text)

    return read


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 with commas between."""
    return tuple(map(whole(1), text.split(",")))


def rates(text: str) -> tuple[float, ...]:
    """Numbers above 0 with commas between."""
    made = []
    for part in text.split(","):
        try:
            made.append(float(part))
        except ValueError:
            made.append(math.nan)
        if not 0 < made[-1] < math.inf:
            raise argparse.ArgumentTypeError(f"{part!r} is no number above 0")
    return tuple(made)


def body(options: argparse.Namespace) -> int:
    """Check, measure, print."""
    from datetime import datetime

    from hostkit.base.log import say
    from omnikit.config.layers import shown_path
    from omnikit.load import levels as load_options
    from omnikit.load import measurement, results, targets
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=not options.url)
    wanted = config.settings.benchmark
    alone = options.rate and not options.concurrency
    load = load_options.Load(
        levels=load_options.levels(
            options.concurrency or (() if alone else tuple(wanted.concurrency)), options.rate or ()
        ),
        input_tokens=options.input or wanted.input_tokens,
        output_tokens=options.output or wanted.output_tokens,
        requests=options.requests or wanted.requests,
        warmups=wanted.warmups if options.warmups is None else options.warmups,
        seed=options.seed,
        chat=options.chat,
    )
    load_options.refuse(wanted.generator, load)
    others = [results.read(path) for path in options.compare]
    plan = make_plan(config)
    target = targets.find(
        config,
        plan,
        instance=options.instance,
        url=options.url,
        model=options.model,
        tokenizer=options.tokenizer,
    )
    with targets.find_place(config, plan, target) as place:
        if options.dry_run:
            words = measurement.arguments(wanted.generator, target, load)
            made = {"url": target.url, "runs_on": place.name, "command": place.shown(words)}
            print(json.dumps(made, indent=1) if options.json else place.shown(words))
            return 0
        targets.check(config, target, load, ours=options.url is None)
        targets.check_place(place, target)
        began = datetime.now()
        into = measurement.folder(config, options.out, began)
        result = measurement.measure(config, target, load, place, into, began)
    if options.json:
        shown = {"folder": str(into), **results.without_raw(result)}
        print(json.dumps(shown, indent=1), flush=True)
    else:
        print(f"{target.name}: {target.model} at {target.url}, load from {place.name}")
        print(f"{load.input_tokens} tokens in, {load.output_tokens} out, seed {load.seed}\n")
        text = results.as_text(result, others)
        print(f"{text}\n\nall of it: {shown_path(into)}", flush=True)
    measurement.finish(into, result, others)
    if results.ok(result):
        return 0
    why = f"no request was answered: {result['cause']}" if result["cause"] else "requests failed"
    why = str(result["cause"]) if result.get("generator_failed") else why
    say(f"error: {target.url}: {why}")
    say(f"  What to do: {measurement.remedy(result, into)}")
    return 1


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    group = made.add_argument_group("who is asked")
    who = group.add_mutually_exclusive_group()
    who.add_argument("--instance", metavar="NAME", help="this server alone, for example d0")
    who.add_argument("--url", metavar="URL", help="a server at http://HOST:PORT")
    group.add_argument("--model", metavar="NAME", help="default: model.served_name")
    group.add_argument("--tokenizer", metavar="DIR", help="its folder (default: model.path)")
    group = made.add_argument_group("the load (defaults: the settings of benchmark)")
    group.add_argument(
        "--concurrency", type=numbers, metavar="N,…", help="requests at the same time; a run each"
    )
    group.add_argument(
        "--rate", type=rates, metavar="N,…", help="requests per second, at random; a run each"
    )
    group.add_argument("--input", type=whole(1), metavar="N", help="tokens of each request")
    group.add_argument("--output", type=whole(2), metavar="N", help="tokens of each answer")
    group.add_argument("--requests", type=whole(1), metavar="N", help="requests of each run")
    group.add_argument(
        "--warmups", type=whole(0), metavar="N", help="requests before the first run"
    )
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of prompts and times")
    group.add_argument("--chat", action="store_true", help="chat completions")
    made.add_argument(
        "--compare",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an earlier result.json, or its folder, to be shown beside (repeatable)",
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the folder is made (default: build/control/NAME/benchmarks)",
    )
    add(made, dry_run="show the command, send nothing", json="print the figures as JSON")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/benchmark_serving.py --concurrency 1,4,16 --input 512 --output 128",
)


if __name__ == "__main__":
    sys.exit(main())
