"""Expressions in Prometheus' language, as text. Pure.

The names are those of vLLM's /metrics, equal in 0.9.0 and 0.32.0 (vllm/v1/metrics/loggers.py);
those that differ are settings: metrics.* and monitoring.*.
"""

from __future__ import annotations

PREEMPTIONS = "vllm:num_preemptions_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
OUTPUT_TOKENS = "vllm:generation_tokens_total"
FINISHED = "vllm:request_success_total"
FIRST_TOKEN = "vllm:time_to_first_token_seconds"
END_TO_END = "vllm:e2e_request_latency_seconds"
QUEUED = "vllm:request_queue_time_seconds"
FAILED = "omnikit_proxy_failed_requests_total"  # of templates/proxy_metrics.js.j2


def labels(**matched: str) -> str:
    """Labels that must be equal.

    >>> labels(role="decode")
    'role="decode"'
    """
    return ",".join(f'{name}="{value}"' for name, value in matched.items())


def series(name: str, *matchers: str) -> str:
    """A metric, which may carry labels of its own, with more labels.

    >>> series('a_total{source="x"}', 'role="decode"')
    'a_total{source="x",role="decode"}'
    """
    base, _, own = name.partition("{")
    given = [part for part in (own.rstrip("}"), *matchers) if part]
    return f"{base}{{{','.join(given)}}}" if given else base


def rate(name: str, window: str, *matchers: str) -> str:
    """How fast a counter grows, per second."""
    return f"rate({series(name, *matchers)}[{window}])"


def total(expression: str, *by: str) -> str:
    """The sum, one for each value of the labels.

    >>> total("x", "instance"), total("x")
    ('sum by (instance) (x)', 'sum(x)')
    """
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def quantile(share: float, histogram: str, window: str, *matchers: str) -> str:
    """The value that this share of a histogram stays below, for each instance."""
    grown = total(rate(f"{histogram}_bucket", window, *matchers), "le", "instance")
    return f"histogram_quantile({share:g}, {grown})"
