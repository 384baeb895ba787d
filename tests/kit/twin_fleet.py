"""Hosts with NPUs (stand-ins), their own Docker engines and a small W8A8 model, for the twin."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from docker_host import DockerHost
from fleet_docker import docker_on
from ssh_fleet import STAND_INS, Fleet, FleetHost, ssh_fleet
from twin_image import TWIN_IMAGE

ROOT = Path(__file__).resolve().parents[2]
MODEL = "/data/models/DeepSeek-R1-W8A8"
_DEVICES = [f"/dev/davinci{n}" for n in range(16)]
_DEVICES += ["/dev/davinci_manager", "/dev/hisi_hdc", "/dev/devmm_svm"]
# What of the host the containers see, besides what the deployment itself mounts.
_MOUNTS = ["/usr/local/bin/npu-smi", "/usr/bin/hccn_tool", "/etc/hccn.conf", STAND_INS]
_MOUNTS += ["/data", "/tmp"]


def device_address(host: int, device: int) -> str:
    """The NPU's address as the stand-in for hccn_tool tells it."""
    return f"10.1.{host}.{100 + device}"


def make_model(folder: Path) -> None:
    """A folder that is DeepSeek-R1's in W8A8 by its description; one matrix stands for all."""
    folder.mkdir(parents=True)
    quantized = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8}}},
    }
    config = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_hidden_layers": 61,
        "n_routed_experts": 256,
        "quantization_config": quantized,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    name = "model.layers.0.self_attn.q_a_proj"
    shard = "quant_model_weight_w8a8_dynamic-00001-of-000001.safetensors"
    tensors: dict[str, Any] = {
        f"{name}.weight": {"dtype": "I8", "shape": [4, 4], "data_offsets": [0, 16]},
        f"{name}.weight_scale": {"dtype": "F32", "shape": [4, 1], "data_offsets": [16, 32]},
    }
    header = json.dumps(tensors).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(32)
    (folder / shard).write_bytes(data)
    index = {"metadata": {"total_size": 32}, "weight_map": dict.fromkeys(tensors, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def furnish(host: FleetHost, number: int) -> None:
    """The NPUs' addresses of a running host, and the model."""
    rows = [f"address_{n}={device_address(number, n)}\n" for n in range(16)]
    host.path("/etc/hccn.conf").write_text("".join(rows))
    # In a container nobody sets the variable that a log-in has.
    tool = host.path("/usr/bin/hccn_tool")
    tool.write_text(
        f'#!/bin/bash\nFAKE_HCCN_HOST={number} exec {STAND_INS}/fake_npu/hccn_tool "$@"\n'
    )
    make_model(host.path(MODEL))


@dataclass
class TwinSite:
    """An environment on a fleet. settings: words for every script, such as --set KEY=VALUE."""

    file: Path
    fleet: Fleet
    engines: Mapping[str, DockerHost]
    settings: list[str] = field(default_factory=list)

    def run(
        self, name: str, *words: str, code: Optional[int] = 0
    ) -> subprocess.CompletedProcess[str]:
        """One of the toolkit's scripts, for this environment. code: its exit code; None: any."""
        done = subprocess.run(
            [sys.executable, f"scripts/{name}", "-e", str(self.file), *self.settings, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr.replace("Traceback (most recent call last):\n  ", "")
        return done

    def pids(self) -> dict[str, int]:
        """Of every server and the proxy."""
        nodes = json.loads(self.run("status.py", "--json").stdout)["nodes"]
        return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}

    def containers(self) -> dict[str, str]:
        """Identities of the containers of all hosts, by name."""
        found = {}
        for engine in self.engines.values():
            words = ("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}")
            rows = engine.docker(*words).stdout.splitlines()
            found.update(dict(row.split() for row in rows))
        return found


def site(
    folder: Path, name: str, topology: str, fleet: Fleet, engines: Mapping[str, DockerHost]
) -> TwinSite:
    """An environment of omni-infer v0.4.1 with the twin's image; its file is in folder."""
    file = folder / f"{name}.yaml"
    file.write_text(_settings(fleet, topology))
    return TwinSite(file, fleet, engines)


def ascend_site(
    folder: Path, name: str, topology: str, fleet: Fleet, engines: Mapping[str, DockerHost]
) -> TwinSite:
    """An environment of vllm-ascend v0.23.0, its twin in the same image."""
    chosen = "engine: vllm-ascend, omni_version: vllm-ascend-v0.23.0, hardware: a3, model: any"
    sizes = "prefill: {server: {tensor_parallel: 2}}, decode: {server: {tensor_parallel: 1}}"
    # Of whom the packages are is not asked: the image is omni-infer's too.
    accepted = "image: {older_than_release: accept, free_mib: 500, attempts: 1}\n"
    kept = [
        row
        for row in _settings(fleet, topology).splitlines(keepends=True)
        if not row.startswith(("profile:", "image:", "source:"))
    ]
    file = folder / f"{name}.yaml"
    file.write_text(f"profile: {{{chosen}}}\n{''.join(kept)}{accepted}roles: {{{sizes}}}\n")
    return TwinSite(file, fleet, engines)


def _settings(fleet: Fleet, topology: str) -> str:
    mounts = ", ".join(f"'{path}:{path}'" for path in _MOUNTS)
    return (
        "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
        f"{fleet.settings()}"
        f"topology: {topology}\n"
        "paths: {work_dir: /data/omnikit}\n"
        f"model: {{path: {MODEL}}}\n"
        f"container: {{image: '{TWIN_IMAGE}', shm_size: 64m, privileged: false,\n"
        f"  devices: {json.dumps(_DEVICES)},\n  mounts: [{mounts}]}}\n"
        "image: {free_mib: 500, attempts: 1}\n"
        "source: {omniinfer_ref: v0.4.1}\n"
        "proxy: {worker_processes: 1, worker_connections: 1024, client_body_buffer_size: 1m}\n"
        "readiness: {poll_interval_s: 0.1, deadline_s: 90}\n"
        "server: {env: {TWIN_LIMIT_S: 20}}\n"
        "stop: {grace_s: 5}\n"
        "restart: {policy: never}\n"
    )


@contextmanager
def twin_fleet(folder: Path, names: list[str]) -> Iterator[tuple[Fleet, dict[str, DockerHost]]]:
    """Running hosts with Docker engines."""
    with ssh_fleet(folder, names, npu=True) as fleet, ExitStack() as stack:
        for number, host in enumerate(fleet.hosts.values(), 1):
            furnish(host, number)
        engines = {n: stack.enter_context(docker_on(host)) for n, host in fleet.hosts.items()}
        yield fleet, engines
