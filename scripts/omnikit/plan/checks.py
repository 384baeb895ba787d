"""Do prefill and decode get told things that fit together? Pure; run on every plan.

Each rule stands for a failure that otherwise shows late or never: a wrong answer, a hang, a crash
at the first full batch.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Mapping, Optional

from hostkit.base.errors import InputError, ManyErrors, ToolkitError
from hostkit.base.values import whole
from omnikit.config.config import Config
from omnikit.plan import access, connectors
from omnikit.plan.arguments import flag, flag_list, json_flag
from omnikit.plan.types import NodePlan, Plan

# Over which addresses and interfaces servers of several hosts talk. Pure.
#
# A loopback address or interface works on one host and hangs on two: Gloo and HCCL offer it to the
# others.

_ADDRESSES = ("HCCL_IF_IP",)
_INTERFACES = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME")
_LOOPBACK = re.compile(r"127\.|::1$|localhost$")


def check_networks(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """Values that no other host can reach; each once."""
    several = len({host.address for host in plan.hosts}) > 1
    told: set[tuple[str, str]] = set()
    for node in plan.nodes:
        for name in (*_ADDRESSES, *_INTERFACES):
            value = node.env.get(name)
            if value is None or (name, value) in told:
                continue
            told.add((name, value))
            if several and (_LOOPBACK.match(value) or value.lstrip("=") == "lo"):
                yield _error(config, node, name, value)


def _error(config: Config, node: NodePlan, name: str, value: str) -> InputError:
    path = ("hosts", node.host, "interface")
    if config.settings.hosts[node.host].interface == value:
        where = str(config.origin(*path))
        todo = "remove it: then the interface of the host's default route is used"
    else:
        _, settings = config.server_for(node.role, node.instance, node.host)
        where = str(settings.at(("env", name)).origin)
        todo = "remove it, or set hosts.NAME.interface to the one that the other hosts reach"
    what = f"{name} of {node.name} is {value}: only this host itself can be reached so."
    return InputError(what, where=where, todo=todo)


EXTRA_CONFIG = "model_extra_config.json"


def check(config: Config, plan: Plan, found: Iterable[ToolkitError] = ()) -> None:
    """Raise one InputError for all rules that the plan breaks, and what was found before."""
    errors = [*found, *_timeouts(config, plan), *_ranks(config, plan), *_names(config, plan)]
    errors += [
        *access.check(config, plan),
        *check_networks(config, plan),
        *connectors.check(config, plan),
        *_profile(config),
    ]
    longer, _ = _lengths(config, plan)
    errors += [longer] if longer is not None else []
    checked: set[tuple[str, int]] = set()
    for node in plan.nodes:
        if node.servers and (node.role, node.instance) not in checked:
            checked.add((node.role, node.instance))
            errors += [*_dp_size(config, node), *_gear(config, node), *_engine(config, node)]
            errors += _tp_size(config, node)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)


def max_num_seqs(nodes: Iterable[NodePlan]) -> dict[str, int]:
    """Requests that a server takes at the same time, the least of each role that says it.

    Servers that do both count as decode: a proxy sends them what it would send to those.
    """
    found: dict[str, int] = {}
    for node in nodes:
        number = whole(flag(node, "max-num-seqs")) if node.servers else None
        if number is not None:
            role = "prefill" if node.role == "prefill" else "decode"
            found[role] = min(found.get(role, number), number)
    return found


def speculative_tokens(node: NodePlan) -> int:
    """Tokens that a node guesses ahead in a step, for each request."""
    told = json_flag(node, "speculative_config").get("num_speculative_tokens", 0)
    return told if type(told) is int else 0


def _where(config: Config, node: NodePlan, *path: str) -> tuple[str, ...]:
    """Where a setting of a node's role stands, the most specific place that has it."""
    places = [("roles", role, "server", *path) for role in (node.role, "disaggregated")]
    return next((place for place in places if config.tree.find(place) is not None), places[0])


