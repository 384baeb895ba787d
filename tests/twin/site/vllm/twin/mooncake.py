"""vllm-ascend's MooncakeConnectorV1: what both sides are told, prefill's ports, decode's pulls.

vllm_ascend/distributed/kv_transfer: prefill's workers listen on a block of ports that counts
through the whole group, its answer says where and what, decode pulls from there and frees it. The
twin of NPUs' memory is a prompt. What both sides were told is held against each other at the first
pull, where the real one computes wrongly or hangs.
"""

from __future__ import annotations

import uuid
from typing import Any, Optional

from vllm.twin import links, ports
from vllm.twin.log import Fault, say
from vllm.twin.parallel import Parallel
from vllm.twin.serving import State

_PULLS = ("MooncakeConnectorV1", "MooncakeHybridConnector")
# What vllm-ascend and vLLM register besides.
_OTHERS: tuple[str, ...] = ("MooncakeConnector", "MooncakeLayerwiseConnector")
_OTHERS += ("MultiConnector", "UCMConnector")
_OTHERS += ("AscendStoreConnector", "MooncakeConnectorStoreV1", "LMCacheAscendConnector")
_OTHERS += ("SimpleCPUOffloadConnector", "RecomputeCPUOffloadConnector")
_ROLES = {"kv_producer": "prefill", "kv_consumer": "decode"}
_PARAMS: tuple[str, ...] = ("remote_block_ids", "remote_engine_id", "remote_request_id")
_PARAMS += ("remote_host", "remote_port", "remote_pcp_size", "remote_dcp_size", "remote_ptp_size")
_PARAMS += ("last_token_id", "remote_multi_nodes_meta_mapping", "num_prompt_blocks")
_PARAMS += ("remote_block_size",)
_LOG = "mooncake_connector.py:512"


def sizes(values: Any) -> None:
    """vllm_ascend: the connector is known, a role's own block is the server's own sizes."""
    kv = values.kv_transfer_config
    name = kv.get("kv_connector")
    if name in _OTHERS:
        raise Fault(f"RuntimeError: the twin has no connector {name}")
    if name not in _PULLS:
        # vllm/distributed/kv_transfer/kv_connector/factory.py
        raise Fault(f"ValueError: Unsupported connector type: {name}")
    extra = kv.get("kv_connector_extra_config") or {}
    for role in _ROLES.values():
        if not {"dp_size", "tp_size"} <= set(extra.get(role) or {}):
            raise Fault("AssertionError")
    if kv["kv_role"] not in _ROLES:
        return
    role = _ROLES[kv["kv_role"]]
    told = (
        ("tensor", values.tensor_parallel_size, extra[role]["tp_size"]),
        ("data", values.data_parallel_size, extra[role]["dp_size"]),
    )
    for size, own, block in told:
        if own != block:
            raise Fault(
                "  Value error, KV transfer"
                f" '{role}' config has a conflicting {size} parallel size."
                f" Expected {own}, but got {block}."
            )


def connect(values: Any, par: Parallel, address: str, state: State) -> Any:
    """Make the connector of this server's role; what it holds open."""
    kv = values.kv_transfer_config
    extra = kv["kv_connector_extra_config"]
    _divides(extra["prefill"]["tp_size"], extra["decode"]["tp_size"])
    told = {"kv_connector": kv["kv_connector"], "block_size": values.block_size}
    if kv["kv_role"] == "kv_consumer":
        decode = Decode(par, told)
        state.pull = decode.pull
        return decode
    workers = par.tp * values.pipeline_parallel_size
    first = kv.get("kv_port", 14579) + par.rank * workers
    prefill = Prefill((address, first), workers, par, told)
    state.keep = prefill.keep
    state.ended = _ended
    return prefill


def _divides(prefill: int, decode: int) -> None:
    if prefill < decode:
        raise Fault(
            f"ValueError: prefill_tp_size: {prefill} must be greater than or equal to the"
            f" decode_tp_size: {decode}"
        )
    if prefill % decode:
        raise Fault("ValueError: Prefill TP size must be divisible by Decode TP size")


def _asked(body: dict[str, Any]) -> bool:
    return bool((body.get("kv_transfer_params") or {}).get("do_remote_decode"))


def _ended(body: dict[str, Any]) -> str:
    """The twin's model ends as soon as it may, where a proxy asks for a hand-over."""
    return "length" if not _asked(body) or (body.get("min_tokens") or 0) >= 1 else "stop"


class Prefill:
    """Keeps KV, and tells where; only of requests that ended by length."""

    def __init__(
        self, place: tuple[str, int], workers: int, par: Parallel, told: dict[str, Any]
    ) -> None:
        self.place, self.par, self.told = place, par, told
        self.name = f"{uuid.uuid4()}"
        self.kept = links.Kept(told)
        for port in range(place[1], place[1] + workers):
            try:
                self.kept.listen((place[0], port))
            except OSError as error:
                say(_LOG, ports.zmq_error(error, place[0], port), "ERROR")
                raise Fault(
                    "RuntimeError: KV Cache sending/receiving thread failed to start."
                ) from error

    def keep(self, request: str, prompt: str, body: dict[str, Any]) -> Optional[dict[str, Any]]:
        """What the answer says of the KV that is kept."""
        if not _asked(body) or _ended(body) != "length":
            return None
        self.kept.keep(request, prompt)
        blocks = 1 + len(prompt) // 512
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": list(range(1, 1 + blocks)),
            "remote_engine_id": self.name,
            "remote_request_id": request,
            "remote_host": self.place[0],
            "remote_port": self.place[1],
            "remote_pcp_size": 1,
            "remote_dcp_size": 1,
            "remote_ptp_size": self.par.tp,
            "last_token_id": 7,
            "remote_multi_nodes_meta_mapping": {},
            "num_prompt_blocks": blocks,
            "remote_block_size": self.told["block_size"],
        }


class Decode:
    """Each worker pulls its share from a worker of prefill."""

    def __init__(self, par: Parallel, told: dict[str, Any]) -> None:
        self.par, self.told = par, told
        self.links: dict[tuple[str, int], links.Link] = {}

    def pull(self, params: dict[str, Any]) -> Optional[str]:
        """What the parameters stand for; None: decode computes the prompt. Raises OSError."""
        if not params.get("do_remote_prefill"):
            return None
        missing = [name for name in _PARAMS if name not in params]
        if missing:
            raise OSError(f"KeyError: {missing[0]!r}")
        request, found = params["remote_request_id"], None
        for worker in range(self.par.tp):
            step = params["remote_ptp_size"] // self.par.tp
            link = self._link((params["remote_host"], params["remote_port"] + worker * step))
            found = link.pull(request)
            link.differences(self.told, "unlike sides")
            if found is None:
                raise OSError(f"no KV of request {request}")
        link.free(request)
        return found

    def _link(self, address: tuple[str, int]) -> links.Link:
        if address not in self.links:
            lost = f"Failed to connect to target: {address[0]}:{address[1]}, status: 103900"
            self.links[address] = links.Link(address, self.par.rank, lost)
        return self.links[address]
