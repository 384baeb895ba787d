"""Commands that print logs, here and over SSH."""

from __future__ import annotations

import shlex

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.config import config
from omnikit.fleet import direct_ssh
from omnikit.logs import logs
from omnikit.plan.types import HostPlan
from omnikit.topology.topology import make_plan


def plan_of(environment: str, *assignments: str):
    return make_plan(config.load(environment, assignments=assignments, environ={}))


def tail(environment: str, host: HostPlan, path: str, follow: bool) -> list[str]:
    settings = config.load(environment, environ={}).settings
    with direct_ssh.streams([host], settings) as [link]:
        return logs.tail_command(link, path, 9, follow)


def test_every_server_and_the_proxy_have_a_log() -> None:
    names = [name for name, _, _ in logs.sources(plan_of("2p1d"))]
    assert names[:3] == ["p0", "p1", "d0.0"]
    assert len(names) == 2 + 32 + 1


def test_here_tail_is_called_directly() -> None:
    assert tail("colocated", plan_of("colocated").hosts[0], "/l/a b", True) == [
        "tail",
        "-n",
        "9",
        "-F",
        "--",
        "/l/a b",
    ]


def test_over_ssh_the_remote_shell_gets_quoted_words_and_keys_are_checked() -> None:
    host = plan_of("2p1d", "hosts.p0={address: 192.0.2.11, user: ops, port: 2222}").hosts[0]
    words = tail("2p1d", host, "/l/a b; rm -rf x", False)
    assert words[:1] == ["ssh"] and "StrictHostKeyChecking=yes" in words
    assert words[-2] == "ops@192.0.2.11" and "2222" in words
    assert shlex.split(words[-1])[-1] == "/l/a b; rm -rf x"


def test_an_unknown_instance_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="p7") as caught:
        logs.show(config.load("local", environ={}), ["p7"], 5, False)
    assert "p0" in str(caught.value)


def test_lines_of_several_logs_carry_their_names(tmp_path, capsys) -> None:
    loaded = config.load("local", assignments=[f"paths.work_dir={tmp_path}"], environ={})
    for name, path, _ in logs.sources(make_plan(loaded)):
        from pathlib import Path

        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(f"hello from {name}\n")
    assert logs.show(loaded, [], 5, False) == 0
    assert "d0 | hello from d0\n" in capsys.readouterr().out
    assert logs.show(loaded, ["p1"], 5, False) == 0
    assert capsys.readouterr().out == "hello from p1\n"


def test_a_log_that_is_not_there_is_an_error(tmp_path) -> None:
    loaded = config.load("local", assignments=[f"paths.work_dir={tmp_path}"], environ={})
    with pytest.raises(ActionError, match="could not be read"):
        logs.show(loaded, ["p0"], 5, False)
