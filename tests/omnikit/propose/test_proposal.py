"""Files that are proposed for hosts of which all is known; each is planned as it is."""

from __future__ import annotations

import os
import pty
from pathlib import Path
from typing import Any

import pytest
from check_cases import FACTS

from hostkit.base import cli
from hostkit.base.errors import InputError
from hostkit.ranks.device_facts import npu_smi_info
from omnikit.propose import look, proposal
from omnikit.propose.proposal import Proposal, Wish


def facts(number: int, **more: Any) -> dict[str, Any]:
    """What job "survey" says of a healthy A3 host."""
    chips = [
        vars(one) for one in npu_smi_info((FACTS / "npu-smi-info.a3.healthy.txt").read_text()).chips
    ]
    return {
        "system": {"root": True, "home": "/root", "memory_mib": 1_000_000, "free_mib": 900_000},
        "network": {"default": "eth0", "addresses": [["eth0", f"10.0.0.{number + 1}"]]},
        "devices": {"driver": "25.2.1", "chips": chips, "processes": []},
        "images": {"engine": "docker 24", "names": []},
        "disks": [["/", 500_000, True], ["/data/omnikit", 500_000, True]],
        "weights": {},
        "ports": [22],
        "ours": False,
        "problems": [],
        **more,
    }


def proposed(folder: Path, model: str, count: int, there: str = "", **more: Any) -> Proposal:
    wish = Wish("site", model=model, hosts=[f"10.0.0.1-{count}" if count > 1 else "10.0.0.1"])
    path = folder / "site.yaml"
    wish, hosts = proposal.complete(wish, path)
    known = {name: facts(number, **more) for number, name in enumerate(hosts)}
    return proposal.lay_out(wish, hosts, known, path, there or None)


@pytest.mark.parametrize(
    "model, count",
    [
        *[("qwen3-8b", 1), ("qwen3-32b-w8a8", 2), ("qwen2.5-0.5b", 1), ("qwen2.5-7b", 2)],
        *[("minimax-m2.5-w8a8", 1), ("minimax-m2.5-w8a8", 3), ("kimi-k2.6-w4a8", 2)],
        *[("deepseek-v3.1-w8a8", 4), ("deepseek-v3.2-w8a8", 4), ("glm-5.1-w8a8", 4)],
        *[("qwen3-235b-w8a8", 3), ("openpangu-2.0-flash", 2), ("deepseek-r1-w8a8", 5)],
    ],
)
def test_each_model_gets_a_file_that_is_planned(model: str, count: int, tmp_path: Path) -> None:
    made = proposed(tmp_path, model, count)
    assert len({node.host for node in made.plan.nodes}) == count
    assert all(len(line) <= 100 for line in made.text.splitlines() if line.lstrip()[:1] == "#")
    assert proposed(tmp_path, model, count, made.text).text == made.text


def test_it_asks_for_what_it_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(cli, "_TERMINAL", Path(os.ttyname(theirs)))
    os.write(ours, b"10.0.0.1-2\n\n")
    wish, hosts = proposal.complete(Wish("site"), tmp_path / "site.yaml")
    os.close(theirs)
    asked = os.read(ours, 4096).decode()
    os.close(ours)
    assert [one["address"] for one in hosts.values()] == ["10.0.0.1", "10.0.0.2"]
    assert "Addresses of the hosts" in asked and "Model, one of" in asked
    assert "[deepseek-r1-w8a8]: " in asked and wish.model == "deepseek-r1-w8a8"


def test_what_a_host_has_decides_where_things_lie(tmp_path: Path) -> None:
    made = proposed(
        tmp_path,
        "qwen3-8b",
        1,
        network={"default": "eth0", "addresses": [["eth0", "172.16.0.1"], ["bond1", "10.0.0.1"]]},
        system={"root": False, "home": "/home/omni", "memory_mib": 1_000_000},
        disks=[["/data/omnikit", 500_000, False]],
    )
    assert "interface: bond1" in made.text
    assert "work_dir: /home/omni/omnikit" in made.text
    assert "/data/omnikit cannot be written to on s0" in made.text


def test_a_full_disk_is_left_for_a_larger_one(tmp_path: Path) -> None:
    disks = [["/mnt/nvme0", 900_000, True], ["/", 100, True], ["/data/omnikit", 100, True]]
    assert "work_dir: /mnt/nvme0/omnikit" in proposed(tmp_path, "qwen3-8b", 2, disks=disks).text
    full = proposed(tmp_path, "qwen3-8b", 2, disks=disks[1:]).text
    assert "has 100 MiB free on s0, s1, and no disk has room instead" in full


