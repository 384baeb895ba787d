"""The settings of what measures: load tests, and what Prometheus and Grafana are told."""

from __future__ import annotations

from typing import Annotated, List, Literal

from pydantic import Field

from omnikit.schema_base import Strict
from omnikit.setting_types import Count, Line


class Benchmark(Strict):
    generator: Literal["vllm-0.9", "vllm-0.32"]
    concurrency: Annotated[List[Count], Field(min_length=1)]
    input_tokens: Count
    output_tokens: Count
    requests: Count
    warmups: Annotated[int, Field(ge=0)]


class Monitoring(Strict):
    scrape_interval_s: Count
    down_s: Count
    window_s: Count
    queue: Annotated[int, Field(ge=0)]
    kv_usage: Annotated[float, Field(gt=0, le=1)]
    token_gap: Line
    prefix_queries: Line
    prefix_hits: Line
