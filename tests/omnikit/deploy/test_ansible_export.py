"""An exported inventory reads back as the same plan, whatever the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

import pytest
import yaml
from foreign_files import FOUR_P, MULTI_HOST, TWO_P
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_file import write

from omnikit.config import config
from omnikit.config.config import Config
from omnikit.config.layers import PROJECT
from omnikit.deploy import ansible_export
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

SHIPPED = sorted((PROJECT / "configs" / "environments").glob("*.yaml"))
OTHERS = sorted((PROJECT / "tests" / "environments").glob("*.yaml"))


def exported(loaded: Config, path: Path) -> Path:
    made = ansible_export.inventory(loaded, make_plan(loaded), {})
    path.write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
    return path


def read_back(loaded: Config, folder: Path) -> Plan:
    """The plan of the exported inventory, which calls nothing of it unused."""
    found = config.load(None, [str(exported(loaded, folder / "exported.yml"))], environ={})
    assert found.notes == ()
    return make_plan(found)


@pytest.mark.parametrize("path", [*SHIPPED, *OTHERS, TWO_P, MULTI_HOST], ids=lambda path: path.stem)
def test_every_environment_reads_back_as_the_same_plan(tmp_path: Path, path: Path) -> None:
    loaded = config.load(str(path), environ={})
    assert read_back(loaded, tmp_path) == make_plan(loaded)


def test_several_decode_instances_are_groups_of_their_own(tmp_path: Path) -> None:
    text = """
profile: {engine: ascend, omni_version: "2026-09", model: openpangu-2.0-flash}
hosts: {a: {address: 192.0.2.1}, b: {address: 192.0.2.2}, c: {address: 192.0.2.3}}
topology:
  prefill: [{hosts: [a], devices: "0-7"}]
  decode: [{hosts: [b, c]}, {hosts: [a], devices: "8-15", server: {env: {OF_ONE: 1}}}]
  proxy: a
