"""Who is named when hosts or servers differ. What a host tells: tests/hostkit/checks/test_serving.

What servers say of themselves is asked in test_truth, and of real ones in
tests/adversarial/proxy/test_same_as_colocated.py.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from hostkit.checks import serving
from omnikit.config import config
from omnikit.deploy import alike
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[3]
LOADED = config.load(
    str(ROOT / "tests/environments/shapes.yaml"),
    assignments=[
        "hosts={h1: {address: 10.0.0.1}, h2: {address: 10.0.0.2}, h3: {address: 10.0.0.3}}",
        "topology.prefill=[{hosts: [h1]}, {hosts: [h2]}]",
        "topology.decode=[{hosts: [h1]}, {hosts: [h3]}]",
        "topology.proxy=h1",
        "paths.work_dir=/tmp/work",
        "model.path=/models/m",
        "engine.venv=/opt/engine",
    ],
)
PLAN = make_plan(LOADED)
FILES = {
    "weights": {"1.safetensors": "a" * 64, "2.safetensors": "b" * 64},
    "model": {"config.json": "c" * 64},
    "tokenizer": {"tokenizer.json": "d" * 64},
    "template": {},
}


def found() -> dict[str, Any]:
    """What the hosts tell where all is well."""
    made: dict[str, Any] = {}
    for host in PLAN.hosts:
        servers = {
            server.name: serving.flags(node.argv(server), alike._names(node))
            for node in PLAN.on_host(host.name)
            for server in node.servers
        }
        files = copy.deepcopy(FILES)
        made[host.name] = {"files": files, "why": None, "servers": servers, "other": []}
    return made


def wrong(hosts: Any) -> dict[str, str]:
    checks = alike.judge(PLAN, LOADED.settings, hosts, {})
    return {one.name: one.found for one in checks if not one.passed}


def test_equal_hosts_are_alike() -> None:
    assert wrong(found()) == {}
    names = [one.name for one in alike.judge(PLAN, LOADED.settings, found(), {})]
    assert names == ["weights", "configuration of the model", "tokenizer", "settings"]


E, OTHERS = "eeeeeeeeeeee…", "on h1 (p0, d0), h2 (p1)"


@pytest.mark.parametrize(
    ("subject", "file", "value", "name", "said"),
    [
        (
            *("weights", "2.safetensors", "e" * 64, "weights"),
            f"2.safetensors differs: {E} on h3 (d1); bbbbbbbbbbbb… {OTHERS}",
        ),
        (
            *("tokenizer", "tokenizer.json", "e" * 64, "tokenizer"),
            f"tokenizer.json differs: {E} on h3 (d1); dddddddddddd… {OTHERS}",
        ),
        (
            *("template", "chat_template.jinja", "e" * 64, "chat template"),
            f"chat_template.jinja differs: {E} on h3 (d1); not there {OTHERS}",
        ),
    ],
)
def test_a_host_with_another_file_is_named_with_its_servers(
    subject: str, file: str, value: str, name: str, said: str
) -> None:
    hosts = found()
    hosts["h3"]["files"][subject][file] = value
    assert wrong(hosts) == {name: said}


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("max-num-seqs", "8", "d1 runs with --max-num-seqs 8, planned is 16"),
        (
            *("dtype", "bfloat16"),
            "d1 runs with --dtype bfloat16, planned is float32;"
            " --dtype differs: bfloat16 on d1; float32 on p0, d0, p1",
        ),
        ("kv-cache-dtype", "fp8", "--kv-cache-dtype differs: fp8 on d1; not given on p0, d0, p1"),
        (
            *("kv-transfer-config", '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'),
            'd1 runs with --kv-transfer-config kv_role: "kv_both", planned is "kv_consumer"',
        ),
    ],
)
def test_a_server_that_runs_with_another_setting_is_named(flag: str, value: str, said: str) -> None:
    hosts = found()
    hosts["h3"]["servers"]["d1"][flag] = value
    assert wrong(hosts) == {"settings": said}


def test_a_node_of_another_deployment_and_a_host_that_says_nothing_are_named() -> None:
    hosts = found()
    hosts["h2"]["other"] = ["p1"]
    hosts["h3"] = "it cannot be reached"
    assert wrong(hosts) == {
        "host h3": "it cannot be reached",
        "one deployment": "p1: started with files of another deployment",
    }


def test_files_that_one_host_alone_cannot_read_are_a_fault() -> None:
    hosts = found()
    hosts["h3"].update(files={}, why="/models/m: no weights are there")
    assert wrong(hosts) == {"model's files": "host h3: /models/m: no weights are there"}
    for one in hosts.values():  # in containers alone: nobody knows
        one.update(files={}, why="/models/m: no weights are there")
    assert wrong(hosts) == {}


def test_a_process_that_cannot_be_seen_is_not_judged() -> None:
    hosts = found()
    for one in hosts.values():
        one["servers"] = {name: {} for name in one["servers"]}
    assert wrong(hosts) == {}
