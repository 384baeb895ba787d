"""What a file says, as a tree of our settings; what contradicts itself is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest
from foreign_files import ALL, DEPLOYMENT, FOUR_P, planned
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.config.layers import ENVIRONMENT
from omnikit.foreign import format
from omnikit.foreign import layout as foreign_write
from omnikit.foreign.layout import Layout, Member
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan
from omnikit.yaml.node import Node, Origin
from omnikit.yaml.strict_yaml import parse


def at(value: object, line: int) -> Node:
    return Node(value, Origin("f.yml", line, ENVIRONMENT))


def member(made: Layout, name: str, line: int, **values: object) -> Member:
    found = {"address": name, "master": 8000, "api": 9000, "devices": "0-7", **values}
    return Member(
        host=made.host(name, at(found["address"], line), {}, name),
        label=name,
        where=Origin("f.yml", line, ENVIRONMENT),
        master_port=at(found["master"], line + 1),
        api_port=at(found["api"], line + 2),
        devices=at(found["devices"], line + 3),
    )


def layout(**second: object) -> Layout:
    made = Layout("f.yml", ENVIRONMENT)
    made.prefill = [[member(made, "10.0.0.1", 10)]]
    first = member(made, "10.0.0.2", 20, master=8100)
    made.decode = [[first, member(made, "10.0.0.3", 30, **{"master": 8100, **second})]]
    made.proxy, made.proxy_port = made.prefill[0][0].host, at(7000, 40)
    return made


def test_the_master_speaks_for_the_instance_and_others_for_what_differs() -> None:
    tree = layout(api=9005, devices="0-3").tree()
    plain = tree.plain()
    assert plain["topology"]["decode"] == [
        {"hosts": ["10.0.0.2", "10.0.0.3"], "devices": "0-7", "api_port": 9000, "master_port": 8100}
    ]
    assert plain["hosts"]["10.0.0.3"] == {
        "address": "10.0.0.3",
        "devices": "0-3",
        "api_port": 9005,
    }
    assert plain["hosts"]["10.0.0.2"] == {"address": "10.0.0.2"}
    assert str(tree.at(("hosts", "10.0.0.3", "api_port")).origin) == "f.yml:32"
    assert plain["topology"]["colocated"] == []
    assert plain["topology"]["proxy"] == "10.0.0.1"
    assert tree.at(("hosts",)).whole and tree.at(("topology",)).whole


def test_every_value_but_the_profile_has_a_line() -> None:
    tree = layout(api=9005).tree()
    for path, node in tree.leaves():
        assert node.origin.layer == ENVIRONMENT, path
        assert (node.origin.line > 0) == (path[0] != "profile" and path[-1] != "colocated"), path


def test_hosts_of_an_instance_have_one_master_port() -> None:
    with pytest.raises(
        InputError, match=r"^f.yml:31: the master port of 10.0.0.3 is 8101, that of"
    ):
        layout(master=8101).tree()


def test_a_host_stands_once_in_an_instance() -> None:
    with pytest.raises(InputError, match=r"f.yml:30: 10.0.0.3 is on the host 10.0.0.2, which is"):
        layout(address="10.0.0.2").tree()


def test_on_a_host_of_two_instances_each_has_its_own() -> None:
    tree = layout(address="10.0.0.1", api=9020, devices="8-15").tree()
    decode = tree.plain()["topology"]["decode"][0]
    assert decode["hosts"] == ["10.0.0.2", "10.0.0.1"]
    assert decode["parts"] == {"10.0.0.1": {"devices": "8-15", "api_port": 9020}}
    assert "parts" not in tree.plain()["topology"]["prefill"][0]
    assert tree.plain()["hosts"]["10.0.0.1"] == {"address": "10.0.0.1"}


def test_a_host_that_occurs_again_keeps_its_name_and_fills_in_its_login() -> None:
    made = Layout("f.yml", 0)
    first = made.host("p0", at("10.0.0.1", 1), {"user": at("root", 2)}, "p0")
    again = made.host("d0", at("10.0.0.1", 5), {"port": at(22, 6), "user": at("root", 7)}, "d0")
    assert again is first
    assert {key: node.value for key, node in first.settings.items()} == {"user": "root", "port": 22}
    with pytest.raises(InputError, match=r"f.yml:8: user of d1 differs from what f.yml:2 says"):
        made.host("d1", at("10.0.0.1", 7), {"user": at("omni", 8)}, "d1")
    made.host("c0", at("10.0.0.1", 9), {"user": at("omni", 9)}, "the proxy")
    assert first.settings["user"].value == "root"
    assert made.notes == ["f.yml:9: user of the proxy is not used: p0 is the same host, and"
                          " f.yml:2 says how it is reached"]  # fmt: skip


def test_notes_go_with_the_tree() -> None:
    made = layout()
    made.notes.append("f.yml:3: x")
    assert made.tree().notes == ("f.yml:3: x",)


def written(source: Path) -> str:
    tree = format.read_settings(source.read_text("utf-8"), str(source), ENVIRONMENT)
    return foreign_write.environment(tree, str(source), "Ansible inventory")


def without_passwords(plan: Plan) -> Plan:
    hosts = tuple(
        dataclasses.replace(h, settings=h.settings.model_copy(update={"password": None}))
        for h in plan.hosts
    )
    return dataclasses.replace(plan, hosts=hosts, environment="")


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_the_written_environment_gives_the_same_plan(tmp_path: Path, source: Path) -> None:
    path = write(tmp_path, written(source), f"{source.stem}.yaml")
    ours, direct = make_plan(config.load(str(path), environ={})), planned(source)
    assert without_passwords(ours) == without_passwords(direct)
    if not any(host.settings.password for host in direct.hosts):
        assert ours == direct


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_every_value_names_the_line_that_it_came_from(source: Path) -> None:
    lines = source.read_text("utf-8").splitlines()
    tree = parse(written(source), "e.yaml")
    text = written(source).splitlines()
    checked = 0
    for path, node in tree.leaves():
        if path[0] == "profile" or path[-1] == "colocated":
            continue
        comment = re.search(rf"# {re.escape(source.name)}:(\d+)$", text[node.origin.line - 1])
        assert comment, (path, text[node.origin.line - 1])
        said = lines[int(comment[1]) - 1]
        checked += 1
        if path[-1] == "address":
            assert node.value in said
    assert checked > 15


def test_no_password_is_written_and_each_has_a_place(tmp_path: Path) -> None:
    for source in (DEPLOYMENT, FOUR_P):
        text = written(source)
        assert "not-a-real" not in text
        assert "password: {file: ~/.omnikit/secrets/" in text
    text = written(FOUR_P)
    assert text.count("read -rsp") == 1  # all hosts have the same password
    assert text.count("password: {file: ~/.omnikit/secrets/192.0.2.21}") == 9


def test_the_command_keeps_a_password_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tree = format.read_settings(DEPLOYMENT.read_text("utf-8"), "d.yml", ENVIRONMENT)
    [left] = foreign_write.left_out(tree)
    subprocess.run(["bash", "-c", left.command], input=b"a b\\'\"#\n", check=True)
    path = tmp_path / ".omnikit" / "secrets" / "192.0.2.13"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    env = write(tmp_path, written(DEPLOYMENT))
    host = config.load(str(env), environ={}).settings.hosts["p2"]
    assert host.password is not None
    assert config.read_secret(host.password, "x") == "a b\\'\"#"


def test_words_that_yaml_would_read_otherwise_are_quoted() -> None:
    odd = ["yes", "012", "1e3", "a: b", "a #b", "机器", 'x"y', "0", "null", "~", "- a", "{a}"]
    for word in odd:
        text = DEPLOYMENT.read_text("utf-8").replace('"/data/omniinfer/log"', json.dumps(word))
        tree = format.read_settings(text, "d.yml", ENVIRONMENT)
        made = parse(foreign_write.environment(tree, "d.yml", "x"), "e.yaml")
        assert made.at(("paths", "log_dir")).value == word
    assert "  code_dir: /data/code_path/omniinfer  # " in written(DEPLOYMENT)
