"""A file that was brought, as an environment file of ours: the same plan, every origin named."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest
from foreign_files import ALL, DEPLOYMENT, FOUR_P, planned
from settings_file import write

from omnikit.config import config
from omnikit.config.layers import ENVIRONMENT
from omnikit.foreign import format
from omnikit.foreign import write as foreign_write
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan
from omnikit.yaml.strict_yaml import parse


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
