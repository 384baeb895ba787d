"""vllm-ascend v0.23.0's start with one API server for each data-parallel rank.

Its checks come in the order of the real one: the configuration as a whole, devices, the meeting of
all ranks, HCCL, weights, the connector. Rules: vllm/v1/engine (rendezvous), vllm_ascend/platform.py
and ascend_config.py (sizes), vllm_ascend/distributed (connectors).
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, Mapping

from vllm.twin import checks, model, mooncake, parallel, ports, serving
from vllm.twin.log import Fault, say

_LIMIT_S = "300"  # that a rank waits for rank 0, fixed in vLLM; TWIN_LIMIT_S: less, for tests
_VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")


class FrontEnd(parallel.Group):
    """Rank 0's front end, to which the engines of all ranks say hello, then their common group."""

    def bind(self, listener: socket.socket, end: float) -> None:
        place = (self.par.master_ip, self.par.master_port)
        try:
            listener.bind(place)
        except OSError as error:
            raise Fault(
                ports.zmq_error(error, *place),
                '  File "/vllm-workspace/vllm/vllm/v1/engine/utils.py", line 1068, in'
                " launch_core_engines",
                "    with zmq_socket_ctx(",
            ) from error

    def unreachable(self, end: float) -> Fault:
        """vllm/v1/engine/core.py, startup_handshake: the real words, whatever the limit is here."""
        return Fault(
            "RuntimeError: Did not receive response from front-end process within 5 minutes"
        )


def layout(values: Any) -> parallel.Parallel:
    """Ranks by the words of the server."""
    size, rank = values.data_parallel_size, values.data_parallel_rank
    if size > 1 and rank is None:
        raise Fault("RuntimeError: the twin has no data parallelism inside of one API server")
    if size == 1 and rank is not None:
        raise Fault(
            "  Value error, data_parallel_external_lb can only be set when data_parallel_size > 1"
        )
    rank = rank or 0
    if rank >= size:
        raise Fault(f"  Value error, data_parallel_rank ({rank}) must be in the range [0, {size})")
    place = (values.data_parallel_address, values.data_parallel_rpc_port)
    return parallel.Parallel(values.tensor_parallel_size, size, rank, 0, *place)


def experts(values: Any, par: parallel.Parallel) -> None:
    """A model without experts has no ranks."""
    config = json.loads((Path(values.model) / "config.json").read_text())
    whole = {**config, **config.get("text_config", {})}
    if par.size > 1 and not any(whole.get(name) for name in _EXPERTS):
        raise Fault(
            "ValueError: Non-MoE models do not support external data parallel mode, please launch"
            " independent instances."
        )


def description(values: Any, quantization: Any) -> None:
    """vllm_ascend/quantization: --quantization ascend goes by ModelSlim's file."""
    if quantization != "ascend":
        return
    if not (Path(values.model) / "quant_model_description.json").is_file():
        raise Fault("ValueError: ERROR: ModelSlim Quantization Config Not Found")


def devices(values: Any, env: Mapping[str, str]) -> list[int]:
    """The first devices of the server's own list, as many as its workers are."""
    there = parallel.present()
    wanted = values.tensor_parallel_size * values.pipeline_parallel_size
    if not there or env.get(_VISIBLE) == "":
        raise parallel.no_device()
    listed = env[_VISIBLE].split(",") if _VISIBLE in env else [str(n) for n in there]
    for word in listed:
        if not word.isdigit() or int(word) not in there:
            raise Fault(
                f"SetDevice:Set visible device failed, invalid device={word}, input visible"
                f" devices:{env[_VISIBLE]}\n"
                f"EE1001: The argument is invalid.Reason: set {_VISIBLE}:{env[_VISIBLE]} error,"
                f" input data rang[0-{len(there)})"
            )
    if len(listed) < wanted:
        raise Fault(
            f"AssertionError: local_world_size ({wanted}) must be less than or equal to the number"
            f" of visible devices ({len(listed)})."
        )
    return [int(word) for word in listed[:wanted]]


def hold(used: list[int], address: str) -> list[socket.socket]:
    """Nobody else computes on these. Real: each device listens at port 16666 of its own address."""
    held = []
    for device in used:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.bind(f"\0omnikit-twin-npu-{os.environ.get('TWIN_DEV', '')}-{device}")
        except OSError as error:
            raise Fault(
                "RuntimeError: createHCCLComm HCCL function error: HcclGetRootInfo(&hcclID), error"
                " code is 7\n"
                f"[HcclSocket][Listen] socket type[0], listen on ip[{address}] and specific"
                f" port[16666] fail. Please check the port status and whether the port is being"
                f" used by other process. device {device}"
            ) from error
        held.append(made)
    return held


class Engine:
    """One server's engine."""

    def __init__(self, values: Any, env: Mapping[str, str]) -> None:
        self.values, self.env = values, env
        self.limit_s = float(env.get("TWIN_LIMIT_S", _LIMIT_S))
        self.held: list[Any] = []  # sockets that stay open
        self.state = serving.State(model.served(values), values.max_model_len or 4096)

    def start(self) -> None:
        """Everything up to the point where the API answers; raises Fault."""
        values, env = self.values, self.env
        par = layout(values)
        checks.network(env, par.size)
        quantization = model.config(values)
        experts(values, par)
        description(values, quantization)
        if values.kv_transfer_config:
            mooncake.sizes(values)
        model.describe(values, quantization)
        ids = devices(values, env)
        here = sorted(parallel.addresses() - {"127.0.0.1"})
        address = env.get("VLLM_HOST_IP") or (here[0] if here else "127.0.0.1")
        self.held += hold(ids, address)
        say("worker.py:258", f"init on NPUs {ids}")
        group = FrontEnd(par, self.limit_s)
        group.meet()
        self.held += ports.hccl(ids, env, address)
        model.load(values, quantization, ids[0])
        if values.kv_transfer_config:
            self.held.append(mooncake.connect(values, par, address, self.state))
        group.watch()
        self.held.append(group)
