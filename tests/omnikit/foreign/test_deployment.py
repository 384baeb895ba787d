"""omni_infer_deployment.yml, used as it is: the plan follows omni-infer's rules."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from foreign_files import DEPLOYMENT, edited, line_of, mistake, planned

from omnikit.config import config
from omnikit.plan.types import Plan

ALL_16 = tuple(range(16))
DECODE_IPS = "192.0.2.15,192.0.2.16,192.0.2.17,192.0.2.18"
# The proxy's own lines: its host is named elsewhere too.
PROXY = '  proxy:\n    user: "root"\n    host: "192.0.2.11"'


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(DEPLOYMENT)


def test_prefill_is_as_the_file_says(plan: Plan) -> None:
    for rank, node in enumerate(plan.nodes[:4]):
        assert (node.name, node.role, node.kv_rank) == (f"p{rank}", "prefill", rank)
        assert node.address == node.master_ip == f"192.0.2.{11 + rank}"
        assert (node.devices, node.tensor_parallel, node.dp_size) == (ALL_16, 16, 1)
        assert node.master_port == 8000 + rank
        assert [s.api_port for s in node.servers] == [9000 + rank]
        assert node.env["PREFILL_POD_NUM"] == "4"
        assert "30000" in node.command


def test_decode_is_one_instance_over_its_hosts_with_their_overrides(plan: Plan) -> None:
    devices = [16, 16, 16, 8]
    first_ports = [9100, 9200, 9100, 9100]
    rank = 0
    for k, node in enumerate(plan.nodes[4:]):
        assert (node.name, node.kv_rank, node.dp_size) == (f"d{k}", 4, 56)
        assert (node.master_ip, node.master_port) == ("192.0.2.15", 8100)
        assert (len(node.devices), node.server_offset) == (devices[k], rank)
        assert node.env["GLOBAL_DECODE_SERVER_IP_LIST"] == DECODE_IPS
        for server in node.servers:
            assert server.dp_rank == rank
            assert server.api_port == first_ports[k] + server.local_rank
            rank += 1
        assert "16000" in node.command
    assert rank == 56


def test_the_proxy_knows_every_server(plan: Plan) -> None:
    assert plan.proxy is not None
    assert (plan.proxy.host, plan.proxy.port, plan.proxy.listen_host) == ("p0", 7000, "0.0.0.0")
    assert plan.proxy.prefill == tuple((f"192.0.2.{11 + k}", 9000 + k) for k in range(4))
    assert len(plan.proxy.decode) == 56


def test_logins_and_services_are_taken_over(plan: Plan) -> None:
    by_name = {host.name: host.settings for host in plan.hosts}
    assert by_name["p0"].private_key == "/workspace/pem/keypair.pem"
    assert by_name["d1"].private_key == "/workspace/new_pem/keypair.pem"
    assert by_name["p2"].private_key is None
    settings = config.load(None, [str(DEPLOYMENT)], environ={}).settings
    assert settings.container.image == "registry.example.com/omni-ai/omniinfer:202506272026"
    assert settings.paths.log_dir == "/data/omniinfer/log"
    assert settings.paths.code_dir == "/data/code_path/omniinfer"
    assert settings.paths.local_code_dir == "/workspace/local_code_path/omniinfer"
    assert settings.fleet.http_proxy is None  # an empty text says nothing
    assert plan.model_path == "/data/models/DeepSeek-R1-w8a8"
    assert settings.profile.model_dump() == {
        "engine": "ascend",
        "omni_version": "v0.4.1",
        "hardware": None,
        "model": "deepseek-r1-w8a8",
    }


def test_a_literal_password_works_and_is_shown_nowhere(plan: Plan) -> None:
    host = next(h for h in plan.hosts if h.name == "p2")
    assert host.settings.password is not None
    assert config.read_secret(host.settings.password, "x") == "not-a-real:password #3"
    assert "not-a-real" not in repr(plan)
    loaded = config.load(None, [str(DEPLOYMENT)], environ={})
    assert "not-a-real" not in repr(loaded)


def test_windows_line_ends_make_no_difference(tmp_path: Path, plan: Plan) -> None:
    assert planned(edited(tmp_path, DEPLOYMENT, crlf=True)) == plan


def as_json(folder: Path, indent: str | None = "\t") -> Path:
    """The same in JSON, as the omni_cli of v0.4.1 has it, with the key that it has besides."""
    data = yaml.safe_load(DEPLOYMENT.read_text(encoding="utf-8"))
    data["services"]["log_path_in_executor"] = "/var/log/omniinfer"
    path = folder / "omni_infer_deployment.json"
    path.write_text(json.dumps(data, indent=indent).replace("/", "\\/"), encoding="utf-8")
    return path


def test_the_same_file_in_json_gives_the_same_plan(tmp_path: Path, plan: Plan) -> None:
    for indent in ("\t", None):
        path = as_json(tmp_path, indent)
        assert planned(path) == plan
        loaded = config.load(None, [str(path)], environ={})
        assert loaded.settings.paths.local_log_dir == "/var/log/omniinfer"
        assert loaded.notes == ()
        assert "not-a-real" not in repr(loaded)


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        (('"master_port": "8001"', '"master_prt": "8001"'), "master_prt", "is it 'master_port'?"),
        (('"8001"', '"80o1"'), "80o1", "expected a whole number"),
        (('"8001",', '"8001"'), None, "not valid JSON: Expecting ',' delimiter"),
        (('"group2": {', '"group1": {'), None, "'group1' stands twice"),
        (('"log_path"', '"log_pth"'), "log_pth", "is it 'log_path'?"),
    ],
)
def test_mistakes_in_json_are_named_with_their_line(
    tmp_path: Path, change: tuple[str, str], at: str | None, what: str
) -> None:
    path = as_json(tmp_path)
    path = edited(tmp_path, path, change)
    said = mistake(path)
    assert what in said and "not-a-real" not in said
    assert said.startswith(line_of(path, at) if at else f"{path}:"), said


def test_groups_count_in_the_order_of_the_file_as_omni_cli_counts_them(tmp_path: Path) -> None:
    path = edited(tmp_path, DEPLOYMENT, ("group4", "group10"), ("group1:", "group9:"))
    addresses = [n.address for n in planned(path).nodes[:4]]
    assert addresses == ["192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14"]
    [note] = config.load(None, [str(path)], environ={}).notes
    assert "order of the file (group9, group2, group3, group10)" in note


def test_a_key_that_nobody_could_have_mistyped_is_a_note(tmp_path: Path) -> None:
    more = 'services:\n  etcd_port: "6000"\n  log_path_in_executor: "/var/log/here"\n  gpu: "x"\n'
    path = edited(
        tmp_path, DEPLOYMENT, ("services:\n", more), ("  proxy:", "  kv_pool: 1\n  proxy:")
    )
    loaded = config.load(None, [str(path)], environ={})
    assert loaded.settings.paths.local_log_dir == "/var/log/here"
    assert loaded.notes == (
        f"{line_of(path, 'kv_pool')}: kv_pool in deployment: not used: omni_cli's file has no such"
        " key",
        f"{line_of(path, 'etcd_port')}: etcd_port in services: not used: omni_cli's file has no"
        " such key",
        f"{line_of(path, 'gpu')}: gpu in services: not used: omni_cli's file has no such key",
    )


def test_a_prefill_group_may_span_hosts_and_a_host_may_have_several_groups(tmp_path: Path) -> None:
    half = "0,1,2,3,4,5,6,7"
    text = DEPLOYMENT.read_text(encoding="utf-8").replace('"192.0.2.14"', '"192.0.2.13"')
    third, _, rest = text.partition("    group4:")
    third = third[::-1].replace(f"{half},8,9,10,11,12,13,14,15"[::-1], half[::-1], 1)[::-1]
    rest = rest.replace(f"{half},8,9,10", "8,9,10", 1)
    rest = rest.replace("private_key: /", "private_key: /", 1)
    path = tmp_path / "d.yml"
    path.write_text(f"{third}    group4:{rest}".replace('"192.0.2.12"', '"192.0.2.12, 192.0.2.19"'))
    nodes = {n.name: n for n in planned(path).nodes}
    assert nodes["p2"].node_rank == 1
    assert (nodes["p2"].address, nodes["p2"].master_ip) == ("192.0.2.19", "192.0.2.12")
    assert nodes["p1"].tensor_parallel == nodes["p2"].tensor_parallel == 32
    assert (nodes["p3"].host, nodes["p4"].host) == ("p3", "p3")
    assert nodes["p3"].devices == tuple(range(8))
    assert nodes["p4"].devices == tuple(range(8, 16))
    assert nodes["d0"].kv_rank == 4


def test_the_shipped_file_has_one_port_twice_and_works(tmp_path: Path) -> None:
    """Every port in it is 8080 or 9000: of the proxy and of a prefill master on the same host."""
    text = re.sub(r'_port: "[78]\d+"', '_port: "8080"', DEPLOYMENT.read_text(encoding="utf-8"))
    path = tmp_path / "d.yml"
    path.write_text(re.sub(r'_port: "9\d+"', '_port: "9000"', text))
    plan = planned(path)
    assert plan.proxy is not None and plan.proxy.port == 8080
    assert {node.master_port for node in plan.nodes} == {8080}
    assert {node.servers[0].api_port for node in plan.nodes} == {9000}
    [note] = plan.notes
    assert note.startswith(f"{line_of(path, 'master_port')}: topology.prefill.0.master_port: port")
    assert f"also for the proxy ({line_of(path, 'listen_port')}" in note


def test_a_port_that_is_really_listened_on_twice_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, DEPLOYMENT, (PROXY, PROXY[:-3] + '15"'), ('"7000"', '"8100"'))
    said = mistake(path)
    assert said.startswith(f"{line_of(path, 'listen_port')}: ")
    assert f"by the master of d0 ({line_of(path, 'master_port', 5)}" in said
    path = edited(tmp_path, DEPLOYMENT, ("192.0.2.11", "192.0.2.19"), (PROXY, PROXY[:-3] + '16"'))
    path = edited(tmp_path, path, ('"7000"', '"9207"'))
    assert "by the API of d1" in mistake(path)


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        (('"0,1,2,3,4,5,6,7"\n\n', '"0,1,2,3, 4"\n\n'), "3, 4", 'write "0,1,2,3,4"'),
        (('"0,1,2,3,4,5,6,7"\n\n', '"0,2"\n\n'), '"0,2"', "count up by one"),
        (("master_port", "master_prt"), "master_prt", "is it 'master_port'?"),
        (("  proxy:", "  proxi:"), "proxi:", "is it 'proxy'?"),
        (("log_path", "log_pth"), "log_pth", "is it 'log_path'?"),
        (("    group2:", "    grp2:"), "grp2:", "expected group1, group2"),
        (("    group2:", "    group01:"), "group01", "has the number of group1"),
        (("    group2:", "    group1:"), "group1:", "stands twice"),
        (('hosts: "192.0.2.12"', 'hosts: ""'), 'hosts: ""', "found '', expected something like"),
        (('      hosts: "192.0.2.12"\n', ""), None, "prefill.group2: hosts is missing"),
        (('base_api_port: "9001"', 'base_api_port: "9k"'), '"9k"', "expected a whole number"),
        (('      base_api_port: "9001"\n', ""), None, "prefill.group2: base_api_port is missing"),
        (("host 192.0.2.16:", "host 192.0.2.66:"), "host 192.0.2.66", "is it 192.0.2.16?"),
        (("      host 192.0.2.18:", "      host:"), "      host:", "is it 'hosts'?"),
        (('base_api_port: "9200"', 'hosts: "x"'), 'hosts: "x"', "unknown key 'hosts'"),
        (('base_api_port: "9200"', 'master_port: "1"'), 'master_port: "1"', "is 8100"),
        (("192.0.2.16,192", "192.0.2.15,192"), "192.0.2.15,192.0.2.15", "stands twice"),
        (("192.0.2.16,192", "192.0.2.16,,192"), ",,", "is empty"),
        (('user: "root"\n    host:', 'user: "root"\n    hst:'), "hst:", "is it 'host'?"),
        (('listen_port: "7000"', "listen_port:"), "listen_port:", "found nothing"),
        (('max_model_len: "30000"', "max_model_len: long"), "long", "found 'long'"),
        (("services:", "services: x\nservice:"), "service:", "unknown key 'service'"),
        (('http_proxy: ""', 'http_proxy: "x y"'), "http_proxy", "fleet.http_proxy: found 'x y'"),
        (('"not-a-real:password #3"', "[a]"), "[a]", "found a list, expected text"),
        (("192.0.2.17", "192.0.2.300"), "192.0.2.300", "expected an IP address"),
        (("192.0.2.11", "127.0.0.1"), "127.0.0.1", "loopback"),
    ],
)
def test_mistakes_are_named_with_their_line(
    tmp_path: Path, change: tuple[str, str], at: str | None, what: str
) -> None:
    path = edited(tmp_path, DEPLOYMENT, change)
    said = mistake(path)
    assert what in said
    assert "hunter" not in said and "not-a-real" not in said
    where = f"{path}:" if at is None else line_of(path, at)
    if at == "group1:":
        where = line_of(path, at, 2)
    assert said.startswith(where), said


def test_only_one_decode_group_is_possible(tmp_path: Path) -> None:
    second = '    group2:\n      hosts: "192.0.2.19"\n  proxy:'
    path = edited(tmp_path, DEPLOYMENT, ("  proxy:", second))
    said = mistake(path)
    assert said.startswith(f"{line_of(path, 'group2:', 2)}: found 2 decode groups, only one")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("deployment:\n", "deployment: found nothing, expected a map"),
        ("deployment: []\n", "deployment: found a list, expected a map"),
        ("services: {}\n", "deployment is missing"),
        ("deployment: {prefill: {}}\n", "deployment: prefill: found a map"),
        ("deployment: {prefill: {group1: {}}}\n", "deployment: decode is missing"),
        ("deployment:\n  prefill: {group1: x}\n  decode: {a: 1}\n  proxy: {a: 1}\n", "'x'"),
    ],
)
def test_files_without_their_parts_are_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "d.yml"
    path.write_text(text)
    assert what in mistake(path)


def test_one_host_has_one_login(tmp_path: Path) -> None:
    path = edited(tmp_path, DEPLOYMENT, ("192.0.2.12", "192.0.2.11"), ('"root"', '"omni"'))
    said = mistake(path)
    assert said.startswith(f"{line_of(path, 'user:', 2)}: user of prefill.group2 on 192.0.2.11")
    assert line_of(path, "omni") in said
    path = edited(tmp_path, DEPLOYMENT, (PROXY, PROXY.replace("root", "omni")))
    assert planned(path).hosts[0].settings.user == "root"
