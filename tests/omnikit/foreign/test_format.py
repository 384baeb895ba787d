"""Files are recognised by what is in them, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_files import DEPLOYMENT, FOUR_P, MULTI_HOST, TWO_P, planned
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.foreign import format
from omnikit.foreign.format import DEPLOYMENT as OMNI_CLI
from omnikit.foreign.format import INVENTORY, VARIABLES
from omnikit.topology.topology import make_plan

CONFIGS = Path(format.__file__).parents[3] / "configs"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (DEPLOYMENT.read_text(encoding="utf-8"), OMNI_CLI),
        (TWO_P.read_text(), INVENTORY),
        (FOUR_P.read_text(), INVENTORY),
        ("services: {}\r\ndeployment: {}\r\n", OMNI_CLI),
        ('{"all": {"children": {}}}', INVENTORY),
        ('\ufeff"all":\n  children: {}', INVENTORY),
        ("# c\n\n[P]\np0 ansible_host=1\n", INVENTORY),
        ('{\n "_": 1,\n "services": {"x": 1}, "deployment": {}}', OMNI_CLI),
        ('{"hosts": {}, "topology": {"deployment": 1}}', None),
        ("LOG_PATH: /l\nranktable_save_path: /r\n", VARIABLES),
        ('{"MODEL_PATH": "/m"}', VARIABLES),
        ("ranktable_save_path: /r\n", VARIABLES),
        ("- name: run\n  hosts: all\n  environment: {}\n", VARIABLES),
        ("hosts: {all: {address: 10.0.0.1}}\ntopology: {}", None),
        ("x:\n  all: 1\n  deployment: 2", None),
        ("# all: of it\nruntime: docker", None),
        ("allowed: 1", None),
        ("", None),
    ],
)
def test_content_decides(text: str, kind: str | None) -> None:
    assert format.recognise(text) == kind


def test_no_file_of_ours_is_taken_for_another() -> None:
    found = [path for path in CONFIGS.rglob("*.yaml") if not path.name.endswith(".local.yaml")]
    assert len(found) > 10
    for path in found:
        assert format.recognise(path.read_text(encoding="utf-8")) is None, path


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- name: x\n  hosts: all\n", "found variables of omni-infer's playbook, which go with"),
        ("profile: {engine: cpu}\n", "found settings of this toolkit"),
        ("hello: 1\n", "found something else"),
    ],
)
def test_what_is_neither_is_refused(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        format.expect(text, "f.yml")
    assert "omni_infer_deployment.yml" in str(caught.value)


def test_a_file_is_an_environment_by_each_way_to_name_it(tmp_path: Path) -> None:
    path = write(tmp_path, TWO_P.read_bytes(), "mine")  # the name says nothing
    by_config = config.load(None, [str(path)], environ={})
    assert by_config.environment == "mine"
    by_option = config.load(str(path), environ={})
    by_variable = config.load(environ={"OMNIKIT_ENVIRONMENT": str(path)})
    assert make_plan(by_config) == make_plan(by_option) == make_plan(by_variable)
    assert by_config.settings.proxy.listen_host == "0.0.0.0"  # nothing of the local environment


def test_layers_above_change_it_as_any_environment(tmp_path: Path) -> None:
    site = write(tmp_path, "hosts: {p1: {interface: eth7}}\nports: {proxy: 7005}\n", "site.yaml")
    loaded = config.load(
        None,
        [str(TWO_P), str(site)],
        ["hosts.d0.user=omni"],
        environ={"OMNIKIT_PORTS__ZMQ": "5600"},
    )
    plan = make_plan(loaded)
    assert plan.proxy is not None and plan.proxy.port == 7005
    by_name = {host.name: host.settings for host in plan.hosts}
    assert by_name["p1"].interface == "eth7"
    assert by_name["p1"].address == "192.0.2.12"
    assert by_name["d0"].user == "omni"
    assert loaded.settings.ports.zmq == 5600
    assert str(loaded.origin("hosts", "p1", "address")).endswith("2P1D.yml:28")


def test_over_an_environment_it_replaces_hosts_and_topology(tmp_path: Path) -> None:
    text = (
        "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
        "hosts: {p0: {address: 10.0.0.1, interface: eth9}, x: {address: 10.0.0.2}}\n"
        "topology: {colocated: [{hosts: [x]}]}\n"
        "ports: {zmq: 5700}\n"
    )
    base = write(tmp_path, text, "base.yaml")
    loaded = config.load(str(base), [str(MULTI_HOST)], environ={})
    assert loaded.environment == "base"
    assert "x" not in loaded.settings.hosts and "p0" not in loaded.settings.hosts
    assert loaded.settings.ports.zmq == 5700
    nodes = make_plan(loaded).nodes
    assert [n.address for n in nodes] == [n.address for n in planned(MULTI_HOST).nodes]


def test_our_own_files_cannot_hold_a_literal_password(tmp_path: Path) -> None:
    for value in ("hunter2", "{literal: hunter2}"):
        path = write(tmp_path, f"hosts: {{p0: {{address: 10.0.0.1, password: {value}}}}}\n")
        with pytest.raises(InputError, match="a reference to the secret") as caught:
            config.load(str(path), environ={})
        assert "hunter2" not in str(caught.value)
