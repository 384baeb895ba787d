#!/usr/bin/env python3
"""Measure the conversion of weights against copying them, and against other ways to do it.

Makes an FP8 checkpoint of DeepSeek-R1's matrix sizes with random numbers, converts it on one core
and on all, and in the same run: cp of the same bytes, the same formula in torch, and the two-step
way over bf16 (both in the CPU engine's Python, build/engine-cpu or OMNIKIT_ENGINE__VENV); with
--llm-compressor also that tool. All read from the page cache and end when the result is on the
disk. Beside it: the start-up alone, on a tiny model, and cp on one core, which reads and writes
memory and computes nothing: the limit of memory. PYTHONPATH must name scripts/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
from safetensors import serialize_file
from timing import ROOT

from hostkit.base import cli, log

# A layer of DeepSeek-R1 with fewer experts, few words: nearly all of it is FP8, as there.
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 7168,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    "num_hidden_layers": 1,
    "first_k_dense_replace": 0,
    "num_attention_heads": 128,
    "n_shared_experts": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "quantization_config": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    },
}
# The least that has all of its tensors: what is left is the time of starting.
TINY = {"hidden_size": 128, "moe_intermediate_size": 128, "num_attention_heads": 1}
EXPERT = 3 * 7168 * 2048  # bytes
R1_BYTES = 689e9  # DeepSeek-R1's 163 files, as published


def make(folder: Path, shards: int, experts: int, **config: Any) -> int:
    """A checkpoint with so many experts in about so many files; returns the bytes of FP8."""
    from omnikit.weights.checkpoint import architecture

    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    told = {**CONFIG, "n_routed_experts": experts, **config}
    (folder / "config.json").write_text(json.dumps(told))
    tensors = architecture.tensors(told, folder)
    total = sum(prod(shape) for _, shape in tensors.values())
    weight_map: dict[str, str] = {}
    held: dict[str, Any] = {}
    made = before = 0
    for number, (name, (kind, shape)) in enumerate(tensors.items(), 1):
        made += prod(shape)
        is_fp8 = kind != architecture.PLAIN
        held.update(fp8(random, name, shape) if is_fp8 else plain(random, name, shape))
        if made * shards >= total * (before + 1) or number == len(tensors):
            before += 1
            file = f"model-{before:05}-of-{shards:06}.safetensors"
            weight_map.update(dict.fromkeys(held, file))
            serialize_file(held, str(folder / file), {"format": "pt"})
            held = {}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(prod(shape) for kind, shape in tensors.values() if kind != architecture.PLAIN)


def fp8(random: Any, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """A matrix of e4m3 and the scales of its blocks."""
    data = random.integers(0, 254, shape, dtype=np.uint8)
    data[(data & 127) == 127] = 0
    grid = [-(-size // 128) for size in shape]
    scales = random.uniform(1e-4, 3e-4, grid).astype(np.float32)
    return {
        name: {"dtype": "float8_e4m3fn", "shape": list(shape), "data": data.tobytes()},
        f"{name}_scale_inv": {"dtype": "float32", "shape": grid, "data": scales.tobytes()},
    }


def plain(random: Any, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """bf16 between 1 and 2."""
    data = random.integers(0x3F80, 0x4000, shape, dtype=np.uint16)
    return {name: {"dtype": "bfloat16", "shape": list(shape), "data": data.tobytes()}}


def engine_python() -> Path:
    """With torch."""
    return ROOT / os.environ.get("OMNIKIT_ENGINE__VENV", "build/engine-cpu") / "bin" / "python"


def resident_peak(pid: int) -> int:
    """Bytes that a process had in memory at most so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines.get("VmHWM", "0").split()[0]) * 1024


