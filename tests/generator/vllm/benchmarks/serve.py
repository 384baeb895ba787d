"""Stands where vLLM's load generator is, for what the real one cannot be told to do: answers that
fail in chosen ways, and its own failure. The slow tests use the real one, of both releases."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_cli_args(parser: argparse.ArgumentParser) -> None:
    names = ("base-url", "endpoint-type", "endpoint", "model", "tokenizer", "dataset-name", "seed")
    names += ("random-input-len", "random-output-len", "percentile-metrics", "metric-percentiles")
    for name in (*names, "result-dir", "result-filename"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--num-prompts", type=int)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--save-result", action="store_true")
    parser.add_argument("--ignore-eos", action="store_true")


def main(args: argparse.Namespace) -> None:
    if args.model == "bad-arguments":
        argparse.ArgumentParser(prog="driver.py").parse_args(["--temperature=0"])
    if args.model == "broken":
        raise ValueError("Initial test run failed")
    total = args.num_prompts
    for number in range(total + 1):
        sys.stderr.write(f"\r {number}/{total} [00:01<00:02]")  # without a line's end, like tqdm
    failing = {"half": total // 2, "none": total}.get(args.model, 0)
    good = total - failing
    result = {
        "completed": good,
        "duration": 2.0,
        "total_input_tokens": 8 * good,
        "total_output_tokens": 4 * good,
        "request_throughput": good / 2.0,
        "output_throughput": 2.0 * good,
        "total_token_throughput": 6.0 * good,
        "output_lens": [4] * good + [0] * failing,
        "ttfts": [0.1] * good + [0.0] * failing,
        "itls": [[0.01, 0.02, 0.03]] * good + [[]] * failing,
        "errors": [""] * good + ["Bad Gateway"] * failing,
    }
    for metric in ("ttft", "tpot", "itl", "e2el"):
        for which in ("mean", "p50", "p90", "p95", "p99"):
            result[f"{which}_{metric}_ms"] = 10.0 * args.max_concurrency if good else 0.0
    path = Path(args.result_dir) / args.result_filename
    path.write_text(json.dumps(result), encoding="utf-8")
