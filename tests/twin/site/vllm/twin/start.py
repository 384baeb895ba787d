"""From words and variables to a server that answers, in the order in which the real one starts."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from vllm.twin import arguments, checks, links, model, parallel, ports, rank_tables, serving
from vllm.twin.log import Fault, die, say
from vllm.twin.release import RELEASE

_CONNECTOR = "AscendHcclConnectorV1"  # omni/accelerators/pd/__init__.py registers it
_LIMIT_S = "1800"  # of Gloo and its store; TWIN_LIMIT_S: less, for tests


def environment(env: Mapping[str, str]) -> None:
    """Variables whose values omni-infer, Gloo and HCCL refuse."""
    if env.get("VLLM_USE_V1", "1") != "1":
        # omni/adaptors/vllm/platform.py, ensure_v1_engine
        raise Fault("RuntimeError: Omni inference requires the V1 engine.")
    checks.network(env, int(env.get("VLLM_DP_SIZE", "1")))


def told_of(values: Any, env: Mapping[str, str]) -> dict[str, Any]:
    """What prefill and decode must have been told alike."""
    kv = values.kv_transfer_config or {}
    told = {name: kv.get(name) for name in ("kv_connector", "kv_parallel_size")}
    return {**told, "PREFILL_POD_NUM": env.get("PREFILL_POD_NUM", "1")}


def role_fits(values: Any, env: Mapping[str, str]) -> None:
    """omni/accelerators/pd/llmdatadist_manager.py, LLMDataDistConfig.__init__: an error without
    words.
    """
    kv = values.kv_transfer_config
    if kv.get("kv_connector") != _CONNECTOR:
        # vllm/distributed/kv_transfer/kv_connector/factory.py
        raise Fault(f"ValueError: Unsupported connector type: {kv.get('kv_connector')}")
    pairs = {("kv_producer", "prefill"), ("kv_consumer", "decode")}
    if (kv.get("kv_role"), env.get("ROLE")) not in pairs:
        raise Fault(
            "ValueError",
            '  File "/workspace/omniinfer/omni/accelerators/pd/llmdatadist_manager.py", line 71,'
            " in __init__",
            "    raise ValueError",
        )


def addresses_fit(group: rank_tables.Group, ids: Sequence[int]) -> None:
    """HCCL holds the rank table against the devices: /etc/hccn.conf says what they have."""
    here = parallel.addresses()
    try:
        lines = Path("/etc/hccn.conf").read_text().splitlines()
    except OSError:
        lines = []
    rows = dict(line.strip().split("=", 1) for line in lines if "=" in line)
    by_id = {device.id: device for device in group.devices if device.server_ip in here}
    for number in ids:
        real = rows.get(f"address_{number}")
        device = by_id.get(number)
        if device is None or (real is not None and real != device.ip):
            found = "no entry" if device is None else device.ip
            raise Fault(
                "RuntimeError: Ascend collective communication initialization failed.\n"
                "EI0004: The ranktable is invalid,Reason:[The ranktable config devId is"
                f" inconsistent with the local devId.]. device {number}: {found}, local"
                f" {real or sorted(here)}"
            )


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
        environment(env)
        quantization = model.config(values)
        par = parallel.parallel(values, env)
        model.describe(values, quantization)
        ids = self._devices(par)
        group = parallel.Group(par, self.limit_s)
        group.meet()
        model.extra(env, values, par.size)
        here = sorted(parallel.addresses() - {"127.0.0.1"})
        self.held += ports.hccl(ids, env, here[0] if here else "127.0.0.1")
        model.load(values, quantization, ids[0])
        if values.kv_transfer_config:
            self._connect(par, ids)
        group.watch()
        self.held.append(group)

    def _devices(self, par: parallel.Parallel) -> list[int]:
        """Devices of the workers on this host; those on others are Ray's, each with the
        SERVER_OFFSET that its `ray start` had (vLLM hands it to no worker).
        """
        offset = int(self.env.get("SERVER_OFFSET", "0"))
        if self.values.distributed_executor_backend != "ray":
            return parallel.claim(par, self.env, offset, par.tp)
        from ray import twin_nodes  # late: most servers need no Ray

        # vllm/executor/ray_utils.py, _wait_until_pg_ready: until the cluster has enough.
        end = time.monotonic() + self.limit_s
        while True:
            nodes = twin_nodes()
            total = sum(len(node["devices"]) for node in nodes)
            if par.tp <= total or time.monotonic() > end:
                break
            time.sleep(0.1)
        if par.tp > total:
            raise Fault(
                f"ValueError: The number of required NPUs exceeds the total number of available"
                f" NPUs in the placement group: {par.tp} of {total}"
            )
        mine: list[int] = []
        for node in nodes:
            per = par.tp // len(nodes)
            ids = parallel.claim(par, self.env, int(node["offset"]), per)
            mine = ids if node["here"] else mine
        return mine

    def _connect(self, par: parallel.Parallel, ids: list[int]) -> None:
        values, env = self.values, self.env
        tables = rank_tables.read(env)
        role_fits(values, env)
        addresses_fit(tables.own, ids)
        told = told_of(values, env)
        if values.kv_transfer_config["kv_role"] == "kv_consumer":
            decode = links.DecodeLinks(tables, par.rank, told)
            decode.wait()
            self.state.pull = decode.pull
            return
        port = int(env.get("VLLM_LLMDATADIST_ZMQ_PORT", "5568")) + par.rank
        control = ports.zmq(tables.own.host_ip, port)
        prefill = links.PrefillLinks(tables, told)
        self.held += [control, prefill]
        threading.Thread(target=_free, args=(control, prefill), daemon=True).start()
        prefill.wait()

        def keep(request: str, prompt: str, _body: dict[str, Any]) -> dict[str, Any]:
            """llmdatadist_connector_v1.py, PrefillConnectorScheduler.request_finished."""
            prefill.keep(request, prompt)
            return {
                "remote_block_ids": list(range(1, 2 + len(prompt) // 512)),
                "remote_cluster_id": tables.own.cluster,
                "remote_host_ip": f"tcp://{tables.own.host_ip}:{port}",
                "spec_token_ids": [],
                "remote_dp_rank": par.rank,
                "remote_request_id": request,
            }

        self.state.keep = keep


def _free(control: Any, prefill: links.PrefillLinks) -> None:
    """Requests whose KV decode has pulled."""
    while True:
        peer, _ = control.accept()
        with peer, peer.makefile() as lines:
            for line in lines:
                for request in json.loads(line):
                    prefill.free(request)


def _engine() -> Any:
    """Whose start it is."""
    if RELEASE["engine"] == "omni-infer":
        return Engine
    from vllm.twin import ascend  # late: it is there for one of them

    return ascend.Engine


def main(words: Sequence[str], by_module: bool = False) -> int:
    """`vllm serve …`: see the package."""
    checks.cann()
    values = arguments.read(words, by_module)
    say("api_server.py:1289", f"vLLM API server version {RELEASE['version']}")
    # So that a stop during the start ends at once, as the real one's handler does.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        bound = ports.api(values.host or "", values.port)
    except OSError as error:
        sys.stdout.write(f"OSError: [Errno {error.errno}] {error.strerror}\n")
        return 1
    engine = _engine()(values, dict(os.environ))
    try:
        engine.start()
    except Fault as fault:
        die(fault)
    server = serving.Server(bound, engine.state)
    host = values.host or "0.0.0.0"
    say("api_server.py:1336", f"Starting vLLM API server on http://{host}:{values.port}")
    say("server.py:82", "Application startup complete.")
    server.serve_forever()
    return 0
