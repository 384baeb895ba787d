"""A load as it is asked for, and the words that vLLM's load generator wants for it. Pure.

Sources: vllm/benchmarks/serve.py of vLLM 0.9.0 and of 0.32.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from hostkit.access.service import Service
from hostkit.base.errors import InputError

PERCENTILES = (50, 90, 95, 99)
METRICS = ("ttft", "tpot", "itl", "e2el")  # the generator's names, in milliseconds
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True)
class Level:
    """How hard: concurrent requests at most (None: no limit), or requests per second (None: all
    as soon as they may)."""

    concurrency: Optional[int] = None
    rate: Optional[float] = None

    def __str__(self) -> str:
        words = [] if self.concurrency is None else [f"concurrency {self.concurrency}"]
        words += [] if self.rate is None else [f"{self.rate:g} requests/s"]
        return ", ".join(words)


@dataclass(frozen=True)
class Load:
    """What is sent. Lengths in tokens; requests and warm-up requests per level."""

    levels: tuple[Level, ...]
    input_tokens: int
    output_tokens: int
    requests: int
    warmups: int
    seed: int
    chat: bool


@dataclass(frozen=True)
class Target:
    """Who is asked. name: for people, for example "local" or "local d0"; tokenizer: a folder."""

    name: str
    service: Service
    model: str
    tokenizer: str
    trust_remote_code: bool = False

    @property
    def url(self) -> str:
        """Where it is."""
        return self.service.url


def levels(concurrency: tuple[int, ...], rates: tuple[float, ...]) -> tuple[Level, ...]:
    """The steps of a sweep: of concurrency, or of rates, then with one limit of concurrency at
    most.

    >>> [str(level) for level in levels((8,), (0.5, 2.0))]
    ['concurrency 8, 0.5 requests/s', 'concurrency 8, 2 requests/s']
    >>> [str(level) for level in levels((4, 4), ())]
    ['concurrency 4']
    """
    concurrency, rates = tuple(dict.fromkeys(concurrency)), tuple(dict.fromkeys(rates))
    if len(concurrency) > 1 and rates:
        raise InputError(
            f"found {len(concurrency)} values and a rate, expected one value beside a rate.",
            where="--concurrency",
            todo="sweep one of the two: several concurrencies, or several rates",
        )
    if not rates:
        return tuple(Level(number) for number in concurrency)
    limit = concurrency[0] if concurrency else None
    return tuple(Level(limit, rate) for rate in rates)


def arguments(generator: str, target: Target, load: Load, level: Level, index: int) -> list[str]:
    """The words of one level. generator: benchmark.generator.

    Each level has prompts of its own: with the same ones the second level would find its
    prompts in the prefix cache of the first.
    """
    common = _common(generator, target, load, level, seed=load.seed * 1000 + index + 1)
    shown = [f"--num-prompts={load.requests}", f"--percentile-metrics={','.join(METRICS)}"]
    shown.append(f"--metric-percentiles={','.join(map(str, PERCENTILES))}")
    return [*common, *shown]


def warm_up(generator: str, target: Target, load: Load) -> list[str]:
    """The words of the requests before the first level, whose times do not count."""
    level = Level(load.levels[0].concurrency or 1)
    common = _common(generator, target, load, level, seed=load.seed * 1000)
    return [*common, f"--num-prompts={load.warmups}"]


def refuse(generator: str, load: Load) -> None:
    """Raise InputError for what this release of the generator cannot do."""
    if load.chat and generator == "vllm-0.9":
        raise InputError(
            'the load generator of vLLM 0.9 sends completions only ("vllm bench serve").',
            where="--chat",
            todo="leave --chat out",
        )


def _common(generator: str, target: Target, load: Load, level: Level, seed: int) -> list[str]:
    if generator == "vllm-0.9":
        words = ["--endpoint-type=openai-comp"]
    else:
        # What 0.9 does anyway: ask for the likeliest token, save every request's times.
        words = [f"--backend={'openai-chat' if load.chat else 'openai'}"]
        words += ["--temperature=0", "--save-detailed"]
    words += [
        f"--base-url={target.url}",
        f"--endpoint={CHAT if load.chat else COMPLETIONS}",
        f"--model={target.model}",
        f"--tokenizer={target.tokenizer}",
        *(["--trust-remote-code"] if target.trust_remote_code else []),
        "--dataset-name=random",
        f"--random-input-len={load.input_tokens}",
        f"--random-output-len={load.output_tokens}",
        "--ignore-eos",
        f"--seed={seed}",
    ]
    words += [f"--max-concurrency={level.concurrency}"] if level.concurrency is not None else []
    return words + ([f"--request-rate={level.rate:g}"] if level.rate is not None else [])
