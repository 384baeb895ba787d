"""host.json and the rendered files of a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.prepare import deployment
from omnikit.topology.topology import make_plan

NGINX = {"kind": "nginx-lua", "nginx": "/usr/sbin/nginx", "modules_dir": "/usr/lib/nginx/modules"}


def files(environment: str, host: str, *assignments: str, inputs=None, tables=None):
    loaded = config.load(environment, assignments=assignments, environ={})
    plan = make_plan(loaded)
    found = next(h for h in plan.hosts if h.name == host)
    kind = NGINX if environment == "local" else {"kind": "omni-nginx"}
    made = deployment.host_files(plan, found, loaded.settings, inputs or {}, kind, tables or {})
    return made, json.loads(made["host.json"])


def digest(data, name: str) -> str:
    return next(node["digest"] for node in data["nodes"] if node["name"] == name)


def test_local_has_every_node_and_the_proxy_with_their_ports() -> None:
    made, data = files("local", "local")
    assert [node["name"] for node in data["nodes"]] == ["p0", "p1", "d0", "c0"]
    assert {"p0/start.sh", "c0/nginx.conf", "c0/pd_proxy.lua"} <= set(made)
    ports = [tuple(port) for node in data["nodes"] for port in node["ports"]]
    assert ("127.0.0.1", 7000) in ports and len(set(ports)) == len(ports)
    requires = dict(reversed(entry) for entry in data["nodes"][0]["requires"])
    assert requires["the model"].endswith("tiny-qwen2/config.json")
    assert requires["the engine"].endswith("bin/python")


def test_a_proxy_starts_with_files_of_its_own_or_with_none(tmp_path: Path) -> None:
    """vllm-router has none: a folder that nobody ships is nothing to start from."""
    loaded = config.load("local", environ={})
    plan = make_plan(loaded)
    found = {"kind": "vllm-router", "venv": str(tmp_path), "router": str(tmp_path / "vllm-router")}
    made = deployment.host_files(plan, plan.hosts[0], loaded.settings, {}, found, {})
    proxy = json.loads(made["host.json"])["nodes"][-1]
    assert proxy["name"] == "c0" and not [name for name in made if name.startswith("c0/")]
    assert proxy["seed_dir"] is None
    _, data = files("local", "local")
    assert data["nodes"][-1]["seed_dir"].endswith("build/local/bundle/c0")


def test_a_digest_changes_with_what_a_server_is_started_with_and_nothing_else() -> None:
    _, base = files("local", "local")
    _, same = files("local", "local", "readiness.deadline_s=99.0")
    _, flag = files("local", "local", "roles.decode.server.args.max-num-seqs=8")
    _, engine = files("local", "local", inputs={"engine": "other"})
    assert digest(same, "d0") == digest(base, "d0")
    assert digest(flag, "d0") != digest(base, "d0")
    assert digest(flag, "p0") == digest(base, "p0")
    assert digest(flag, "c0") == digest(base, "c0")
    assert digest(engine, "p0") != digest(base, "p0")


def test_the_rule_of_restarts_is_told_to_those_it_is_for_and_restarts_nothing() -> None:
    on = ("restart.policy=on-failure", "restart.limit=3", "restart.boot=systemd")
    _, never = files("2p1d", "p0", "restart.policy=never")
    _, data = files("2p1d", "p0", *on)
    rule: dict[str, object] = {"delay_s": 2.0, "delay_max_s": 120.0, "limit": 3, "settled_s": 600.0}
    rule.update(watchdog_s=300.0, steps="vllm:iteration_tokens_total_count")
    assert {n["name"]: n.get("restart") for n in data["nodes"]} == {"p0": rule, "c0": rule}
    assert [n["digest"] for n in data["nodes"]] == [n["digest"] for n in never["nodes"]]
    assert (data["boot"], never["boot"]) == ("systemd", "auto")
    assert "boot" not in files("local", "local")[1]  # a machine that only tries it
    assert "boot" not in files("2p1d", "p0", "restart.boot=never")[1]
    _, part = files("2p1d", "d0", *on)
    assert all("restart" not in node for node in never["nodes"])
    # A part of an instance stays down until the others, whose ports it is told, have seen it.
    [node] = part["nodes"]
    assert node["restart"] == {**rule, "delay_s": 15.0, "partners": [["d1", "192.0.2.14", 9101]]}


def test_hooks_are_sent_with_their_secrets_beside_what_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(*more: str) -> dict[str, str]:
        loaded = config.load("local", assignments=more, environ={})
        plan = make_plan(loaded)
        made = deployment.prepare(loaded, {}, NGINX, {}, plan)
        assert "s3cret" not in str(made.files)
        return made.sent("local")

    assert "hooks.json" not in sent()
    monkeypatch.setenv("HOOK", "https://chat.example/?key=s3cret\n")
    hooks = sent("hooks.webhook={variable: HOOK}", "hooks.command=[/usr/bin/tell, all]")
    assert json.loads(hooks["hooks.json"]) == {
        **{"command": ["/usr/bin/tell", "all"], "authorization": None, "timeout_s": 10.0},
        "webhook": "https://chat.example/?key=s3cret",
    }
    assert hooks["host.json"] == sent()["host.json"]
    monkeypatch.setenv("HOOK", "s3cret")
    with pytest.raises(InputError, match="no address") as caught:
        sent("hooks.webhook={variable: HOOK}")
    assert "s3cret" not in str(caught.value)
    assert json.loads(sent("hooks.webhook=http://h/x")["hooks.json"])["webhook"] == "http://h/x"
    with pytest.raises(InputError, match=r"hooks\.webhook"):
        sent("hooks.webhook=ftp://h")


def test_json_files_and_rank_tables_stand_beside_the_scripts() -> None:
    made, data = files("2p1d", "d0", tables={"global/g.json": "{}\n"})
    extra = json.loads(made["d0/model_extra_config.json"])
    assert extra["model_parallel_config"]["dp_size"] == 32
    assert extra["operator_optimizition_config"]["decode_gear_list"] == [64]
    assert made["ranktable/global/g.json"] == "{}\n"
    assert data["devices"] == list(range(16))
    _, other = files("2p1d", "d0", tables={"global/g.json": "{ }\n"})
    assert digest(other, "d0") != digest(data, "d0")
