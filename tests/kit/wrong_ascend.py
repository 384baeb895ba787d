"""Wrong deployments of vllm-ascend, one fault each, and who must notice it.

As wrong_deployments.py is for omni-infer. BY_PLAN is on top of the shipped environment; BY_TWIN on
top of the two instances of twin_here.py.
"""

from __future__ import annotations

import json
from typing import Any

from twin_case import Fault
from wrong_deployments import Wrong as _Wrong

BASED = "vllm-ascend-pd"


def _wrong(name: str, site: str, says: str) -> _Wrong:
    return _Wrong(name, site, says, BASED)


def _args(role: str, text: str) -> str:
    return f"roles: {{{role}: {{server: {{args: {{{text}}}}}}}}}  # here\n"


def _env(role: str, name: str, value: object) -> str:
    return f"roles: {{{role}: {{server: {{env: {{{name}: {value}}}}}}}}}  # here\n"


def _kv(role: str, text: str) -> str:
    return _args(role, f"kv-transfer-config: {{{text}}}")


def _sizes(role: str, block: str, sizes: str) -> str:
    return _kv(role, f"kv_connector_extra_config: {{{block}: {{{sizes}}}}}")


def _parallel(prefill: int, decode: int) -> str:
    return (
        f"roles: {{prefill: {{server: {{tensor_parallel: {prefill}}}}},"
        f" decode: {{server: {{tensor_parallel: {decode}}}}}}}\n"
    )


# Two prefill instances on one host, of which each has half of the devices.
SHARED = (
    "topology: {prefill: [{hosts: [p0], devices: 0-7}, {hosts: [p0], devices: 8-15}],\n"
    "  decode: [{hosts: [d0, d1]}], proxy: p0}\n"
)

# Before anything starts: by the configuration and the plan.
BY_PLAN = (
    # --- devices ---
    _wrong(
        "a list with spaces",
        _env("prefill", "ASCEND_RT_VISIBLE_DEVICES", "'0, 1, 2, 3, 4, 5, 6, 7'"),
        "ASCEND_RT_VISIBLE_DEVICES",
    ),
    _wrong(
        "one list for all ranks of a host",
        _env("decode", "ASCEND_RT_VISIBLE_DEVICES", "'0'"),
        "ASCEND_RT_VISIBLE_DEVICES",
    ),
    _wrong(
        "two instances on the same devices", SHARED.replace("8-15", "7-14"), "device 7 of host p0"
    ),
    _wrong(
        "devices that no rank uses",
        "roles: {decode: {server: {tensor_parallel: 3}}}  # here\n",
        "multiple of",
    ),
    _wrong(
        "more ranks than devices", _args("prefill", "tensor-parallel-size: 32"), "tensor-parallel"
    ),
    # --- ranks and their meeting ---
    _wrong("every rank is 0", _args("decode", "data-parallel-rank: 0"), "data-parallel-rank"),
    _wrong(
        "the group of one host", _args("decode", "data-parallel-size: 16"), "data-parallel-size"
    ),
    _wrong(
        "another host is rank 0",
        _args("decode", "data-parallel-address: 192.0.2.14"),
        "data-parallel-address",
    ),
    _wrong(
        "another rpc port on one side",
        _args("decode", "data-parallel-rpc-port: 8200"),
        "data-parallel-rpc-port",
    ),
    _wrong(
        "two instances on one rpc port",
        SHARED + _args("prefill", "data-parallel-rpc-port: 8000"),
        "8000",
    ),
    # --- the hand-over's sizes ---
    _wrong("own tp_size", _sizes("prefill", "prefill", "tp_size: 16"), "tp_size"),
    _wrong("own dp_size", _sizes("decode", "decode", "dp_size: 16"), "dp_size"),
    _wrong("the other side's size", _sizes("decode", "prefill", "tp_size: 4"), "tp_size"),
    _wrong(
        "decode with more tensor parallelism",
        _parallel(4, 8),
        "tensor parallel",
    ),
    _wrong(
        "no multiple of decode's",
        'hosts: {p0: {devices: "0-11"}, p1: {devices: "0-11"}}\n' + _parallel(6, 4),
        "tensor parallel",
    ),
    _wrong("another block size", _args("decode", "block-size: 64"), "block-size"),
    # --- connector and roles ---
    _wrong(
        "another connector on one side",
        _kv("decode", "kv_connector: MooncakeHybridConnector"),
        "kv_connector",
    ),
    _wrong(
        "a connector of the GPU's",
        _kv("disaggregated", "kv_connector: MooncakeConnector"),
        "Mooncake",
    ),
    _wrong(
        "a pool alone",
        _kv("disaggregated", "kv_connector: AscendStoreConnector"),
        "AscendStoreConnector hands no prompt over",
    ),
    _wrong("prefill consumes", _kv("prefill", "kv_role: kv_consumer"), "kv_role kv_consumer"),
    _wrong(
        "a proxy that pulls, a connector that pushes",
        _kv("disaggregated", "kv_connector: MooncakeLayerwiseConnector"),
        "proxy.kv_params",
    ),
    _wrong("a proxy that hands nothing over", "proxy: {kv_params: none}  # here\n", "kv_params"),
    # --- ports ---
    _wrong("the kernel's ports for KV", "ports: {kv_block: 36000}\n", "36"),
    _wrong("Mooncake's random ports for KV", _kv("prefill", "kv_port: 15500"), "15500"),
    _wrong("AscendDirect's ports for KV", _kv("prefill", "kv_port: 20100"), "20100"),
    _wrong(
        "two instances on one KV block",
        SHARED + _kv("prefill", "kv_port: 18000"),
        "18000",
    ),
    _wrong("KV on the API's port", _kv("prefill", "kv_port: 9000"), "9000"),
    _wrong("HCCL of two instances", SHARED + _env("prefill", "HCCL_IF_BASE_PORT", 28000), "28000"),
    # --- addresses, variables ---
    _wrong("HCCL on loopback", _env("decode", "HCCL_IF_IP", "127.0.0.1"), "HCCL_IF_IP"),
    _wrong(
        "Gloo's interface is lo", _env("decode", "GLOO_SOCKET_IFNAME", "lo"), "GLOO_SOCKET_IFNAME"
    ),
    _wrong(
        "the side channel on loopback", _env("prefill", "VLLM_HOST_IP", "127.0.0.1"), "VLLM_HOST_IP"
    ),
    _wrong(
        "a release that is none",
        "profile: {omni_version: vllm-ascend-v0.23.1}  # here\n",
        "v0.23.0",
    ),
)


