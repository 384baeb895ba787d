"""Which instances fit on which hosts, and why. Pure.

Weights: routed experts are shared by all devices of an instance (expert parallel), all else by the
devices of one tensor parallel group. What is left holds the KV cache. An instance fits where that
takes one request of the longest length. Shapes are those that upstreams publish (tests/facts):
decode with one device for each rank is one wide instance, else instances are as small as can be;
half of the hosts decode, the odd one too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from omnikit.plan.types import Plan

GIB = 1 << 30


@dataclass(frozen=True)
class Size:
    """A model's. gib, experts: of its tensors; kv_kib: of a token; None: not known. told: where."""

    gib: Optional[float]
    experts: Optional[float]
    kv_kib: Optional[float]
    kv_heads: int
    reserve: float
    told: str


@dataclass(frozen=True)
class Role:
    """How the files of engine and model have a role. tensor_parallel: None: as the engine has it.

    servers: instance, ranks or replicas. length: the longest request. share: of a device's memory.
    """

    name: str
    servers: str
    tensor_parallel: Optional[int]
    length: int
    share: float
    expert_parallel: bool


@dataclass(frozen=True)
class Machine:
    """What all hosts have alike: devices, and GiB of each."""

    devices: int
    gib: float


@dataclass(frozen=True)
class Shape:
    """An instance on so many hosts, with so many devices of each. weights, room: GiB of a device.

    tokens: that the KV cache of one rank holds; None: not known.
    """

    role: Role
    hosts: int
    devices: int
    tensor_parallel: int
    weights: Optional[float]
    room: float
    tokens: Optional[int]

    @property
    def fits(self) -> bool:
        """Whether a request of the longest length does; what is not known is not refused."""
        known = self.weights is None or self.weights < self.room
        return known and (self.tokens is None or self.tokens >= self.role.length)

    @property
    def ranks(self) -> int:
        """Servers, or data-parallel ranks, of the whole instance."""
        return self.hosts * self.devices // self.tensor_parallel

    def said(self) -> str:
        """Sizes and memory in one line."""
        many = "servers" if self.role.servers == "replicas" else "ranks"
        ranks = f", {self.ranks} {many}" if self.ranks > 1 else ""
        told = " as the model's file has it" * (self.role.tensor_parallel == self.tensor_parallel)
        text = f"tensor parallel {self.tensor_parallel}{told}{ranks}"
        if self.weights is None:
            return f"{text}; memory not reckoned: the model's sizes are not known"
        text += f"; of {self.room:.1f} GiB a device weights take {self.weights:.1f}"
        if self.tokens is None:
            return text
        of = f"max-model-len {self.role.length}"
        return f"{text}, KV has room for {max(0, self.tokens)} tokens a rank ({of})"


def shape(size: Size, role: Role, machine: Machine, hosts: int, devices: int, tp: int) -> Shape:
    """An instance with its memory."""
    room = machine.gib * role.share
    if size.gib is None or (role.expert_parallel and size.experts is None):
        return Shape(role, hosts, devices, tp, None, room, None)
    over = hosts * devices if role.expert_parallel else tp
    experts = size.experts or 0.0
    weights = experts / over + (size.gib - experts) / tp
    tokens = None
    if size.kv_kib is not None:
        left = (room - weights - size.reserve) * (1 << 20)
        tokens = int(left / (size.kv_kib / min(tp, size.kv_heads)))
    return Shape(role, hosts, devices, tp, weights, room, tokens)


def smallest(
    size: Size, role: Role, machine: Machine, most: int, devices: int = 0
) -> Optional[Shape]:
    """The instance on the fewest hosts that fits; None: none does on so many."""
    devices = devices or machine.devices
    for tp in _sizes(role, devices):
        for hosts in range(1, most + 1):
            whole = tp or hosts * devices
            one = shape(size, role, machine, hosts, devices, whole)
            if one.fits:
                return one
    return None


def _sizes(role: Role, devices: int) -> list[int]:
    """Tensor parallel sizes to try in this order; 0: all devices of the instance."""
    wished = role.tensor_parallel
    if wished is None:
        return [0] if role.servers == "instance" else [1]
    while wished > devices or devices % wished:
        wished //= 2
    larger = [wished << n for n in range(1, 6) if wished << n <= devices]
    return [wished, *(tp for tp in larger if devices % tp == 0)]


@dataclass(frozen=True)
class Group:
    """Instances of a shape, each with its hosts. first: the first of its devices on a host."""

    shape: Shape
    hosts: tuple[tuple[str, ...], ...]
    first: int = 0


@dataclass(frozen=True)
class Layout:
    """groups by role; proxy: its host. why: they are these, in a sentence without its stop."""

    groups: Mapping[str, Group]
    proxy: Optional[str]
    why: str


@dataclass(frozen=True)
class Refused:
    """Why hosts cannot serve a model, and how many of them could; None: no number could."""

    why: str
    needed: Optional[int]


