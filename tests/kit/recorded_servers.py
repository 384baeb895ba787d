"""What upstream was recorded to start, and what our start scripts start in the same layout.

Recordings (tests/facts/recorded) are upstream's own playbook, run with a vllm that writes down its
words and variables. Ours are the rendered start scripts, run in the same way.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import yaml

from omnikit.config import config
from omnikit.fleet import render
from omnikit.plan.types import NodePlan, Plan
from omnikit.topology.topology import make_plan

RECORDED = Path(__file__).parents[1] / "facts" / "recorded"
DEVICES = ",".join(map(str, range(16)))
# What shell, Python and profile set by themselves, and what the harness needs to run at all.
_SHELL = {"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "LD_LIBRARY_PATH", "WRITE_TO"}
_WRITER = """#!/usr/bin/python3 -S
import json, os, sys
said = {"argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "env": dict(os.environ),
        "cwd": os.getcwd()}
with open(os.environ["WRITE_TO"], "a") as out:
    out.write(json.dumps(said) + "\\n")
"""
_IP = """#!/bin/sh
echo 'default via 10.0.0.254 dev enp23s0f3 proto static metric 100'
"""


@dataclass(frozen=True)
class Started:
    """One started program: its words, variables and folder."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str


def recorded(name: str) -> dict[tuple[str, int], Started]:
    """The servers of a recording by inventory name and API port."""
    found = {}
    roles = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))["roles"]
    for role in roles.values():
        for server in role["servers"]:
            argv = tuple(server["argv"].get(word, word) for word in role["argv"])
            env = {**role["env"], **server["env"]}
            found[server["host"], server["port"]] = Started(argv, env, role.get("cwd", "/"))
    return found


def role_of(server: Started) -> str:
    """Prefill or decode, by the name that the release has for it."""
    return server.env.get("ROLE") or server.env["OMNI_PD_ROLE"]


def inventory(
    prefill: Sequence[Sequence[str]],
    decode: Sequence[str],
    prefill_devices: str = DEVICES,
    decode_devices: str = DEVICES,
) -> dict[str, Any]:
    """An inventory as the playbook's users have it. prefill: the addresses of each instance."""
    hosts: dict[str, dict[str, Any]] = {"P": {}, "D": {}, "C": {}}
    port = "{{ global_port_base + port_offset.%s%s }}"
    api = "{{ base_api_port + port_offset.%s + %s }}"
    for kv_rank, addresses in enumerate(prefill):
        for rank, address in enumerate(addresses):
            hosts["P"][f"p{len(hosts['P'])}"] = {
                "ansible_host": address,
                "node_rank": rank,
                "kv_rank": kv_rank,
                "node_port": port % ("P", " + kv_rank"),
                "api_port": api % ("P", "kv_rank"),
                "host_ip": addresses[0],
                "ascend_rt_visible_devices": prefill_devices,
            }
    for rank, address in enumerate(decode):
        hosts["D"][f"d{rank}"] = {
            "ansible_host": address,
            "node_rank": rank,
            "node_port": port % ("D", ""),
            "api_port": api % ("D", "node_rank"),
            "host_ip": decode[0],
            "ascend_rt_visible_devices": decode_devices,
        }
    first = prefill[0][0]
    hosts["C"]["c0"] = {
        "ansible_host": first,
        "node_rank": 0,
        "node_port": "{{ proxy_port + node_rank }}",
    }
    variables = {
        "ansible_user": "root",
        "global_port_base": 8000,
        "base_api_port": 9000,
        "proxy_port": 7000,
        "port_offset": {"P": 0, "D": 100},
        "MODEL_PATH": "/data/models/DeepSeek-R1-w8a8-fusion",
        "LOG_PATH": "/data/log_path",
    }
    groups = {name: {"hosts": found} for name, found in hosts.items()}
    return {"all": {"vars": variables, "children": groups}}


def inventory_file(folder: Path, written: dict[str, Any]) -> Path:
    """An inventory as a file."""
    file = folder / "inventory.yml"
    file.write_text(yaml.safe_dump(written), encoding="utf-8")
    return file


