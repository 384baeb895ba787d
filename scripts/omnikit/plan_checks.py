"""Do prefill and decode get told things that fit together? Pure; run on every plan.

Each rule stands for a failure that otherwise shows late or never: a wrong answer, a hang, a crash
at the first full batch.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, Optional

from omnikit.config import Config
from omnikit.errors import ManyErrors, ToolkitError
from omnikit.plan_types import NodePlan, Plan

EXTRA_CONFIG = "model_extra_config.json"


def check(config: Config, plan: Plan) -> None:
    """Raise one InputError for all rules that the plan breaks."""
    errors = [*_hand_over(config, plan), *_timeouts(config, plan), *_lengths(config, plan)]
    checked: set[tuple[str, int]] = set()
    for node in plan.nodes:
        if node.servers and (node.role, node.instance) not in checked:
            checked.add((node.role, node.instance))
            errors += [*_dp_size(config, node), *_gear(config, node)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)


def flag(node: NodePlan, name: str) -> Optional[str]:
    """The value of a flag in a node's command, however it is spelled; None when it is not there."""
    wanted = name.replace("_", "-")
    words = [*node.command, *(node.servers[0].own_args if node.servers else ())]
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("--") and word[2:].replace("_", "-") == wanted:
            return following
    return None


def _json_flag(node: NodePlan, name: str) -> dict[str, Any]:
    text = flag(node, name)
    try:
        data = json.loads(text) if text else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def speculative_tokens(node: NodePlan) -> int:
    """Tokens that a node guesses ahead in a step, for each request."""
    return int(_json_flag(node, "speculative_config").get("num_speculative_tokens", 0))


def _where(node: NodePlan, *path: str) -> tuple[str, ...]:
    return ("roles", node.role, "server", *path)


def _hand_over(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """kv_rank and kv_parallel_size as planned: a wrong one gives wrong answers, not a crash."""
    prefill = len({node.instance for node in plan.nodes if node.role == "prefill"})
    for node in plan.nodes:
        told = _json_flag(node, "kv-transfer-config") if node.servers else {}
        for key, planned in (("kv_parallel_size", prefill + 1), ("kv_rank", node.kv_rank)):
            if key in told and told[key] != planned:
                yield config.error(
                    f"{node.name} is told {key} {told[key]}, the plan has {planned}.",
                    *_where(node, "args", "kv-transfer-config", key),
                    todo=f"write ${{plan.{key}}}, or leave it to the version's file",
                )


def _timeouts(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """One value for the whole fleet: a side that gives up earlier looks like a network fault."""
    for name in ("HCCL_CONNECT_TIMEOUT", "HCCL_EXEC_TIMEOUT"):
        values: dict[str, str] = {}
        for node in plan.nodes:
            if name in node.env:
                values.setdefault(node.env[name], node.name)
        if len(values) > 1:
            shown = ", ".join(f"{name} of {node} is {value}" for value, node in values.items())
            yield config.error(
                f"{shown}; all hosts need the same.", "roles", todo=f"set one {name} for all"
            )
        for value, first in values.items():
            if name == "HCCL_CONNECT_TIMEOUT" and not (
                value.isdigit() and 120 <= int(value) <= 7200
            ):
                yield config.error(
                    f"{name} of {first} is {value}, expected 120 to 7200 seconds.", "roles"
                )


def _lengths(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """Prefill must take every prompt that decode could serve."""
    longest: dict[str, tuple[int, NodePlan]] = {}
    for node in plan.nodes:
        text = flag(node, "max-model-len")
        if node.servers and text and text.isdigit():
            longest.setdefault(node.role, (int(text), node))
    if "prefill" in longest and "decode" in longest:
        prefill, decode = longest["prefill"][0], longest["decode"][0]
        if decode > prefill:
            yield config.error(
                f"decode takes {decode} tokens, prefill only {prefill}: longer prompts would fail"
                " at prefill.",
                *_where(longest["decode"][1], "args", "max-model-len"),
                todo="make prefill's max-model-len at least as large as decode's",
            )


def _extra(node: NodePlan) -> dict[str, Any]:
    data = node.files.get(EXTRA_CONFIG)
    return data if isinstance(data, dict) else {}


def _dp_size(config: Config, node: NodePlan) -> Iterator[ToolkitError]:
    """dp_size of the model's extra configuration is the instance's data-parallel size."""
    told = (_extra(node).get("model_parallel_config") or {}).get("dp_size")
    if told is not None and told != node.dp_size:
        yield config.error(
            f"{node.name} is told dp_size {told}, its data-parallel size is {node.dp_size}.",
            *_where(node, "files", EXTRA_CONFIG, "model_parallel_config", "dp_size"),
            todo='write "${plan.dp_size}"',
        )


def _gear(config: Config, node: NodePlan) -> Iterator[ToolkitError]:
    """decode_gear_list = [max-num-seqs x (1 + speculative tokens)]: omni-infer's rule."""
    gear = (_extra(node).get("operator_optimizition_config") or {}).get("decode_gear_list")
    seqs = flag(node, "max-num-seqs")
    if gear is None or seqs is None or not seqs.isdigit():
        return
    tokens = speculative_tokens(node)
    expected = [int(seqs) * (1 + tokens)]
    if gear != expected:
        yield config.error(
            f"found {gear}, expected {expected}: max-num-seqs {seqs} x (1 + {tokens} speculative"
            " tokens).",
            *_where(
                node, "files", EXTRA_CONFIG, "operator_optimizition_config", "decode_gear_list"
            ),
            todo=f"set decode_gear_list to {expected}, or change max-num-seqs",
        )
