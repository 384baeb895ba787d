"""Wrong deployments, one fault each, and who must notice it: the table that tests go through.

site: settings on top of 2P1D (v0.4.1, DeepSeek-R1). A line that ends with "# here" is the one that
the error must name by file and line. says: words of the error (plan) or the known failure that
doctor names (twin: servers are started with the fault, see twin_case.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from twin_case import Fault

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.topology.topology import make_plan


@dataclass(frozen=True)
class Wrong:
    """One fault. based: the environment that it is in."""

    name: str
    site: str
    says: str
    based: str = "2p1d"


def refused(wrong: Wrong, folder: Path) -> None:
    """The plan refuses it by name and place."""
    site = folder / "site.yaml"
    site.write_text(wrong.site)
    with pytest.raises(InputError) as caught:
        make_plan(config.load(wrong.based, [str(site)], environ={}))
    said = str(caught.value)
    assert wrong.says in said
    lines = [n for n, line in enumerate(wrong.site.splitlines(), 1) if line.endswith("# here")]
    for number in lines:
        assert f"{site}:{number}" in said


def _env(role: str, name: str, value: object) -> str:
    return f"roles: {{{role}: {{server: {{env: {{{name}: {value}}}}}}}}}  # here\n"


def _args(role: str, text: str) -> str:
    return f"roles: {{{role}: {{server: {{args: {{{text}}}}}}}}}  # here\n"


def _kv(role: str, text: str) -> str:
    return _args(role, f"kv-transfer-config: {{{text}}}")


# Two prefill instances on one host, of which each has half of the devices.
SHARED = (
    "topology: {prefill: [{hosts: [p0], devices: 0-7}, {hosts: [p0], devices: 8-15}],\n"
    "  decode: [{hosts: [d0, d1]}], proxy: p0}\n"
)

# Before anything starts: by the configuration and the plan.
BY_PLAN = (
    # --- devices ---
    Wrong("decode on the upper half", 'hosts: {d0: {devices: "8-15"}}  # here\n', "devices 0 to 7"),
    Wrong(
        "decode with a list",
        _env("decode", "ASCEND_RT_VISIBLE_DEVICES", "'0,1,2,3'"),
        "ASCEND_RT_VISIBLE_DEVICES",
    ),
    Wrong(
        "decode with a list for each server",
        _env("decode", "ASCEND_RT_VISIBLE_DEVICES", "'${plan.server_devices}'"),
        "IndexError",
    ),
    Wrong(
        "prefill sees half of its devices",
        _env("prefill", "ASCEND_RT_VISIBLE_DEVICES", "'0,1,2,3,4,5,6,7'"),
        "ASCEND_RT_VISIBLE_DEVICES",
    ),
    Wrong(
        "a list with spaces",
        _env("prefill", "ASCEND_RT_VISIBLE_DEVICES", "'" + ", ".join(map(str, range(16))) + "'"),
        "ASCEND_RT_VISIBLE_DEVICES",
    ),
    Wrong("a device twice", 'hosts: {p0: {devices: "0,1,1,2"}}  # here\n', "devices"),
    Wrong("a list with a gap of words", 'hosts: {p0: {devices: "0, x"}}  # here\n', "devices"),
    Wrong(
        "two instances on the same devices",
        SHARED.replace("8-15", "7-15"),
        "device 7 of host p0",
    ),
    Wrong(
        "more ranks than devices", _args("prefill", "tensor-parallel-size: 32"), "tensor-parallel"
    ),
    Wrong(
        "half the tensor parallel size",
        "roles: {prefill: {server: {tensor_parallel: 8}}}  # here\n",
        "tensor parallel size 8",
    ),
    Wrong(
        "devices that no rank uses",
        "roles: {decode: {server: {tensor_parallel: 3}}}  # here\n",
        "multiple of",
    ),
    # --- offsets and ranks ---
    Wrong("no offset on the second host", _env("decode", "SERVER_OFFSET", 0), "SERVER_OFFSET 0"),
    Wrong("an offset in prefill", _env("prefill", "SERVER_OFFSET", 16), "SERVER_OFFSET 16"),
    Wrong("every rank is 0", _env("decode", "VLLM_DP_RANK", 0), "VLLM_DP_RANK 0"),
    Wrong(
        "ranks of a host count from 0",
        _env("decode", "VLLM_DP_RANK", "'${plan.local_rank}'"),
        "VLLM_DP_RANK 0, the plan has 16",
    ),
    Wrong(
        "local ranks of a host count from 0",
        _env("decode", "VLLM_DP_RANK_LOCAL", "'${plan.local_rank}'"),
        "VLLM_DP_RANK_LOCAL 0, the plan has 16",
    ),
    Wrong(
        "2025-08 with tensor parallel 2 over two hosts",
        "profile: {omni_version: '2025-08'}\nroles: {decode: {server: {tensor_parallel: 2}}}\n",
        "data-parallel rank",
    ),
    Wrong("kv_rank of another", _kv("decode", "kv_rank: 1"), "kv_rank 1, the plan has 2"),
    Wrong("one engine_id for all", _kv("prefill", "engine_id: 0"), "engine_id 0, the plan has 1"),
    # --- sizes ---
    Wrong("the group of one host", _env("decode", "VLLM_DP_SIZE", 16), "VLLM_DP_SIZE 16"),
    Wrong("prefill in a group", _env("prefill", "VLLM_DP_SIZE", 2), "VLLM_DP_SIZE 2"),
    Wrong("kv_parallel_size 2", _kv("decode", "kv_parallel_size: 2"), "kv_parallel_size 2"),
    Wrong(
        "kv_parallel_size in prefill", _kv("prefill", "kv_parallel_size: 2"), "kv_parallel_size 2"
    ),
    Wrong("one prefill instance told", _env("decode", "PREFILL_POD_NUM", 1), "PREFILL_POD_NUM 1"),
    Wrong(
        "dp_size of upstream's file",
        "roles: {decode: {server: {files: {model_extra_config.json:\n"
        "  {model_parallel_config: {dp_size: 64}}}}}}  # here\n",
        "told dp_size 64",
    ),
    Wrong(
        "a larger batch than the graph",
        "roles: {decode: {server: {args: {max-num-seqs: 64}}}}\n",
        "expected [128]",
    ),
    Wrong(
        "a graph for no speculation",
        "roles: {decode: {server: {files: {model_extra_config.json:\n"
        "  {operator_optimizition_config: {decode_gear_list: [32]}}}}}}  # here\n",
        "expected [64]",
    ),
    Wrong(
        "speculation switched off, the graph not",
        "roles: {disaggregated: {server: {args: {speculative_config: null}}}}\n",
        "expected [32]",
    ),
    Wrong("decode takes longer requests", _args("decode", "max-model-len: 64000"), "64000"),
    Wrong(
        "data parallel in the words",
        _args("decode", "data-parallel-size: 32"),
        "data-parallel-size",
    ),
    # --- roles and connector ---
    Wrong("prefill consumes", _kv("prefill", "kv_role: kv_consumer"), "kv_role kv_consumer"),
    Wrong("decode says it is prefill", _env("decode", "ROLE", "prefill"), "ROLE prefill"),
    Wrong("another connector", _kv("decode", "kv_connector: NixlConnector"), "kv_connector"),
    Wrong(
        "two decode instances",
        "topology: {prefill: [{hosts: [p0]}, {hosts: [p1]}],\n"
        "  decode: [{hosts: [d0]}, {hosts: [d1]}], proxy: p0}  # here\n",
        "has one",
    ),
    Wrong("no proxy", "topology: {proxy: null}  # here\n", "need a proxy"),
    # --- addresses ---
    Wrong("a loopback address", "hosts: {d1: {address: 127.0.0.1}}  # here\n", "loopback"),
    Wrong("no address", "hosts: {d1: {address: 10.0.0.300}}  # here\n", "expected an IP address"),
    Wrong(
        "two hosts with one address",
        "hosts: {d1: {address: 192.0.2.13}}\n",
        "given to d0 and to d1",
    ),
    Wrong("another master", _env("decode", "VLLM_DP_MASTER_IP", "192.0.2.14"), "192.0.2.14"),
    Wrong(
        "a host is missing in the list",
        _env("decode", "GLOBAL_DECODE_SERVER_IP_LIST", "192.0.2.13"),
        "GLOBAL_DECODE_SERVER_IP_LIST",
    ),
    Wrong(
        "the master is not the first of the list",
        _env("decode", "LOCAL_DECODE_SERVER_IP_LIST", "'192.0.2.14,192.0.2.13'"),
        "LOCAL_DECODE_SERVER_IP_LIST",
    ),
    Wrong("HCCL on loopback", _env("decode", "HCCL_IF_IP", "127.0.0.1"), "HCCL_IF_IP"),
    Wrong(
        "HCCL's interface is lo", _env("decode", "HCCL_SOCKET_IFNAME", "lo"), "HCCL_SOCKET_IFNAME"
    ),
    Wrong(
        "Gloo's interface is lo", _env("decode", "GLOO_SOCKET_IFNAME", "lo"), "GLOO_SOCKET_IFNAME"
    ),
    Wrong("the interface is lo", "hosts: {d0: {interface: lo}}  # here\n", "lo"),
    Wrong(
        "a list of interfaces for Gloo",
        _env("decode", "GLOO_SOCKET_IFNAME", "'^docker0,lo'"),
        "GLOO_SOCKET_IFNAME",
    ),
    # --- ports ---
    Wrong("the proxy on prefill's port", "ports: {proxy: 9000}  # here\n", "9000"),
    Wrong("master and API port", "ports: {master_base: 9000}\n", "9100"),
    Wrong("ports of the kernel", "ports: {api_base: 40000}\n", "40000"),
    Wrong("no port", "ports: {api_base: 65530}\n", "65"),
    Wrong("one port for all servers", _args("decode", "port: 9100"), "port 9100"),
    Wrong("another master port", _env("decode", "VLLM_DP_MASTER_PORT", 8200), "8200"),
    Wrong(
        "two instances on one control port",
        SHARED + _env("prefill", "VLLM_LLMDATADIST_ZMQ_PORT", 5568),
        "VLLM_LLMDATADIST_ZMQ_PORT 5568",
    ),
    Wrong(
        "two instances on HCCL's ports",
        SHARED + _env("prefill", "HCCL_IF_BASE_PORT", 60000),
        "HCCL_IF_BASE_PORT 60000",
    ),
    # --- rank tables ---
    Wrong(
        "somebody else's tables",
        _env("decode", "GLOBAL_RANK_TABLE_FILE_PATH", "/tmp/ranktable/global.json"),
        "GLOBAL_RANK_TABLE_FILE_PATH",
    ),
    Wrong(
        "the table of one host",
        _env(
            "decode",
            "RANK_TABLE_FILE_PATH",
            "'${plan.ranktable_dir}/local_ranktable_192.0.2.13_0.json'",
        ),
        "RANK_TABLE_FILE_PATH",
    ),
    # --- paths ---
    Wrong("a relative path of the model", "model: {path: models/R1}  # here\n", "absolute path"),
    Wrong("no source", "paths: {code_dir: null}  # here\n", "code_dir"),
    # --- environment and words ---
    Wrong("CANN's file is not loaded", "container: {profile: null}  # here\n", "libascendcl.so"),
    Wrong("the older engine", _env("disaggregated", "VLLM_USE_V1", 0), "VLLM_USE_V1"),
    Wrong(
        "one side waits shorter",
        _env("decode", "HCCL_CONNECT_TIMEOUT", 600),
        "all hosts need the same",
    ),
    Wrong(
        "a wait that HCCL does not take",
        "roles: {disaggregated: {server: {env: {HCCL_CONNECT_TIMEOUT: 60}}}}\n",
        "expected 120 to 7200",
    ),
    Wrong(
        "two parts with the same flag", _args("decode", "max_num_seqs: 32, max-num-seqs: 16"), "max"
    ),
    Wrong("a typing error", "roles: {decode: {servers: {}}}  # here\n", "server"),
    Wrong("a fact that is none", _env("decode", "A", "'${plan.dp_sizes}'"), "dp_size"),
    Wrong("two decode instances", _env("decode", "DECODE_POD_NUM", 2), "DECODE_POD_NUM"),
    Wrong("another name of the model", _args("decode", "served-model-name: other"), "p0 as"),
    Wrong(
        "another name of the model, for prefill",
        _args("prefill", "served-model-name: [a, b]"),
        "as a b",
    ),
    # --- versions ---
    Wrong("a release that is none", "profile: {omni_version: v0.4.3}  # here\n", "v0.4.2"),
)


TABLES = "/data/omnikit/bundle/ranktable"


def _table(name: str, edit: str) -> str:
    """Edit a rank table by a Python expression on its text t."""
    path = f"{TABLES}/{name}"
    return (
        f"python3 -c \"import pathlib; p = pathlib.Path('{path}'); t = p.read_text();"
        f' p.write_text({edit})"'
    )


GLOBAL = "global/global_ranktable_merge.json"
MERGED = "local_ranktable_merge.json"
MODEL = "/data/models/DeepSeek-R1-W8A8"
CONFIG = f"{MODEL}/config.json"
CONFIGS = "/workspace/omniinfer/tests/test_config"
EXTRA = "/data/omnikit/bundle/d1/model_extra_config.json"


def _one(**rest: object) -> Fault:
    """A fault that one server of prefill shows by itself."""
    return Fault(starts=("p0",), watched="p0", **rest)  # type: ignore[arg-type]


def _kv_words(role: str, connector: str = "AscendHcclConnectorV1", size: int = 2) -> list[str]:
    data = {"kv_connector": connector, "kv_role": role, "kv_rank": 1, "kv_parallel_size": size}
    return ["--kv-transfer-config", json.dumps(data)]


def _json(path: str, statement: str) -> str:
    """Edit a JSON file by a Python statement on its data d."""
    return (
        f"python3 -c \"import json, pathlib; p = pathlib.Path('{path}');"
        f' d = json.loads(p.read_text()); {statement}; p.write_text(json.dumps(d))"'
    )


# When servers start: what of this the plan would refuse stands here too, for releases' files can be
# wrong, and somebody may have edited a start script. The twin dies, doctor names the failure.
BY_TWIN = {
    # --- devices ---
    "a list of its own device for each decode server": (
        Fault(env={"d0.1": {"ASCEND_RT_VISIBLE_DEVICES": "1"}}, watched="d0.1"),
        "device-list",
    ),
    "a host's list for decode": (
        Fault(env={"decode": {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}}),
        "device-list",
    ),
    "a host's list for decode, first host": (
        Fault(env={"decode": {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}}, watched="d0.1"),
        "visible-devices",
    ),
    "an id that is not there": (
        _one(env={"p0": {"ASCEND_RT_VISIBLE_DEVICES": "0,16"}}),
        "visible-devices",
    ),
    "an empty list": (_one(env={"p0": {"ASCEND_RT_VISIBLE_DEVICES": ""}}), "device-list"),
    "no device in the container": (
        _one(shell={"p0": "rm /dev/davinci[0-9]*"}),
        "no-device",
    ),
    # --- offsets and ranks ---
    "no offset on the second host": (
        Fault(
            env={"d1": {"SERVER_OFFSET": "0"}},
            shell={"d1": "rm /dev/davinci[2-9] /dev/davinci1[0-5]"},
        ),
        "visible-devices",
    ),
    "an offset in prefill": (_one(env={"p0": {"SERVER_OFFSET": "16"}}), "device-offset"),
    "local ranks that count from 0 on each host": (
        Fault(env={"d1.0": {"VLLM_DP_RANK_LOCAL": "0"}}),
        "device-offset",
    ),
    "a rank beyond the group": (Fault(env={"d1.0": {"VLLM_DP_RANK": "4"}}), "rank-beyond-group"),
    "a rank twice": (
        Fault(env={"d1.0": {"VLLM_DP_RANK": "3"}}, in_vain=True),
        "gloo-mesh",
    ),
    # --- the group ---
    "a group that is larger than the servers": (
        Fault(env={"decode": {"VLLM_DP_SIZE": "5"}}, watched="d0.0", in_vain=True),
        "ranks-missing",
    ),
    "a host with another size": (
        Fault(env={"d0": {"VLLM_DP_SIZE": "3"}}, in_vain=True),
        "gloo-mesh",
    ),
    "another master": (
        Fault(env={"d1": {"VLLM_DP_MASTER_IP": "192.0.2.1"}}, starts=("d1",), in_vain=True),
        "master-unreachable",
    ),
    "another master port": (
        Fault(env={"d1": {"VLLM_DP_MASTER_PORT": "8200"}}, in_vain=True),
        "master-unreachable",
    ),
    "a host that was not started": (
        Fault(starts=("d0",), watched="d0.0", in_vain=True),
        "ranks-missing",
    ),
    # --- ports ---
    "the API's port is taken": (_one(taken={"p0": 9000}), "port-in-use"),
    "the master's port is taken": (Fault(taken={"d0": 8100}, watched="d0.0"), "port-in-use"),
    "the control port is taken": (_one(taken={"p0": 5568}), "kv-port-in-use"),
    "a port of HCCL is taken": (
        _one(env={"p0": {"HCCL_IF_BASE_PORT": "20000"}}, taken={"p0": 20001}),
        "hccl-port",
    ),
    "another server has the device": (_one(taken={"p0": 61000}), "hccl-busy"),
    # --- rank tables ---
    "no global table": (
        _one(shell={"p0": f"rm {TABLES}/{GLOBAL}"}),
        "ranktable-missing",
    ),
    "no name of a table": (_one(env={"p0": {"RANK_TABLE_FILE_PATH": None}}), "ranktable-missing"),
    "a table that was cut short": (
        _one(shell={"p0": _table(GLOBAL, "t[:100]")}),
        "ranktable-missing",
    ),
    "a decode host that is in no table": (
        _one(env={"p0": {"GLOBAL_DECODE_SERVER_IP_LIST": "192.0.2.9"}}),
        "ranktable-address",
    ),
    "a decode host that is not in the own table": (
        Fault(env={"d1": {"LOCAL_DECODE_SERVER_IP_LIST": "192.0.2.9"}}),
        "ranktable-address",
    ),
    "the table of another instance": (
        _one(
            env={"p0": {"RANK_TABLE_FILE_PATH": "/tmp/other.json"}},
            shell={
                "p0": f"sed s/10.1.1/10.1.9/g {TABLES}/local_ranktable_*_01.json >/tmp/other.json"
            },
        ),
        "ranktable-address",
    ),
    "fewer groups than instances": (_one(env={"p0": {"PREFILL_POD_NUM": "2"}}), "ranktable-groups"),
    "two decode instances told": (_one(env={"p0": {"DECODE_POD_NUM": "2"}}), "ranktable-address"),
    "a device address that changed": (
        _one(shell={"p0": "sed -i s/10.1.1.101/10.1.1.201/ /etc/hccn.conf"}),
        "ranktable-wrong",
    ),
    # --- roles and the hand-over ---
    "decode says it is prefill": (_one(env={"p0": {"ROLE": "decode"}}), "ranktable-address"),
    "prefill is told to consume": (
        _one(words={"p0": _kv_words("kv_consumer")}),
        "role-mismatch",
    ),
    "a connector of another release": (
        _one(words={"p0": _kv_words("kv_producer", "MooncakeConnector")}),
        "connector-unknown",
    ),
    "kv_parallel_size differs": (
        Fault(
            words={"decode": _kv_words("kv_consumer", size=3)},
            starts=("p0", "d0", "d1"),
            watched="d0.0",
            asks=True,
        ),
        "kv-link",
    ),
    # --- the model and its extra configuration ---
    "no model": (_one(shell={"p0": f"rm {CONFIG}"}), "no-model"),
    "a shard that was cut short": (
        _one(shell={"p0": f"truncate -s -4 {MODEL}/*.safetensors"}),
        "truncated-weights",
    ),
    "INT8 that nothing describes": (
        _one(shell={"p0": _json(CONFIG, "d.pop('quantization_config')")}),
        "quantisation-missed",
    ),
    "FP8 weights": (
        _one(shell={"p0": _json(CONFIG, "d['quantization_config']['quant_method'] = 'fp8'")}),
        "quantisation-unsupported",
    ),
    "another quantisation told": (
        _one(words={"p0": ["--quantization", "awq"]}),
        "quantisation-mismatch",
    ),
    "a file of the model's code is missing": (
        _one(
            shell={
                "p0": _json(CONFIG, "d['auto_map'] = {'AutoConfig': 'configuration_deepseek.A'}")
            }
        ),
        "missing-code",
    ),
    "no placement file": (_one(shell={"p0": f"rm {CONFIGS}/config_p.yaml"}), "placement"),
    "a key that the release does not know": (
        Fault(shell={"d1": _json(EXTRA, "d['model_parallel_config']['x'] = 1")}),
        "extra-config",
    ),
    "dp_size of upstream's file": (
        Fault(shell={"d1": _json(EXTRA, "d['model_parallel_config']['dp_size'] = 64")}),
        "hccl-timeout",
    ),
    "a gear that is too small": (
        Fault(
            shell={
                "d1": _json(EXTRA, "d['operator_optimizition_config']['decode_gear_list'] = [32]")
            }
        ),
        "decode-gear",
    ),
    # --- environment and words ---
    "CANN's variables are not set": (
        _one(env={"p0": {"LD_LIBRARY_PATH": None}}),
        "environment-missing",
    ),
    "an interface that is not there": (
        _one(env={"p0": {"GLOO_SOCKET_IFNAME": "enp23s0f3"}}),
        "no-interface",
    ),
    "Gloo on loopback": (Fault(env={"d1": {"GLOO_SOCKET_IFNAME": "lo"}}), "gloo-loopback"),
    "HCCL on loopback": (_one(env={"p0": {"HCCL_IF_IP": "127.0.0.1"}}), "hccl-loopback"),
    "a wait that HCCL does not take": (
        _one(env={"p0": {"HCCL_CONNECT_TIMEOUT": "60"}}),
        "hccl-setting",
    ),
    "the older engine": (_one(env={"p0": {"VLLM_USE_V1": "0"}}), "older-engine"),
    "a flag of a later vLLM": (
        _one(words={"p0": ["--kv-cache-memory-bytes", "1"]}),
        "bad-flag",
    ),
    "JSON that was cut short": (
        _one(words={"p0": ["--speculative-config", '{"method":']}),
        "bad-flag",
    ),
    # --- Ray ---
    "an offset on the second host of a Ray instance": (
        Fault(
            env={"p1.ray": {"SERVER_OFFSET": "16"}},
            starts=("p0", "p1"),
            watched="p0",
            ray=True,
        ),
        "device-offset",
    ),
    "no Ray": (
        Fault(
            shell={"p0": "rm -rf /tmp/ray"},
            words={"p0": ["--distributed-executor-backend", "ray"]},
            starts=("p0",),
            watched="p0",
        ),
        "ray-unreachable",
    ),
}


# On hosts with the twin's image, before servers are started: what only hosts and images can show.
BY_DEPLOY = {
    "another file is to set up CANN": (["container.profile=/root/.profile"], "/root/.profile"),
    "an image older than the release": (
        ["container.image=omnikit-test/omniinfer:202506272026"],
        "its tag says 2025-06-27",
    ),
    "no model there": (["model.path=/data/models/other"], "/data/models/other"),
    "nginx elsewhere": (["proxy.nginx=/usr/local/nginx/sbin/nginx"], "/usr/local/nginx/sbin/nginx"),
    "more devices than there are": (['devices="0-16"'], "16"),
}