"""
    loaded = config.load(str(write(tmp_path, text, "several.yaml")), environ={})
    plan = make_plan(loaded)
    assert read_back(loaded, tmp_path) == plan
    made = ansible_export.inventory(loaded, plan, {})["all"]["children"]["D"]["children"]
    assert {name: list(group["hosts"]) for name, group in made.items()} == {
        "D0": ["d0", "d1"],
        "D1": ["d2"],
    }


def test_an_edited_inventory_is_read_as_edited(tmp_path: Path) -> None:
    """Who serves what where stands in the documented variables alone."""
    path = exported(config.load("2p1d", environ={}), tmp_path / "i.yml")
    text = (
        path.read_text()
        .replace("192.0.2.14", "192.0.2.99")
        .replace("api_port: 9001", "api_port: 9500")
    )
    path.write_text(text)
    plan = make_plan(config.load(None, [str(path)], environ={}))
    assert plan.nodes[3].address == "192.0.2.99"
    assert plan.nodes[1].servers[0].api_port == 9500


def test_secrets_are_not_written(tmp_path: Path) -> None:
    given = ["server.env.HUB_TOKEN={variable: HUB}", "server.command=[serve, --api-key=s3cret]"]
    loaded = config.load(str(FOUR_P), assignments=given, environ={})
    text = exported(loaded, tmp_path / "i.yml").read_text()
    assert "s3cret" not in text and "not-a-real" not in text
    p0 = yaml.safe_load(text)["all"]["children"]["P"]["hosts"]["p0"]
    assert p0["ansible_password"] == "{{ lookup('ansible.builtin.env', 'OMNIKIT_PASSWORD_0') }}"
    assert ansible_export.left_out(loaded) == ["server.command"]


def _devices(low: int, high: int) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{low}-{high}", f"{low},{low + 2}", f"{high},{low}", str(low)])


@st.composite
def environments(draw: st.DrawFn) -> tuple[str, Sequence[str]]:
    """A valid environment with whatever may be said of hosts, instances and layers."""
    hosts: dict[str, Any] = {}

    def new_host() -> str:
        name = draw(st.sampled_from(["a", "p", "d", "node-"])) + str(len(hosts))
        hosts[name] = {
            "address": f"10.0.0.{len(hosts) + 1}",
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "user": st.sampled_from(["root", "ops"]),
                        "port": st.integers(1, 9999),
                        "private_key": st.just("/keys/k"),
                        "password": st.sampled_from([{"file": "/s/p"}, {"variable": "SSH_PASS"}]),
                        "jump": st.just("me@bastion:22"),
                        "ssh_options": st.just(["IdentitiesOnly=yes", "ProxyCommand=nc %h %p"]),
                        "interface": st.just("eth7"),
                        "python": st.just("/usr/bin/python3.11"),
                        "server": st.just({"env": {"OF_THE_HOST": "1"}}),
                    },
                )
            ),
        }
        return name

    def instance(names: list[str], devices: str | None = None, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"hosts": names, **more}
        if devices is not None and draw(st.booleans()):
            made["devices"] = devices
        elif devices is not None:
            made["parts"] = {names[0]: {"devices": devices}}
        if draw(st.integers(0, 3)) == 0:
            made["server"] = {"args": {"seed": draw(st.integers(1, 64))}}
        return made

    both = draw(st.integers(0, 4)) == 0
    alone: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 2))
        if kind == 0:
            host = new_host()
            alone += [
                instance([host], draw(_devices(0, 3))),
                instance([host], draw(_devices(8, 11))),
            ]
        elif kind == 1 or both:
            alone.append(instance([new_host()], draw(_devices(4, 7))))
        else:
            alone.append(instance([new_host() for _ in range(draw(st.integers(2, 3)))]))
    topology: dict[str, Any] = {"colocated": alone}
    if not both:
        decode = [new_host() for _ in range(draw(st.integers(1, 3)))]
        for host in decode:
            if draw(st.booleans()):
                hosts[host]["devices"] = draw(st.sampled_from(["0-15", "0-7", "0"]))
            if draw(st.booleans()):
                hosts[host]["node_name"] = f"name-{host}"
            if draw(st.integers(0, 3)) == 0:
                hosts[host]["api_port"] = draw(st.integers(10000, 15000))
        topology = {
            "prefill": alone,
            "decode": [instance(decode)],
            "proxy": draw(st.sampled_from([*hosts, new_host()])),
        }
    environment = {
        "profile": {
            "engine": "ascend",
            "omni_version": draw(st.sampled_from(["v0.4.1", "v0.5.0"])),
            "model": "deepseek-r1-w8a8",
        },
        "hosts": hosts,
        "topology": topology,
        "paths": {"work_dir": "/srv/omni", "log_dir": draw(st.sampled_from([None, "/log"]))},
        "ports": {"proxy": draw(st.integers(5000, 7999))},
        "roles": {"prefill": {"server": {"env": {"OF_A_ROLE": "2", "OF_A_LAYER": "low"}}}},
    }
    sets = draw(
        st.lists(
            st.sampled_from(
                [
                    "server.env.OF_A_LAYER=high",
                    "model.served_name=it",
                    "ports.zmq=6100",
                    "container.prefix.decode=mine",
                    "server.args.block_size=64",
                    "roles.prefill.server.env.OF_A_ROLE=null",
                ]
            ),
            unique=True,
        )
    )
    return yaml.safe_dump(environment, sort_keys=False), sets


@pytest.mark.slow
@settings(max_examples=35, deadline=None)
@given(environments())
def test_any_environment_reads_back_as_the_same_plan(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[str, Sequence[str]]
) -> None:
    folder, (text, sets) = tmp_path_factory.getbasetemp(), case
    loaded = config.load(str(write(folder, text, "any.yaml")), (), sets, environ={})
    assert read_back(loaded, folder) == make_plan(loaded)


def test_upstreams_groups_hold_one_entry_for_each_node() -> None:
    """Several nodes of one machine, and the proxy beside them, as omni-infer writes them."""
    loaded = config.load(str(PROJECT / "tests/environments/npu.yaml"), environ={})
    made = ansible_export.inventory(loaded, make_plan(loaded), {})["all"]["children"]
    assert list(made["P"]["hosts"]) == ["p0", "p1"] and list(made["C"]["hosts"]) == ["c0"]
    [machine] = {
        entry["omnikit_machine"] for group in "PDC" for entry in made[group]["hosts"].values()
    }
    assert machine == "a3"
    assert list(made["omnikit_other_names"]["hosts"]) == ["p1", "d0", "c0"]
    assert list(made["omnikit_proxy"]["hosts"]) == ["p0"]
    assert made["C"]["hosts"]["c0"]["node_port"] == 7000
    assert "api_port" not in made["C"]["hosts"]["c0"]