class Bench:
    """source: the FP8 checkpoint. Every measured command writes below folder, which is emptied."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.source = source
        self.out = folder / "out"

    def timed(self, *argv: object, cores: Optional[int] = None) -> tuple[float, int]:
        """Wall seconds and peak resident memory in bytes of a command."""
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        self.out.mkdir()
        words = [str(word) for word in argv]
        if cores is not None:
            words = ["taskset", "--cpu-list", f"0-{cores - 1}", *words]
        began = time.perf_counter()
        peak = 0
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # users have compiled modules
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, env=env) as running:
            # Not getrusage: that counts the memory of this process, too, from before the exec.
            while running.poll() is None:
                peak = max(peak, resident_peak(running.pid))
                time.sleep(0.01)
        taken = time.perf_counter() - began
        if running.returncode:
            raise subprocess.CalledProcessError(running.returncode, words)
        return taken, peak

    def copy(self, cores: Optional[int] = None) -> tuple[float, int]:
        """cp, and then all of it on the disk."""
        script = 'cp -r "$1" "$2" && sync -f "$2"'
        return self.timed("bash", "-c", script, "copy", self.source, self.out / "x", cores=cores)

    def native(
        self, cores: Optional[int] = None, source: Optional[Path] = None
    ) -> tuple[float, int]:
        """This toolkit's."""
        script = [sys.executable, "scripts/convert_weights.py", f"--source={source or self.source}"]
        return self.timed(*script, f"--target={self.out / 'x'}", cores=cores)

    def torch(self, way: str, cores: Optional[int] = None) -> tuple[float, int]:
        """benchmarks/torch_convert.py."""
        places = [self.out / "x"] if way == "one" else [self.out / "between", self.out / "x"]
        script = [engine_python(), "benchmarks/torch_convert.py", way, self.source]
        return self.timed(*script, *places, cores=cores)

    def llm_compressor(self, python: str, cores: int) -> tuple[float, int]:
        """benchmarks/llm_compressor.py."""
        script = [python, "benchmarks/llm_compressor.py", self.source, self.out / "x", cores]
        return self.timed(*script)


