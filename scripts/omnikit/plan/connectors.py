"""Does what a KV connector asks of prefill and decode hold? Pure; the rules are settings.

Upstream checks part of it when servers have loaded their weights, and some of it never: KV of
another layout is read as if it were right, and answers get worse without a word.
"""

from __future__ import annotations

import hashlib
import json
from difflib import get_close_matches
from typing import Any, Iterator, Mapping, Optional

from hostkit.base.errors import InputError, ToolkitError
from omnikit.config.config import Config
from omnikit.config.schema import Connector, Settings
from omnikit.plan.arguments import flag, json_flag
from omnikit.plan.types import NodePlan, Plan

FLAG = "kv-transfer-config"
_FITS = {"pull": ("mooncake", "nixl"), "push": ("layerwise",)}  # handover -> proxy.kv_params
# Flags that decide what the KV of a token is, whatever the connector says of them.
_AGREED = ("block-size", "dtype", "kv-cache-dtype", "quantization")
_SEVERAL = "MultiConnector"  # vLLM's list of connectors: kv_connector_extra_config.connectors


def parts(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The configuration of each connector that a --kv-transfer-config names."""
    if told.get("kv_connector") != _SEVERAL:
        return [told] if told else []
    inner = (told.get("kv_connector_extra_config") or {}).get("connectors")
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else []


def version(settings: Settings, plan: Plan, inputs: Mapping[str, str]) -> str:
    """A word for all that the two servers of a pair must have in common, the same for every server.

    The proxy pairs prefill and decode servers of one word only. inputs: fingerprints of engine and
    model. Settings that only change how fast or how many do not change it.
    """
    firsts = {node.role: node for node in reversed(plan.nodes) if node.servers}
    names = sorted(
        {*_AGREED, *(name for one in settings.connectors.values() for name in one.equal)}
    )
    told: list[Any] = [sorted(inputs.items()), settings.model.path, settings.container.image]
    told += [settings.source.vllm_commit or settings.source.vllm_ref]
    told += [settings.source.omniinfer_commit or settings.source.omniinfer_ref]
    for role in ("prefill", "decode"):
        node = firsts.get(role)
        if node is not None:
            told += [role, node.tensor_parallel, node.dp_size, [flag(node, one) for one in names]]
            told += [[one.get("kv_connector") for one in parts(json_flag(node, FLAG))]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def lets_go(settings: Settings, node: NodePlan) -> Optional[str]:
    """When a prefill server lets go of KV that nobody fetches, and by which setting; None: unknown.

    >>> lets_go(settings, p0)  # doctest: +SKIP
    "NixlConnector lets go of it after 30 s (kv_connector_extra_config.kv_lease_duration)"
    """
    for one in parts(json_flag(node, FLAG)):
        rules = settings.connectors.get(str(one.get("kv_connector")))
        if rules is None or rules.lets_go is None:
            continue
        limit, told, by = rules.lets_go, None, ""
        if limit.variable is not None:
            by = f" (server.env.{limit.variable})"
            told = node.env.get(limit.variable)
        elif limit.extra is not None:
            by = f" (kv_connector_extra_config.{limit.extra})"
            told = (one.get("kv_connector_extra_config") or {}).get(limit.extra)
        seconds = limit.seconds if told is None else told
        return f"{one['kv_connector']} lets go of it after {seconds} s{by}"
    return None


def check(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """What does not fit together, each once, with the places of both values."""
    nodes = [node for node in plan.nodes if node.servers and node.role != "colocated"]
    firsts: dict[str, NodePlan] = {}
    for node in nodes:
        firsts.setdefault(node.role, node)
    if not {"prefill", "decode"} <= set(firsts):
        return
    names: dict[str, NodePlan] = {}
    for node in nodes:
        names.setdefault(", ".join(_names(config, node)) or "none", node)
    if len(names) > 1:
        (one, first), (other, node) = list(names.items())[:2]
        path = ("args", FLAG, "kv_connector")
        yield InputError(
            f"{node.name} has the connector {other}, {first.name} has {one}"
            f" ({_at(config, first, *path)}).",
            where=_at(config, node, *path),
            todo="set it for both: roles.disaggregated.server." + ".".join(path),
        )
        return
    yield from _nothing_handed_over(config, firsts["prefill"])
    for name in _names(config, firsts["prefill"]):
        rules = config.settings.connectors.get(name)
        if rules is None:
            near = get_close_matches(name, list(config.settings.connectors), n=1, cutoff=0.8)
            if near:
                yield InputError(
                    f"this engine has no connector {name}, is it {near[0]}?",
                    where=_at(config, firsts["prefill"], "args", FLAG, "kv_connector"),
                    todo=f"known are: {', '.join(config.settings.connectors)} (setting connectors)",
                )
            continue
        yield from _proxy(config, firsts["prefill"], name, rules)
        yield from _sizes(config, nodes, name, rules)
        yield from _tensor_parallel(config, firsts["prefill"], firsts["decode"], name, rules)
        yield from _equal(config, nodes, name, rules)
        yield from _only(config, firsts, name, rules)


def notes(config: Config, plan: Plan) -> Iterator[str]:
    """Connectors of which nothing is known."""
    if not plan.disaggregated or not config.settings.connectors:
        return
    for node in plan.nodes[:1]:
        for name in _names(config, node):
            if name not in config.settings.connectors:
                yield (
                    f"{_at(config, node, 'args', FLAG, 'kv_connector')}: nothing is known of the"
                    f" connector {name}: whether prefill and decode fit together is not checked"
                    " (setting connectors)"
                )


def _names(config: Config, node: NodePlan) -> list[str]:
    return [str(one.get("kv_connector")) for one in parts(json_flag(node, FLAG))]


def _at(config: Config, node: NodePlan, *path: str) -> str:
    """Where a setting of a node's servers stands, or would."""
    _, tree = config.server_for(node.role, node.instance, node.host)
    return str(tree.at(path).origin)


def _nothing_handed_over(config: Config, prefill: NodePlan) -> Iterator[ToolkitError]:
    """Pools and offload alone: decode would compute every prompt again, and say so nowhere."""
    known = config.settings.connectors
    names = _names(config, prefill)
    if not names or any(name not in known or known[name].handover != "none" for name in names):
        return
    able = [name for name, rules in known.items() if rules.handover != "none"]
    yield InputError(
        f"{', '.join(names)} hands no prompt over from prefill to decode.",
        where=_at(config, prefill, "args", FLAG, "kv_connector"),
        todo=f"use one that does ({', '.join(able)}), or both by {_SEVERAL}",
    )


def _proxy(
    config: Config, prefill: NodePlan, name: str, rules: Connector
) -> Iterator[ToolkitError]:
    """Servers and proxy must have the same way of handing over; otherwise decode waits for ever."""
    way, kind = config.settings.proxy.kv_params, config.settings.proxy.kind
    if config.settings.topology.proxy is None or rules.handover == "none":
        return
    fits = _FITS[rules.handover]
    pushed = _FITS["push"][0]
    # The proxy of omni-infer asks in its own way; without asking any way does but the pushed one.
    asked = rules.handover == "push" or (rules.asked and not kind.startswith("omni-"))
    if way in fits or (not asked and way != pushed):
        return
    yield InputError(
        f"{name} has {'prefill push' if rules.handover == 'push' else 'decode pull'} the KV of a"
        f" prompt, proxy.kv_params is {way} ({config.origin('proxy', 'kv_params')}).",
        where=_at(config, prefill, "args", FLAG, "kv_connector"),
        todo=f"set proxy.kv_params to {' or '.join(fits) if asked else 'none'}",
    )


def _sizes(
    config: Config, nodes: list[NodePlan], name: str, rules: Connector
) -> Iterator[ToolkitError]:
    """Every instance of a role has the same sizes, and everybody is told those of both roles."""
    if not rules.sizes:
        return
    known: dict[str, NodePlan] = {}
    for node in nodes:
        first = known.setdefault(node.role, node)
        for size, shown in (("tensor_parallel", "tensor parallel"), ("dp_size", "data parallel")):
            mine, others = getattr(node, size), getattr(first, size)
            if mine != others:
                yield InputError(
                    f"{node.name} has {shown} size {mine}, {first.name} has {others}"
                    f" ({_size_at(config, first)}): {name} is told one size of each role.",
                    where=_size_at(config, node),
                    todo=f"give all {node.role} instances the same devices, and the same"
                    " tensor parallel size",
                )
                return
    for node in nodes:
        for one in parts(json_flag(node, FLAG)):
            if one.get("kv_connector") != name:
                continue
            extra = one.get("kv_connector_extra_config") or {}
            for role, first in known.items():
                block = extra.get(role)
                wanted = {"tp_size": first.tensor_parallel, "dp_size": first.dp_size}
                found = block if isinstance(block, dict) else {}
                wrong = [key for key in wanted if found.get(key) != wanted[key]]
                if wrong:
                    path = ("args", FLAG, "kv_connector_extra_config", role, wrong[0])
                    told = found.get(wrong[0])
                    shown = "no" if told is None else json.dumps(told)  # a text is no number
                    yield InputError(
                        f"{node.name} is told {shown} {role}.{wrong[0]} for {name},"
                        f" {role} instances have {wanted[wrong[0]]} ({_size_at(config, first)}).",
                        where=_at(config, node, *path),
                        todo=f"write ${{plan.{role}_{wrong[0]}}}",
                    )
                    return


def _size_at(config: Config, node: NodePlan) -> str:
    """Where the sizes of an instance come from."""
    _, tree = config.server_for(node.role, node.instance, node.host)
    found = tree.find(("tensor_parallel",))
    if found is not None and found.value is not None:
        return str(found.origin)
    return str(config.origin("topology", node.role, node.instance))


def _tensor_parallel(
    config: Config, prefill: NodePlan, decode: NodePlan, name: str, rules: Connector
) -> Iterator[ToolkitError]:
    p, d = prefill.tensor_parallel, decode.tensor_parallel
    fits = {"any": True, "equal": p == d, "multiple": p % d == 0}[rules.tensor_parallel]
    if not fits:
        need = "that of" if rules.tensor_parallel == "equal" else "a multiple of that of"
        yield InputError(
            f"{prefill.name} has tensor parallel size {p}, {name} needs {need} {decode.name}, which"
            f" is {d} ({_size_at(config, decode)}).",
            where=_size_at(config, prefill),
            todo="change server.tensor_parallel of roles.prefill or roles.decode",
        )


def _equal(
    config: Config, nodes: list[NodePlan], name: str, rules: Connector
) -> Iterator[ToolkitError]:
    for wanted in rules.equal:
        default = rules.absent.get(wanted)
        values: dict[Optional[str], NodePlan] = {}
        for node in nodes:
            value = flag(node, wanted)
            if value is None and default is not None:
                value = str(default)
            values.setdefault(value, node)
        if len(values) < 2:
            continue
        (one, first), (other, node) = list(values.items())[:2]
        yield InputError(
            f"{node.name} has {_shown(node, wanted, other)}, {first.name} has"
            f" {_shown(first, wanted, one)} ({_flag_at(config, first, wanted)}): {name} reads KV of"
            " another layout as if it were right.",
            where=_flag_at(config, node, wanted),
            todo=f"give both the same: roles.disaggregated.server.args.{wanted}",
        )


def _only(
    config: Config, firsts: Mapping[str, NodePlan], name: str, rules: Connector
) -> Iterator[ToolkitError]:
    for role, flags in rules.only.items():
        for wanted, value in flags.items():
            told = flag(firsts[role], wanted)
            if told not in (None, str(value)):
                yield InputError(
                    f"{firsts[role].name} has --{wanted} {told}: with {name}, {role} can have"
                    f" {value} alone.",
                    where=_flag_at(config, firsts[role], wanted),
                    todo=f"write {value}, or choose another connector",
                )


def _shown(node: NodePlan, name: str, value: Optional[str]) -> str:
    if flag(node, name) is not None:
        return f"--{name} {value}"
    return f"no --{name}" + (f", which is {value} then" if value is not None else "")


def _flag_at(config: Config, node: NodePlan, name: str) -> str:
    """Where a flag stands, however it is spelled."""
    _, tree = config.server_for(node.role, node.instance, node.host)
    args = tree.at(("args",))
    known = args.value if isinstance(args.value, dict) else {}
    spelled = next((key for key in known if key.replace("_", "-") == name), name)
    return str(tree.at(("args", spelled)).origin)