def _ranks(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """Each rank of a data-parallel group is told to one server: another waits for it for ever."""
    taken: dict[tuple[str, int, int], str] = {}
    for node in plan.nodes:
        for server in node.servers:
            rank, size = whole(node.environment(server).get("VLLM_DP_RANK")), node.dp_size
            if rank is None:
                continue
            other = taken.setdefault((node.role, node.instance, rank), server.name)
            if rank < size and other == server.name:
                continue
            shown = f"{server.name} is told data-parallel rank {rank}"
            yield config.error(
                f"{shown}, as {other} is." if rank < size else f"{shown} of 0 to {size - 1}.",
                *_where(config, node, "env", "VLLM_DP_RANK"),
                todo="write ${plan.dp_rank}; the tools of 2025-08 number ranks by devices and"
                " cannot serve decode with tensor parallel over several hosts: choose a later"
                " release (profile.omni_version), or tensor parallel size 1",
            )
            return  # the others are wrong in the same way


def notes(config: Config, plan: Plan) -> Iterator[str]:
    """What a person should know, though nothing is wrong."""
    if longer := _lengths(config, plan)[1]:
        yield longer
    yield from connectors.notes(config, plan)
    off = [
        node.name
        for node in plan.nodes
        if operators(node.files).get("use_omni_placement") is False and node.servers
    ]
    if off:
        place = ("model", "placement")
        yield (
            f"{config.origin(*place)}: {'.'.join(place)}: omni_placement is switched off for"
            f" {', '.join(off)}: experts are not spread by their load, which costs throughput"
        )


def _profile(config: Config) -> Iterator[ToolkitError]:
    """What must load in a container needs the file that sets up its environment."""
    container = config.settings.container
    if config.settings.runtime != "docker" or container.profile is not None:
        return
    if container.profile_library is not None:
        yield config.error(
            f"no file is loaded in containers, but {container.profile_library} must load there"
            f" ({config.origin('container', 'profile_library')}).",
            *("container", "profile"),
            todo="name the file that sets up the image's environment; for an image whose own"
            " variables do, set container.profile_library to null too",
        )


def _engine(config: Config, node: NodePlan) -> Iterator[ToolkitError]:
    """What omni-infer's engine asks for: V1, and one API server for each data-parallel rank."""
    if "VLLM_DP_SIZE" not in node.environment(node.servers[0]):
        return
    if node.env.get("VLLM_USE_V1", "1") != "1":
        yield config.error(
            f"VLLM_USE_V1 of {node.name} is {node.env['VLLM_USE_V1']}, omni-infer has no other"
            " engine than V1.",
            *_where(config, node, "env", "VLLM_USE_V1"),
            todo="remove it",
        )
    if node.env.get("DECODE_POD_NUM", "1") != "1":
        yield config.error(
            f"DECODE_POD_NUM of {node.name} is {node.env['DECODE_POD_NUM']}, this release has 1, of"
            " however many decode instances.",
            *_where(config, node, "env", "DECODE_POD_NUM"),
            todo="remove it",
        )
    size = flag(node, "data-parallel-size")
    # With a rank besides, vLLM takes the size as that of a group of which it starts one.
    if size not in (None, "1") and flag(node, "data-parallel-rank") is None:
        yield config.error(
            f"{node.name} is told --data-parallel-size {size}, but each of its servers is one rank"
            " (VLLM_DP_SIZE says of how many): vLLM would start them all in every server.",
            *_where(config, node, "args", "data-parallel-size"),
            todo="leave it at 1; the topology decides how many ranks there are",
        )


def _timeouts(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """One value for all who talk by HCCL: a side that gives up earlier looks like a network fault.

    By rank tables prefill and decode do so with each other, else the ranks of an instance alone.
    """
    for name in ("HCCL_CONNECT_TIMEOUT", "HCCL_EXEC_TIMEOUT"):
        together: dict[Any, dict[str, str]] = {}
        for node in plan.nodes:
            if name in node.env:
                whom = None if config.settings.engine.rank_tables else (node.role, node.instance)
                together.setdefault(whom, {}).setdefault(node.env[name], node.name)
        for values in together.values():
            if len(values) > 1:
                shown = ", ".join(f"{name} of {node} is {value}" for value, node in values.items())
                yield config.error(
                    f"{shown}; all hosts need the same.", "roles", todo=f"set one {name} for all"
                )


def _names(config: Config, plan: Plan) -> Iterator[ToolkitError]:
    """Servers behind one proxy have a name of the model in common: clients ask all for it."""
    told = [(node, flag_list(node, "served-model-name")) for node in plan.nodes if node.servers]
    told = [(node, names) for node, names in told if names and plan.proxy is not None]
    for node, names in told[1:]:
        first, others = told[0]
        if set(names).isdisjoint(others):
            places = [_where(config, one, "args", "served-model-name") for one in (first, node)]
            yield config.error(
                f"{node.name} serves the model as {' '.join(names)}, {first.name} as"
                f" {' '.join(others)}: the proxy asks both for the same.",
                *max(places, key=lambda place: config.origin(*place).layer),
                todo="say it in one place: model.served_name",
            )
            return


def _lengths(config: Config, plan: Plan) -> tuple[Optional[ToolkitError], str]:
    """What is to be said where decode takes more than prefill: an error, or a note.

    Beyond prefill's length is room for answers, but not for prompts.
    """
    longest: dict[str, tuple[int, NodePlan]] = {}
    for node in plan.nodes:
        length = whole(flag(node, "max-model-len"))
        if node.servers and length is not None:
            longest.setdefault(node.role, (length, node))
    if not {"prefill", "decode"} <= set(longest):
        return None, ""
    prefill, (decode, node) = longest["prefill"][0], longest["decode"]
    if decode <= prefill:
        return None, ""
    path = _where(config, node, "args", "max-model-len")
    if config.settings.engine.longer_decode == "accept":
        return None, (
            f"{config.origin(*path)}: {'.'.join(path)}: decode takes {decode} tokens, prefill"
            f" {prefill}: no prompt may be longer than that"
        )
    error = config.error(
        f"decode takes {decode} tokens, prefill only {prefill}: longer prompts would fail at"
        " prefill.",
        *path,
        todo="make prefill's max-model-len at least as large as decode's; or, if only answers are"
        " to be longer: engine.longer_decode: accept",
    )
    return error, ""


def _extra(node: NodePlan) -> dict[str, Any]:
    data = node.files.get(EXTRA_CONFIG)
    return data if isinstance(data, dict) else {}


def operators(files: Mapping[str, Any]) -> dict[str, Any]:
    """omni-infer's switches of operators, from the files of a node; {} where there are none."""
    extra = files.get(EXTRA_CONFIG)
    found = extra.get("operator_optimizition_config") if isinstance(extra, dict) else None
    return found if isinstance(found, dict) else {}


def _tp_size(config: Config, node: NodePlan) -> Iterator[ToolkitError]:
    """A size that somebody has set is told to the servers: not every engine's flags name it."""
    _, tree = config.server_for(node.role, node.instance, node.host)
    found = tree.find(("tensor_parallel",))
    told = flag(node, "tensor-parallel-size") or flag(node, "tp") or "1"
    if found is not None and found.value is not None and whole(told) != node.tensor_parallel:
        yield InputError(
            f"tensor_parallel is {node.tensor_parallel}, but the flags of {node.name} say {told}.",
            where=str(found.origin),
            todo="write server.args.tensor-parallel-size: ${plan.tp_size} beside it",
        )


def _dp_size(config: Config, node: NodePlan) -> Iterator[ToolkitError]:
    """dp_size of the model's extra configuration is the instance's data-parallel size."""
    told = (_extra(node).get("model_parallel_config") or {}).get("dp_size")
    if told is not None and told != node.dp_size:
        yield config.error(
            f"{node.name} is told dp_size {told}, its data-parallel size is {node.dp_size}.",
            *_where(config, node, "files", EXTRA_CONFIG, "model_parallel_config", "dp_size"),
            todo='write "${plan.dp_size}"',
        )


def _gear(config: Config, node: NodePlan) -> Iterator[ToolkitError]:
    """decode_gear_list = [max-num-seqs x (1 + speculative tokens)]: omni-infer's rule."""
    gear = operators(node.files).get("decode_gear_list")
    seqs = whole(flag(node, "max-num-seqs"))
    if gear is None or seqs is None:
        return
    tokens = speculative_tokens(node)
    expected = [seqs * (1 + tokens)]
    if gear != expected:
        yield config.error(
            f"found {gear}, expected {expected}: max-num-seqs {seqs} x (1 + {tokens} speculative"
            " tokens).",
            *_where(
                config,
                node,
                "files",
                EXTRA_CONFIG,
                "operator_optimizition_config",
                "decode_gear_list",
            ),
            todo=f"set decode_gear_list to {expected}, or change max-num-seqs",
        )