KV_PORT, API_PORT, RPC_PORT = 9300, 9310, 9320  # of faults, beside those of the host


def _one(**rest: Any) -> Fault:
    """A fault that prefill's first rank shows."""
    return Fault(starts=("p0",), watched="p0.0", **rest)


def _told(role: str, prefill_tp: int = 2, decode_tp: int = 1, **more: Any) -> list[str]:
    """What a role is told of the hand-over."""
    prefill, decode = more.pop("prefill", {}), more.pop("decode", {})
    data = {
        "kv_connector": "MooncakeConnectorV1",
        "kv_role": role,
        "kv_port": KV_PORT,
        "kv_connector_extra_config": {
            "prefill": {"dp_size": 2, "tp_size": prefill_tp, **prefill},
            "decode": {"dp_size": 2, "tp_size": decode_tp, **decode},
        },
        **more,
    }
    return ["--kv-transfer-config", json.dumps(data)]


def _config(statement: str) -> str:
    """Edit the model's config.json by a Python statement on its data d."""
    return (
        "python3 -c \"import json, pathlib; p = pathlib.Path('model/config.json');"
        f' d = json.loads(p.read_text()); {statement}; p.write_text(json.dumps(d))"'
    )


_VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"

# When servers start, whatever wrote their start script. The twin dies, doctor names the failure.
BY_TWIN = {
    # --- devices ---
    "an id that is not there": (_one(env={"p0.0": {_VISIBLE: "0,9"}}), "visible-devices"),
    "a list with spaces": (_one(env={"p0.0": {_VISIBLE: "0, 1"}}), "visible-devices"),
    "fewer devices than ranks": (_one(env={"p0.0": {_VISIBLE: "0"}}), "too-few-devices"),
    "no device": (_one(shell={"a3": "rm dev/davinci*"}), "no-device"),
    "another server's device": (
        Fault(
            env={"p0.1": {_VISIBLE: "1,2"}},
            first={"p0.0": "init on NPUs"},
            starts=("p0",),
            watched="p0.1",
        ),
        "hccl-port",
    ),
    # --- ranks and their meeting ---
    "a rank without rank 0": (
        Fault(starts=("d0.1",), watched="d0.1", in_vain=True),
        "rank-alone",
    ),
    "rank 0 elsewhere": (
        Fault(
            words={"d0.1": ["--data-parallel-rpc-port", str(RPC_PORT)]},
            starts=("d0",),
            watched="d0.1",
            in_vain=True,
        ),
        "rank-alone",
    ),
    "a rank that the group does not have": (
        _one(words={"p0.0": ["--data-parallel-rank", "2"]}),
        "rank-out-of-range",
    ),
    "rank 0 at an address of another host": (
        _one(words={"p0.0": ["--data-parallel-address", "192.0.2.9"]}),
        "address-not-here",
    ),
    "rank 0's port is taken": (
        _one(words={"p0.0": ["--data-parallel-rpc-port", str(RPC_PORT)]}, taken={"a3": RPC_PORT}),
        "dp-port-in-use",
    ),
    "rank 0 without the others": (
        Fault(starts=("d0.0",), watched="d0.0", in_vain=True),
        "ranks-missing",
    ),
    "ranks of two sizes": (
        Fault(
            words={
                "d0.1": ["--data-parallel-size", "3", *_told("kv_consumer", decode={"dp_size": 3})]
            },
            starts=("d0",),
            watched="d0.0",
            in_vain=True,
        ),
        "gloo-mesh",
    ),
    "ranks of a model without experts": (
        _one(shell={"a3": _config("d['n_routed_experts'] = 0")}),
        "dense-ranks",
    ),
    # --- the hand-over ---
    "own tensor parallel size": (
        _one(words={"p0": _told("kv_producer", prefill_tp=4)}),
        "parallel-size-conflict",
    ),
    "own data parallel size": (
        Fault(
            words={"d0": _told("kv_consumer", decode={"dp_size": 4})},
            starts=("d0.0",),
            watched="d0.0",
        ),
        "parallel-size-conflict",
    ),
    "prefill is told to consume": (
        _one(words={"p0": _told("kv_consumer")}),
        "parallel-size-conflict",
    ),
    "decode has more tensor parallelism": (
        _one(words={"p0": _told("kv_producer", decode_tp=4)}),
        "prefill-tp",
    ),
    "no multiple of decode's": (
        _one(
            env={"p0.0": {_VISIBLE: "0,1,2"}, "p0.1": {_VISIBLE: "3,4,5"}},
            words={"p0": ["-tp", "3", *_told("kv_producer", prefill_tp=3, decode_tp=2)]},
        ),
        "prefill-tp",
    ),
    "a connector that is none": (
        _one(words={"p0": _told("kv_producer", kv_connector="MoonCakeConnectorV1")}),
        "connector-unknown",
    ),
    "a key that nobody knows": (_one(words={"p0": _told("kv_producer", kv_ports=1)}), "bad-flag"),
    "another block size": (
        Fault(
            words={"decode": ["--block-size", "64"]},
            starts=("p0", "d0"),
            watched="d0.0",
            asks=True,
        ),
        "kv-link",
    ),
    "another connector on one side": (
        Fault(
            words={"decode": _told("kv_consumer", kv_connector="MooncakeHybridConnector")},
            starts=("p0", "d0"),
            watched="d0.0",
            asks=True,
        ),
        "kv-link",
    ),
    # --- ports ---
    "a port of the KV block is taken": (
        _one(words={"p0": _told("kv_producer")}, taken={"a3": KV_PORT + 1}),
        "kv-thread",
    ),
    "the API's port is taken": (
        _one(words={"p0.0": ["--port", str(API_PORT)]}, taken={"a3": API_PORT}),
        "port-in-use",
    ),
    # --- environment, model ---
    "CANN's variables are not set": (
        _one(env={"p0.0": {"LD_LIBRARY_PATH": None}}),
        "cann-not-loaded",
    ),
    "an interface that is not there": (
        _one(env={"p0.0": {"GLOO_SOCKET_IFNAME": "enp23s0f3"}}),
        "no-interface",
    ),
    "Gloo on loopback": (_one(env={"p0.0": {"GLOO_SOCKET_IFNAME": "lo"}}), "gloo-loopback"),
    "HCCL on loopback": (_one(env={"p0.0": {"HCCL_IF_IP": "127.0.0.1"}}), "hccl-loopback"),
    "no description by ModelSlim": (
        _one(words={"p0": ["--quantization", "ascend"]}),
        "modelslim-file",
    ),
    "no model": (_one(shell={"a3": "rm model/config.json"}), "no-model"),
}
