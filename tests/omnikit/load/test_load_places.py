"""Where the load generator runs."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Sequence

import pytest
from load_cases import a_target
from settings_file import FLEET, load, load_site

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.load import targets
from omnikit.load.targets import DRIVER, Place
from omnikit.topology.topology import make_plan

WORDS = ["--model=tiny", "---", "--model=tiny"]


def place(loaded: config.Config, tokenizer: str = "/nowhere") -> Place:
    target = replace(a_target(), tokenizer=tokenizer)
    with targets.find_place(loaded, make_plan(loaded), target) as found:
        return found


def fleet(folder: Path, sets: Sequence[str] = ()) -> Place:
    return place(load(folder, FLEET, sets))


def test_with_the_engine_here_it_runs_here(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    found = place(load_site(tmp_path, f"engine: {{venv: {tmp_path}}}"))
    assert found.name == "this machine"
    assert found.argv(WORDS) == [f"{tmp_path}/bin/python", str(DRIVER), *WORDS]
    assert found.env["no_proxy"] == "*" and found.stdin is None
    assert found.shown(["--seed=0"]).endswith(f"{shlex.quote(str(DRIVER))} --seed=0")
    with pytest.raises(InputError, match="--tokenizer: there is no folder /nowhere"):
        targets.check_place(found, replace(a_target(), tokenizer="/nowhere"))
    targets.check_place(found, replace(a_target(), tokenizer=str(tmp_path)))


def test_without_the_engine_the_hosts_python_reads_the_driver(tmp_path: Path) -> None:
    found = place(load_site(tmp_path, f"engine: {{venv: {tmp_path}/none}}"))
    assert found.name == "host local" and found.stdin == DRIVER
    words = found.argv(["--seed=0"])
    assert words[0] == "env" and "no_proxy=*" in words
    assert words[-3:] == [f"{tmp_path}/none/bin/python", "-", "--seed=0"]
    assert found.shown([]).endswith(f" < {shlex.quote(str(DRIVER))}")
    targets.check_place(found, a_target())  # what is there cannot be seen from here


def test_a_fleet_in_containers_uses_a_servers_one_on_the_proxys_host(tmp_path: Path) -> None:
    found = fleet(tmp_path)
    assert found.name == "container omnikit_case_p0 on p0"
    words = found.argv(["--seed=0"])
    assert words[0] == "ssh" and words[-2] == "192.0.2.1"
    there = shlex.split(words[-1])
    assert there[:2] == ["sh", "-c"] and there[3:7] == ["sh", "exec", "-i", "omnikit_case_p0"]
    assert there[-3:] == ["python3", "-", "--seed=0"]
    profile = shlex.split(fleet(tmp_path, ["container.profile=/root/.bashrc"]).argv([])[-1])
    assert profile[6:9] == ["omnikit_case_p0", "bash", "-c"]
    assert '. "$omnikit_file"' in profile[9] and profile[10:12] == ["bash", "env"]
    named = shlex.split(fleet(tmp_path, ["container.engine=podman"]).argv([])[-1])
    assert named[:3] == ["podman", "exec", "-i"]


def test_a_proxy_alone_on_its_host_lends_its_container(tmp_path: Path) -> None:
    hosts = "  p1: {address: 192.0.2.2}\n  x: {address: 192.0.2.9}\n"
    text = FLEET.replace("  p1: {address: 192.0.2.2}\n", hosts).replace("proxy: p0", "proxy: x")
    assert place(load(tmp_path, text)).name == "container omnikit_case_c0 on x"


def test_without_a_proxy_it_runs_where_the_first_server_is(tmp_path: Path) -> None:
    alone = FLEET[: FLEET.index("topology:")] + "topology: {colocated: [{hosts: [p1]}]}\n"
    found = place(load(tmp_path, alone, ["runtime=process"]))
    assert found.name == "host p1" and "exec" not in found.argv([])[-1]


def test_an_engine_here_is_not_enough_without_the_tokenizer(tmp_path: Path) -> None:
    """The engine of a fleet's hosts may be here by chance; their model is not."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    loaded = load(tmp_path, FLEET, [f"engine.venv={tmp_path}"])
    assert place(loaded).name == "container omnikit_case_p0 on p0"
    assert place(loaded, str(tmp_path)).name == "this machine"