def started(folder: Path, written: dict[str, Any], *assignments: str) -> Harness:
    """Plan an inventory and make ready to run its start scripts below folder."""
    file = inventory_file(folder, written)
    root = folder / "root"
    for tools in ("scripts", "deploy/start_server"):
        (root / "workspace" / "omniinfer" / "tools" / tools).mkdir(parents=True)
    profile = root / "profile"
    profile.write_text("export LD_LIBRARY_PATH=/from/the/profile\n")
    given = [
        f"paths.work_dir={root}/data/omnikit",
        f"paths.code_dir={root}/workspace/omniinfer",
        f"container.profile={profile}",
        "container.profile_library=null",
        *assignments,
    ]
    return harness(folder, make_plan(config.load(None, [str(file)], given, environ={})))


def harness(folder: Path, plan: Plan) -> Harness:
    """Make ready to run a plan's start scripts below folder."""
    root = folder / "root"
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("vllm", _WRITER), ("ray", _WRITER), ("python3", _WRITER), ("ip", _IP)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return Harness(folder, root, plan)


@dataclass(frozen=True)
class Harness:
    """Rendered start scripts of a plan, and stand-ins that write down how they are started."""

    folder: Path
    root: Path
    plan: Plan

    def servers(self) -> dict[tuple[str, int], Started]:
        """Every API server by its node's name and port, as its start script starts it."""
        return {
            (node.name, server.api_port): self.run(node, str(server.local_rank))[-1]
            for node in self.plan.nodes
            for server in node.servers
        }

    def run(self, node: NodePlan, word: str) -> list[Started]:
        """Run a node's start script; what it started, in order."""
        script = self.folder / f"{node.name}.sh"
        chosen = self.folder / "cache"
        chosen.write_text("/data/omnikit/caches/KEY\n")  # by the host, before the start
        made = render.start_script(self.plan.environment, node, cache=str(chosen))
        script.write_text(made)
        out = self.folder / "written"
        out.unlink(missing_ok=True)
        env = {"PATH": f"{self.folder}/tools:/usr/bin:/bin", "HOME": "/root", "WRITE_TO": str(out)}
        done = subprocess.run(
            ["bash", str(script), word], env=env, cwd="/", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [self._plain(json.loads(line)) for line in out.read_text().splitlines()]

    def _plain(self, said: dict[str, Any]) -> Started:
        env = {name: self._outside(v) for name, v in said["env"].items() if name not in _SHELL}
        return Started(tuple(map(self._outside, said["argv"])), env, self._outside(said["cwd"]))

    def _outside(self, text: str) -> str:
        return text.replace(str(self.root), "")


@dataclass(frozen=True)
class Difference:
    """A word or variable that is not as recorded. kind: missing, added or other."""

    kind: str
    name: str
    recorded: Optional[str]
    ours: Optional[str]


def differences(theirs: Started, ours: Started) -> list[Difference]:
    """What differs, flags as --NAME, variables by name, the folder as "cwd"."""
    pairs = [(flags(theirs.argv), flags(ours.argv)), (theirs.env, ours.env)]
    pairs.append(({"cwd": theirs.cwd}, {"cwd": ours.cwd}))
    found = []
    for there, here in pairs:
        for name in sorted({*there, *here}):
            a, b = there.get(name), here.get(name)
            if a is None:
                found.append(Difference("added", name, a, b))
            elif b is None:
                found.append(Difference("missing", name, a, b))
            elif a != b and _data(a) != _data(b):
                found.append(Difference("other", name, a, b))
    return found


def flags(argv: Sequence[str]) -> dict[str, str]:
    """The words before the first flag as "command", then each flag with its value."""
    made: dict[str, list[str]] = {"command": []}
    for word in argv:
        if word.startswith("--"):  # as vLLM's parser: of one that stands twice the later counts
            word = word.replace("_", "-")
            made.pop(word, None)
            made[word] = []
        else:
            made[list(made)[-1]].append(word)
    return {name: " ".join(words) for name, words in made.items()}


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def same_name(a: Optional[str], b: Optional[str]) -> bool:
    """Whether two paths end in the same file name."""
    return Path(a or "").name == Path(b or "").name
