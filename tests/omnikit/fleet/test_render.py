"""Start scripts: readable shell that yields exactly the planned words and variables."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from omnikit.config import config
from omnikit.fleet import render
from omnikit.plan.types import NodePlan
from omnikit.topology.topology import HOST_INTERFACE, make_plan

RECORDER = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
hostile = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))


def a_node(environment: str, name: str) -> NodePlan:
    return next(n for n in make_plan(config.load(environment, environ={})).nodes if n.name == name)


def run_recorded(node: NodePlan, rank: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Run the script with its program replaced by one that prints what it was given."""
    recording = replace(node, command=(sys.executable, "-c", RECORDER, *node.command))
    script = folder / "start.sh"
    script.write_text(render.start_script("test", recording), encoding="utf-8")
    done = subprocess.run(
        ["bash", str(script), str(rank)], capture_output=True, text=True, check=True
    )
    words, variables = json.loads(done.stdout)
    return words, variables


def test_every_server_gets_exactly_its_words_and_variables(tmp_path: Path) -> None:
    node = a_node("2p1d", "d1")
    node = replace(
        node,
        temp_dir=str(tmp_path / "t"),
        workdir=str(tmp_path),
        placement_check=(),
        env={k: v for k, v in node.env.items() if HOST_INTERFACE not in v},
    )
    for server in (node.servers[0], node.servers[15]):
        words, variables = run_recorded(node, server.local_rank, tmp_path)
        assert tuple(words) == node.argv(server)
        for name, value in node.environment(server).items():
            assert variables[name] == value


@settings(max_examples=25, deadline=None)
@given(value=hostile, word=hostile)
def test_hostile_text_arrives_as_data(tmp_path_factory, value: str, word: str) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    node = replace(
        a_node("colocated", "s0"),
        temp_dir=str(folder / "t $(touch x) '"),
        env={"HOSTILE": value},
        command=("serve", f"--flag={word}", word),
    )
    words, variables = run_recorded(node, 0, folder)
    assert words == ["serve", f"--flag={word}", word]
    assert variables["HOSTILE"] == value


def test_the_hosts_interface_is_filled_in_on_the_host(tmp_path: Path) -> None:
    node = a_node("2p1d", "p0")
    text = render.start_script("2p1d", node)
    assert 'export GLOO_SOCKET_IFNAME="$interface"' in text
    named = replace(node, env={"GLOO_SOCKET_IFNAME": "bond0"}, servers=node.servers)
    assert "default_interface" not in render.start_script("2p1d", named)


def test_scripts_of_all_environments_are_clean_shell(tmp_path: Path) -> None:
    files = []
    profile = {"file": "/root/a file", "library": "libm.so.6", "python": "python3"}
    for environment in ("local", "colocated", "2p1d"):
        for node in make_plan(config.load(environment, environ={})).nodes:
            path = tmp_path / f"{environment}-{node.name}.sh"
            loads = profile if environment == "2p1d" else None
            path.write_text(render.start_script(environment, node, loads), encoding="utf-8")
            files.append(str(path))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([str(shellcheck), *files], check=True)


def test_an_unknown_rank_is_misuse(tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    script.write_text(render.start_script("local", a_node("local", "p0")), encoding="utf-8")
    done = subprocess.run(["bash", str(script), "7"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr


def prepared_node(tmp_path: Path, *commands: str) -> NodePlan:
    node = a_node("2p1d", "d1")
    env = {"OF_THE_SERVER": "its own"}
    made = replace(node, temp_dir=str(tmp_path / "t x"), workdir=str(tmp_path), env=env)
    return replace(made, placement_check=(), prepare=commands)


def test_what_comes_before_the_servers_is_run_once_for_all_of_them(tmp_path: Path) -> None:
    node = prepared_node(tmp_path, 'echo "$OF_THE_SERVER it\'s" >>done', "sleep 0.2; pwd >>done")
    recording = replace(node, command=(sys.executable, "-c", "print(open('done').read())"))
    script = tmp_path / "start.sh"
    script.write_text(render.start_script("test", recording), encoding="utf-8")
    runs = [
        subprocess.Popen(["bash", str(script), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    for run in runs:  # whoever comes second waits until it is done
        assert run.communicate()[0].split("\n")[:2] == ["its own it's", str(tmp_path)]
        assert run.returncode == 0
    assert Path(node.prepared).exists()
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([str(shellcheck), str(script)], check=True)


def test_no_server_starts_whose_commands_before_it_fail(tmp_path: Path) -> None:
    node = prepared_node(tmp_path, "rm no-such-file", "touch late")
    script = tmp_path / "start.sh"
    script.write_text(render.start_script("test", node), encoding="utf-8")
    done = subprocess.run(["bash", str(script), "0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: this command failed: rm no-such-file" in done.stderr
    assert "What to do: see server.prepare of decode" in done.stderr
    assert not (tmp_path / "late").exists() and not Path(node.prepared).exists()