def disaggregated(
    size: Size,
    roles: Mapping[str, Role],
    machine: Machine,
    hosts: Sequence[str],
    *,
    one_decode: bool,
    halves: bool,
) -> Layout | Refused:
    """Prefill and decode apart. one_decode: the engine has one decode instance at the most.

    halves: on one host, each may have half of the devices.
    """
    count = len(hosts)
    if count == 1 and halves and machine.devices % 2 == 0:
        half = machine.devices // 2
        both = [smallest(size, roles[name], machine, 1, half) for name in ("prefill", "decode")]
        if both[0] and both[1]:
            here = ((hosts[0],),)
            groups = {"prefill": Group(both[0], here), "decode": Group(both[1], here, half)}
            return Layout(
                groups, hosts[0], "one host: prefill and decode have half its devices each"
            )
    most = max(64, count)
    prefill = smallest(size, roles["prefill"], machine, most)
    decode = smallest(size, roles["decode"], machine, most)
    if prefill is None or decode is None:
        return Refused(_too_large(size, machine), None)
    if prefill.hosts + decode.hosts > count:
        return Refused(
            f"prefill needs {_hosts(prefill.hosts)} ({prefill.said()}) and decode"
            f" {_hosts(decode.hosts)} ({decode.said()})",
            prefill.hosts + decode.hosts,
        )
    wide = one_decode or decode.tensor_parallel == 1
    for_decode = max(decode.hosts, (count + 1) // 2)
    for_prefill = max(prefill.hosts, count - for_decode)
    if prefill.role.servers == "instance":  # over one more host it would be another shape
        for_prefill -= for_prefill % prefill.hosts
    for_decode = count - for_prefill
    p = _split(for_prefill, prefill.hosts, False)
    d = _split(for_decode, decode.hosts, wide)
    names = list(hosts)
    groups = {
        "prefill": _group(size, machine, prefill, names[:for_prefill], p),
        "decode": _group(size, machine, decode, names[for_prefill:], d),
    }
    why = f"{for_prefill} of {count} hosts prefill, {for_decode} decode: "
    if for_decode == (count + 1) // 2:
        why += "half each" + ", the odd one decodes" * (count % 2)
    else:
        why += "as near to half each as whole instances that fit come"
    if d == 1 and wide:
        why += "; decode is one instance, for the more devices share the experts, the more KV fits"
    return Layout(groups, hosts[0], why)


def colocated(size: Size, role: Role, machine: Machine, hosts: Sequence[str]) -> Layout | Refused:
    """Servers that do both, as many on each host as it has devices for."""
    if role.tensor_parallel is None:  # a model that is small: the fewest devices of a server
        wished = [1 << n for n in range(6) if machine.devices % (1 << n) == 0]
    else:
        wished = [tp for tp in _sizes(role, machine.devices) if tp]
    for tp in wished:
        one = shape(size, role, machine, 1, tp, tp)
        if one.fits:
            each = Shape(role, 1, machine.devices, tp, one.weights, one.room, one.tokens)
            groups = {"colocated": Group(each, tuple((name,) for name in hosts))}
            several = len(hosts) * each.ranks > 1
            why = "each host does both, with as many servers as its devices hold"
            return Layout(groups, hosts[0] if several else None, why)
    return Refused(_too_large(size, machine), None)


def _too_large(size: Size, machine: Machine) -> str:
    return (
        f"{size.gib or 0:.0f} GiB of weights do not fit in {machine.devices} devices of"
        f" {machine.gib:.0f} GiB a host, on however many hosts"
    )


def _hosts(count: int) -> str:
    return f"{count} host{'s' if count > 1 else ''}"


def _split(hosts: int, least: int, wide: bool) -> int:
    """How many equal instances so many hosts make."""
    if wide:
        return 1
    return next(count for count in range(hosts // least, 0, -1) if hosts % count == 0)


def _group(size: Size, machine: Machine, one: Shape, hosts: Sequence[str], count: int) -> Group:
    each = len(hosts) // count
    made = shape(size, one.role, machine, each, one.devices, one.tensor_parallel)
    return Group(made, tuple(tuple(hosts[n * each : (n + 1) * each]) for n in range(count)))


# What a model's own files say of its size.


def kv_kib(config: Mapping[str, Any]) -> tuple[Optional[float], int]:
    """KiB of a token's KV in all layers after a config.json, and how many devices share it.

    The latent KV of MLA is one that each device has whole; sparse attention adds its index keys.
    """
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    try:
        layers = int(config["num_hidden_layers"]) + int(config.get("num_nextn_predict_layers") or 0)
        kind = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16")
        width = 4 if kind == "float32" else 2
        if config.get("kv_lora_rank"):
            each = config["kv_lora_rank"] + config["qk_rope_head_dim"]
            each += config.get("index_head_dim") or 0
            return layers * each * width / 1024, 1
        heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return layers * 2 * heads * size * width / 1024, heads
    except (KeyError, TypeError, ValueError):
        return None, 1


# Ports that something else has.

# By what a plan's listener is called: the setting, and how far to go until the next try.
_MOVES = {
    "proxy": ("proxy", 1),
    "api": ("api_base", 1000),
    "master": ("master_base", 500),
    "kv": ("kv_side_channel", 200),
    "zmq": ("zmq", 50),
    "hccl": ("hccl_base", 1000),
    "ray": ("ray", 1),
}


def clashes(plan: Plan, taken: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, int]]:
    """Settings of ports that are taken: by name the host and the port; taken: by host."""
    found: dict[str, tuple[str, int]] = {}
    for node in plan.nodes:
        there = set(taken.get(node.host, ()))
        for one in node.listeners:
            hit = sorted(there & set(range(one.port, one.port + one.count)))
            if hit and one.kind in _MOVES:
                found.setdefault(_MOVES[one.kind][0], (node.host, hit[0]))
    if plan.proxy and plan.proxy.port in taken.get(plan.proxy.host, ()):
        found["proxy"] = (plan.proxy.host, plan.proxy.port)
    return found


def moved(setting: str, port: int) -> int:
    """The next value to try."""
    return port + next(step for name, step in _MOVES.values() if name == setting)