def test_a_release_whose_image_is_there_is_taken(tmp_path: Path) -> None:
    there = {"engine": "docker 24", "names": ["quay.io/ascend/vllm-ascend:v0.18.0-a3"]}
    made = proposed(tmp_path, "qwen3-8b", 2, images=there)
    assert made.config.settings.container.image == "quay.io/ascend/vllm-ascend:v0.18.0-a3"


def test_hosts_that_differ_are_refused_with_those_that_are_alike(tmp_path: Path) -> None:
    wish, hosts = proposal.complete(
        Wish("site", model="qwen3-8b", hosts=["10.0.0.1-3"]), tmp_path / "site.yaml"
    )
    known = {name: facts(number) for number, name in enumerate(hosts)}
    known["h1"]["devices"]["chips"].pop()
    with pytest.raises(InputError, match="the hosts differ") as error:
        proposal.lay_out(wish, hosts, known, tmp_path / "site.yaml", None)
    assert "--hosts 10.0.0.1,10.0.0.3" in str(error.value)


def test_an_address_that_is_not_the_hosts_own_cannot_be_planned(tmp_path: Path) -> None:
    _, hosts = proposal.complete(
        Wish("site", model="qwen3-8b", hosts=["203.0.112.7"]), tmp_path / "site.yaml"
    )
    settings = proposal._draft("qwen3-8b", "vllm-ascend", None, hosts).settings
    fault = look.unfit(settings, settings.hosts["h0"], facts(0))
    assert fault and "it has 10.0.0.1" in fault.what and "--jump" in fault.todo


def test_where_no_port_is_free_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no free ports were found for ports\.proxy"):
        proposed(tmp_path, "qwen2.5-7b", 1, ports=list(range(7000, 7100)))


def test_hosts_keep_their_names_and_no_two_get_the_same(tmp_path: Path) -> None:
    wish = Wish("site", model="deepseek-v3.1-w8a8", hosts=["d0=10.0.0.1", "10.0.0.2-4"])
    path = tmp_path / "site.yaml"
    wish, hosts = proposal.complete(wish, path)
    known = {name: facts(number) for number, name in enumerate(hosts)}
    made = proposal.lay_out(wish, hosts, known, path, None)
    names = {one.name: one.address for one in made.plan.hosts}
    assert len(names) == 4 and names["d0"] == "10.0.0.1", names


def test_too_few_hosts_are_told_how_many_it_takes_and_what_would_serve(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        proposed(tmp_path, "deepseek-r1-w8a8", 2)
    assert "give 3 hosts at least" in str(error.value) and "kimi-k2.6-w4a8" in str(error.value)


def test_a_port_that_is_taken_is_not_planned(tmp_path: Path) -> None:
    made = proposed(tmp_path, "qwen2.5-7b", 1, ports=[22, 7000])
    assert "  proxy: 7001  # 7000 is taken on s0" in made.text
    assert made.plan.proxy and made.plan.proxy.port == 7001
    again = proposed(tmp_path, "qwen2.5-7b", 1, made.text, ports=[22])
    assert again.text == made.text
    assert "7001" not in proposed(tmp_path, "qwen2.5-7b", 1, ports=[22, 7000], ours=True).text


def test_devices_that_others_use_and_what_could_not_be_looked_at_are_told(tmp_path: Path) -> None:
    devices = facts(0)["devices"]
    serving = npu_smi_info((FACTS / "npu-smi-info.a3.serving.txt").read_text())
    devices["processes"] = [vars(one) for one in serving.processes]
    broken = [{"of": "disks", "what": "disks: it hangs", "todo": ""}]
    said = proposed(tmp_path, "qwen3-8b", 1, devices=devices, disks=None, problems=broken).said
    assert any("busy: s0:" in line and "processes of others" in line for line in said)
    assert "  not looked at: s0: disks: it hangs" in said


def test_what_hosts_have_and_lack_stands_beside_them(tmp_path: Path) -> None:
    image = proposed(tmp_path, "qwen3-8b", 1).config.settings.container.image
    there = {"/data/big/Qwen3-8B": {"bytes": 0, "experts": 0, "config": {}, "problem": None}}
    some = {"images": {"engine": "docker 24", "names": [image]}, "weights": there}
    whole = " ".join(proposed(tmp_path, "qwen3-8b", 2, **some).text.split())
    assert "# s0, s1: driver 25.2.1, 976 GiB of memory, docker 24. hosts:" in whole
    assert "found on 2 of 2 hosts. model: path: /data/big/Qwen3-8B" in whole
    assert "Sizes are from the headers of the files in /data/big/Qwen3-8B" in whole
    assert "not there yet: image, weights in" in proposed(tmp_path, "qwen3-8b", 2).text
