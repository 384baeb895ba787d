"""Servers of vllm-ascend's twin on this machine, as a host of six NPUs without containers.

The NPUs are files in a folder, CANN's libraries any shared object under their names. Two instances
are on the host with two data-parallel ranks each: prefill on devices 0 to 3, decode on 4 and 5.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Mapping, Sequence

import port_rooms
import twin_image
from docker_host import static_files
from needs import needs

from hostkit.nodes import taken_ports
from omnikit.config import config
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

DEVICES = 6
PORTS = 200  # of a site, one after the other
LAYOUT = """\
profile: {engine: vllm-ascend, omni_version: vllm-ascend-v0.23.0, hardware: a3, model: any}
runtime: process
topology:
  prefill: [{hosts: [a3], devices: 0-3}]
  decode: [{hosts: [a3], devices: 4-5}]
  proxy: a3
roles:
  prefill: {server: {tensor_parallel: 2, args: {enforce-eager: true}}}
  decode: {server: {tensor_parallel: 1}}
"""


def address() -> str:
    """This machine's own, which is not loopback: HCCL and Gloo want one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def make_model(folder: Path, experts: int = 8) -> None:
    """A description of DeepSeek-V3's kind and one empty shard."""
    folder.mkdir(parents=True, exist_ok=True)
    config_json = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_hidden_layers": 2,
        "max_position_embeddings": 4096,
        "n_routed_experts": experts,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config_json))
    (folder / "tokenizer.json").write_text("{}")
    header = {"model.embed.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    shard = len(text).to_bytes(8, "little") + text + bytes(8)
    (folder / "model.safetensors").write_bytes(shard)


class Here:
    """The host, its files in a folder."""

    def __init__(self, folder: Path) -> None:
        needs("ip")
        self.folder, self.in_vain_s = folder, 2.0
        self.model, self.dev = folder / "model", folder / "dev"
        twin_image.packages(folder / "site", "vllm-ascend")
        bash = static_files({"/bin/bash": str(shutil.which("bash"))})
        library = next(path for name, path in bash.items() if ".so" in name)
        self.control = folder / "control"
        for made in (self.control, folder / "lib64"):
            made.mkdir()
        for name in twin_image.LIBRARIES:
            shutil.copy(library, folder / "lib64" / name)
        self.variables: Mapping[str, str] = {
            "PATH": f"{twin_image.TWIN}/bin:/usr/bin:/bin",
            "PYTHONPATH": str(folder / "site"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(folder / "lib64"),
            "TWIN_DEV": str(self.dev),
        }
        self.file = folder / "twin.yaml"
        self.file.write_text(LAYOUT + self._settings())
        loaded = config.load(str(self.file), environ={})
        self.plans: Mapping[bool, Plan] = {False: make_plan(loaded)}
        self.lay_out(self.plans[False])

    def _settings(self) -> str:
        base = _free_ports()
        self.proxy_port = base + 40
        [found] = json.loads(
            subprocess.run(
                ["ip", "-j", "-4", "addr", "show", "to", address()],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        self.interface = str(found["ifname"])
        host = {"address": address(), "connection": "local", "interface": self.interface}
        made: dict[str, Any] = {
            "paths": {"work_dir": str(self.folder / "work")},
            "hosts": {"a3": host},
            "model": {"path": str(self.model), "served_name": "tiny"},
            "ports": {
                "api_base": base,
                "master_base": base + 20,
                "proxy": self.proxy_port,
                "kv_block": base + 60,
                "hccl_base": base + 140,
                "hccl_span": 16,
            },
            "server": {"env": {**self.variables, "TWIN_LIMIT_S": 30}},
        }
        return "".join(f"{name}: {json.dumps(value)}\n" for name, value in made.items())

    def lay_out(self, plan: Plan) -> None:
        """The model and the NPUs, as they should be."""
        for folder in (self.model, self.dev):
            shutil.rmtree(folder, ignore_errors=True)
        make_model(self.model)
        self.dev.mkdir()
        for n in range(DEVICES):
            (self.dev / f"davinci{n}").touch()

    def shell(self, host: str, command: str) -> None:
        """Change something in the host's folder."""
        subprocess.run(["bash", "-c", command], cwd=self.folder, check=True)

    def start(
        self, host: str, words: Sequence[str], env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """A process, in a process group of its own."""
        with log.open("wb") as output:
            return subprocess.Popen(
                words, env=dict(env), stdout=output, stderr=output, start_new_session=True
            )


def _free_ports() -> int:
    """Two hundred ports of which nobody has those that are used here."""
    for base in port_rooms.mine(range(5000, 9000, PORTS)):
        used = [base + n for n in (0, 1, 20, 40, *range(60, 68), 100, 101, 120, *range(140, 172))]
        if not any(taken_ports.is_taken("0.0.0.0", port) for port in used):
            return base
    raise AssertionError("no ports are free")