def kernel_rates() -> dict[str, float]:
    """Bytes of FP8 per second on one core, in memory: the kernel, with SHA-256, and a copy of the
    same bytes (read once, written once), which is as fast as memory allows.
    """
    import hashlib

    from omnikit.weights.convert import kernels

    rows, columns = 2048, 7168  # 14.7 MB: more than a core's cache
    random = np.random.default_rng(0)
    source = random.integers(0, 126, (rows, columns), dtype=np.uint8)
    target = np.empty(source.shape, np.int8)
    factors = np.ones((rows // 128, columns // 128), np.float32)
    scales = np.empty(rows, np.float32)

    def convert() -> None:
        kernels.quantise_fp8(source, factors, (128, 128), 0, target, scales)

    acts: dict[str, Callable[[], Any]] = {
        "kernel": convert,
        "sha256": lambda: hashlib.sha256(target.data.cast("B")).digest(),
        "copy": lambda: np.copyto(target, source.view(np.int8)),
    }
    found = {}
    for name, act in acts.items():
        act()
        times = []
        for _ in range(7):
            began = time.perf_counter()
            act()
            times.append(time.perf_counter() - began)
        found[name] = source.size / statistics.median(times)
    return found


def cast_errors() -> dict[str, list[float]]:
    """What is left when an engine has cast the scales to bf16: relative root mean square of the
    error, and the largest error in steps; of integers for exact scales, and of ours.
    """
    from omnikit.weights.convert import kernels
    from omnikit.weights.verify import numbers

    random = np.random.default_rng(0)
    sizes = random.uniform(0.01, 2, (2048, 1))
    words = numbers.to_bf16(random.normal(0, 1, (2048, 2048)) * sizes)
    value = numbers.from_bf16(words)
    exact = np.abs(value).max(axis=1, keepdims=True) / 127
    target, scales = np.empty(words.shape, np.int8), np.empty(len(words), np.float32)
    kernels.quantise_bf16(words, target, scales)
    integers = {"exact scales": np.rint(value / exact), "bf16 scales": target}
    found = {}
    for name, made in integers.items():
        kept = numbers.from_bf16(numbers.to_bf16(exact if "exact" in name else scales[:, None]))
        error = made * kept - value
        relative = float(np.sqrt((error**2).sum() / (value**2).sum()))
        found[name] = [relative, float(np.abs(error / exact).max())]
    return found


def body(options: argparse.Namespace) -> int:
    """All figures."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-weights-", dir=options.dir) as text:
        folder = Path(text)
        experts = max(1, (options.mib << 20) // EXPERT - 5)  # attention and the shared one: five
        size = make(folder / "source", options.shards, experts)
        make(folder / "tiny", 1, 1, **TINY)
        bench = Bench(folder, folder / "source")
        bench.native()  # compiles, and reads the source into memory
        acts: dict[str, Callable[[], tuple[float, int]]] = {
            "cp": bench.copy,
            f"convert_weights, {cores} cores": bench.native,
            "convert_weights, 1 core": lambda: bench.native(1),
            "cp, 1 core": lambda: bench.copy(1),
            "start-up, 1 core": lambda: bench.native(1, folder / "tiny"),
            f"torch, {cores} cores": lambda: bench.torch("one"),
            f"torch over bf16, {cores} cores": lambda: bench.torch("two"),
        }
        if options.llm_compressor:
            acts["llm-compressor"] = lambda: bench.llm_compressor(options.llm_compressor, cores)
        found: dict[str, list[tuple[float, int]]] = {}
        for run in range(options.runs):
            for name, act in acts.items():
                if run and name.startswith(("torch", "llm")):
                    continue  # minutes, and far from every bar
                found.setdefault(name, []).append(act())
                log.say(f"{name}: {found[name][-1][0]:.1f} s")
        many = folder / "many"
        make(many, options.shards * 4, experts)
        _, small = Bench(folder, many).native()
    result = {
        "bytes": size,
        "cores": cores,
        "seconds": {name: statistics.median(t for t, _ in all_) for name, all_ in found.items()},
        "peak_bytes": {name: max(m for _, m in all_) for name, all_ in found.items()},
        "peak_bytes_4x_shards": small,
        "rates": kernel_rates(),
        "after_cast": cast_errors(),
    }
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result, options.shards)
    return 0


def show(result: dict[str, Any], shards: int) -> None:
    """As tables, with the bars."""
    seconds, peaks, size = result["seconds"], result["peak_bytes"], result["bytes"]
    what = f"{size / 1e9:.2f} GB of FP8 in {shards} files"
    print(f"{what}, medians (torch, llm-compressor: one run), source in the page cache:")
    rates_of = {name: f"{size / taken / 1e9:.2f} GB/s" for name, taken in seconds.items()}
    rates_of["start-up, 1 core"] = "-"
    rows = [
        [name, f"{taken:.2f} s", rates_of[name], f"{peaks[name] / 1e6:.0f} MB"]
        for name, taken in seconds.items()
    ]
    print(log.table(rows, ["what", "time", "FP8 input", "peak memory"]))
    print(f"with four times as many files: peak {result['peak_bytes_4x_shards'] / 1e6:.0f} MB")
    rates = ", ".join(f"{name} {rate / 1e9:.2f} GB/s" for name, rate in result["rates"].items())
    print(f"one core, in memory: {rates}")
    for name, (relative, largest) in result["after_cast"].items():
        print(f"{name}, cast to bf16: relative RMS {relative:.6f}, at most {largest:.3f} steps")
    cp, ours, one, cp_one, start, _, two = list(seconds.values())[:7]
    estimate = R1_BYTES / (size / ours) / 60
    print(f"estimate for DeepSeek-R1's {R1_BYTES / 1e9:.0f} GB at this rate: {estimate:.0f} min")
    per_core = size / (one - start) / 1e9
    limit = one / cp_one
    bars = [
        ["against torch over bf16", f"{two / ours:.1f} times as fast", ">= 3", two / ours >= 3],
        [
            *("one core", f"{per_core:.2f} GB/s after its start; {limit:.2f} times cp on one core"),
            *(">= 0.5 GB/s, or <= 1.5 times", per_core >= 0.5 or limit <= 1.5),
        ],
        ["against cp", f"{ours / cp:.2f} times its time", "<= 2", ours / cp <= 2],
    ]
    if "llm-compressor" in seconds:
        ratio = seconds["llm-compressor"] / ours
        memory = peaks["llm-compressor"] / next(m for n, m in peaks.items() if "weights" in n)
        said = f"{ratio:.1f} times its time, {memory:.1f} times its memory"
        bars.append([*("llm-compressor against us", said, ">= 1 time", ratio >= 1)])
    table = [[*map(str, bar[:3]), "yes" if bar[3] else "NO"] for bar in bars]
    print(log.table(table, ["what", "measured", "bar", "held"]))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="invoke bench --only weights")
    made.add_argument("--mib", type=int, default=6144, metavar="N", help="of FP8 (default 6144)")
    made.add_argument("--shards", type=int, default=12, metavar="N", help="files (default 12)")
    made.add_argument("--runs", type=int, default=3, metavar="N", help="of each but torch (3)")
    made.add_argument("--llm-compressor", metavar="PYTHON", help="that has llm-compressor")
    made.add_argument("--dir", default=str(ROOT / "build"), help="disk to measure on (build/)")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
