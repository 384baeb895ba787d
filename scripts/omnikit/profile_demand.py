"""The load that a profile needs: how many requests, how long, how many at the same time. Pure.

A server records steps, not requests. A prompt is one step of a prefill server; an answer is as many
steps of a decode server as it has tokens, less the first. A decode server without a request takes
steps that omni-infer does not count (execute_dummy_batch): each of them needs a request of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Sequence

from omnikit.config import Config
from omnikit.plan_checks import flag, speculative_tokens
from omnikit.plan_types import NodePlan, Plan
from omnikit.schema import Settings

_SPARE = 2  # no proxy shares out requests evenly


@dataclass(frozen=True)
class Wave:
    """Requests sent at the same time, so many times, for the steps of servers of some roles."""

    roles: tuple[str, ...]
    concurrency: int
    times: int


@dataclass(frozen=True)
class Demand:
    """requests: at the most. waves: one after the other, and from the beginning again. words and
    output_tokens: of each request.
    """

    requests: int
    waves: tuple[Wave, ...]
    words: int
    output_tokens: int

    @property
    def concurrency(self) -> int:
        """Requests at the same time, at the most."""
        return min(self.requests, max(wave.concurrency for wave in self.waves))


def steps_each(settings: Settings) -> int:
    """Steps that a server must take: omni-infer ends its recording in the step after the last."""
    return settings.profiling.steps + 1


def threshold(settings: Settings) -> int:
    """Tokens of a step from which on it is recorded; engines that are told when have none."""
    return settings.profiling.token_threshold if settings.profiling.start == "steps" else 1


def demand(config: Config, plan: Plan, nodes: Sequence[NodePlan]) -> Demand:
    """The load with which these nodes record their steps. Raises InputError where no load can."""
    settings = config.settings
    wanted = settings.profiling
    roles = {node.role for node in nodes}
    # Where requests must meet in a step, answers are long: short ones are over before.
    meet = threshold(settings) > 1 and "decode" in roles
    output = wanted.output_tokens if meet else min(wanted.steps + 2, wanted.output_tokens)
    words = wanted.input_words
    if roles - {"decode"}:
        words = max(words, threshold(settings))
    _refuse_long(config, plan, words, output)
    for node in nodes:
        if node.role != "decode":
            _refuse_prompt(config, node)
    waves = [*_answers(config, plan, nodes, output), *_prompts(settings, plan, nodes)]
    needed = max(wave.concurrency * wave.times for wave in waves)
    return Demand(max(wanted.requests, _SPARE * needed), tuple(waves), words, output)


def _answers(config: Config, plan: Plan, nodes: Sequence[NodePlan], output: int) -> Iterator[Wave]:
    """For the steps of decode servers, or of co-located ones, all of which have work."""
    roles = tuple({node.role for node in nodes} - {"prefill"})
    servers = _servers(plan, nodes, roles)
    if servers:
        each = max([1, *(_at_once(config, n, servers) for n in nodes if n.role == "decode")])
        requests = servers * each * -(-steps_each(config.settings) // (output - 1))
        wide = _bounded(config.settings, servers * each)
        yield Wave(roles, wide, -(-requests // wide))


def _prompts(settings: Settings, plan: Plan, nodes: Sequence[NodePlan]) -> Iterator[Wave]:
    """For the steps of prefill servers: few at the same time, prompts that meet are one step."""
    servers = _servers(plan, nodes, ("prefill",))
    if servers:
        narrow = _bounded(settings, servers)
        yield Wave(("prefill",), narrow, -(-servers * steps_each(settings) // narrow))


def _servers(plan: Plan, nodes: Sequence[NodePlan], roles: Sequence[str]) -> int:
    """The servers that share the requests: through a proxy all of a role, chosen or not."""
    chosen = {node.role for node in nodes}.intersection(roles)
    sharing = plan.nodes if plan.proxy else nodes
    return sum(len(node.servers) for node in sharing if node.role in chosen)


def _bounded(settings: Settings, servers: int) -> int:
    wanted = settings.profiling
    return max(wanted.concurrency, min(servers, wanted.max_concurrency))


def _at_once(config: Config, node: NodePlan, servers: int) -> int:
    """Requests at the same time with which a step of a decode server reaches the threshold.

    Raises InputError where it cannot hold so many.
    """
    least = threshold(config.settings)
    tokens = 1 + speculative_tokens(node)
    needed = -(-least // tokens)
    share = max(1, config.settings.profiling.max_concurrency // servers)
    most = min(_number(node, "max-num-seqs") or share, share)
    if needed > most:
        raise config.error(
            f"a step of a decode server such as {node.name} never has {least} tokens: {tokens} for"
            f" each of at most {most} requests at the same time.",
            *("profiling", "token_threshold"),
            todo="a lower --token-threshold; prefill alone with this one: --role prefill; or more"
            " at the same time: profiling.max_concurrency, max-num-seqs of the servers",
        )
    return needed


def _refuse_long(config: Config, plan: Plan, words: int, output: int) -> None:
    """Raise InputError where a server does not take such a request: a word is a token at least."""
    limits = dict(_limits(plan))
    name = min(limits, key=lambda one: limits[one], default="")
    if name and words + 1 + output > limits[name]:
        longer = words > config.settings.profiling.input_words
        raise config.error(
            f"a request of the load has {words + 1} tokens at least, and its answer {output}; but"
            f" {name} takes {limits[name]} in all (max-model-len).",
            *("profiling", "token_threshold" if longer else "input_words"),
            todo="a lower --token-threshold"
            if longer
            else "lower profiling.input_words, or profiling.output_tokens",
        )


def _limits(plan: Plan) -> Iterator[tuple[str, int]]:
    for node in plan.nodes:
        length = _number(node, "max-model-len")
        if length is not None and node.servers:
            yield node.name, length


def _refuse_prompt(config: Config, node: NodePlan) -> None:
    """Raise InputError where no step of a server that computes prompts reaches the threshold."""
    most = _number(node, "max-num-batched-tokens")
    least = threshold(config.settings)
    if most is not None and least > most:
        raise config.error(
            f"a step of {node.name} never has {least} tokens: max-num-batched-tokens is {most}.",
            *("profiling", "token_threshold"),
            todo=f"--token-threshold {most} or less",
        )


def _number(node: NodePlan, name: str) -> Optional[int]:
    text = flag(node, name)
    return int(text) if text is not None and text.isdigit() else None
