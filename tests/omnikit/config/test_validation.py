"""What a user reads about a wrong setting: where it is, what was found, what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import load_site

from hostkit.base.errors import InputError, ManyErrors

# (site file, line, message, what to do)
MISTAKES = [
    ("portz: {proxy: 1}", 1, "unknown setting portz, is it ports?", "defaults.yaml lists"),
    ("ports:\n  proxi: 1", 2, "unknown setting ports.proxi, is it ports.proxy?", ""),
    ("work_dir: /x", 1, "unknown setting work_dir, is it paths.work_dir?", ""),
    ("max-tokens: 3", 1, "is it smoke_test.max_tokens?", ""),
    ("zzz: 1", 1, "unknown setting zzz.", ""),
    ("hosts: {a: {address: b, usr: c}}", 1, "hosts.a.usr, is it hosts.a.user?", ""),
    ("hosts: {server: {address: b, usr: c}}", 1, "is it hosts.server.user?", ""),
    ("roles: {decod: {}}", 1, "unknown setting roles.decod, is it roles.decode?", ""),
    (
        "topology: {prefill: [{hosts: [local], device: 0}]}",
        1,
        "topology.prefill.0.device, is it topology.prefill.0.devices?",
        "",
    ),
    ("ports: {proxy: 70000}", 1, "ports.proxy: found 70000, expected at most 65535.", ""),
    ("ports: {proxy: 0}", 1, "ports.proxy: found 0, expected at least 1.", ""),
    ("ports: {proxy: '7000'}", 1, "found '7000', expected a whole number.", "without quotes"),
    ("ports: {proxy: 70.5}", 1, "found 70.5, expected a whole number.", ""),
    ("ports: {proxy: true}", 1, "found true, expected a whole number.", ""),
    ("ports:\n", 1, "ports: found nothing (null), expected a map.", "remove the key"),
    ("ports: [1]", 1, "ports: found a list, expected a map.", ""),
    ("hosts: [a]", 1, "hosts: found a list, expected a map.", ""),
    ("profile: cpu", 1, "profile: found 'cpu', expected a map.", ""),
    ("topology: {prefill: {}}", 1, "topology.prefill: found a map, expected a list.", "whole"),
    ("topology: {prefill: [{hosts: []}]}", 1, "an empty list, expected at least one entry.", ""),
    ("model: {served_name: 5}", 1, "found 5, expected text.", 'quote it: "5"'),
    ("readiness: {deadline_s: 5 min}", 1, "found '5 min', expected a number.", "without a unit"),
    ("readiness: {deadline_s: 0}", 1, "found 0, expected more than 0.", ""),
    ("runtime: dockr", 1, "found 'dockr', expected process or docker.", ""),
    ("proxy: {fail_timeout: 10 s}", 1, "found '10 s', expected a time like 500ms, 10s", ""),
    ("proxy: {client_max_body_size: big}", 1, "expected a size like 512k, 16m or 1g.", ""),
    ("devices: 7-0", 1, 'device ids like "0-7" or "0,2,5" (the range 7-0 does not', ""),
    ("devices: [0]", 1, "found a list, expected device ids like", ""),
    ("hosts: {'a b': {address: c}}", 1, "hosts: the name 'a b' is malformed, expected", ""),
    ("hosts: {a: {user: root}}", 1, "hosts.a.address is missing.", "add: address: 10.0.0.1"),
    ("server: {env: {A-B: 1}}", 1, "the name 'A-B' is malformed, expected a variable's", ""),
    ("server: {env: {A: [1]}}", 1, "found a list, expected text, a number, true,", ""),
    ("server: {args: {--port: 1}}", 1, "expected a flag without its dashes", ""),
    ("server: {args: {a: [[1]]}}", 1, "expected a list of plain words", ""),
    ("server: {args: }", 1, "server.args: found nothing (null), expected a map.", ""),
    ("server: {command: []}", 1, "found an empty list, expected at least one entry.", ""),
    ("engine: {torch_index: -r}", 1, "found '-r', expected an address beginning with", ""),
    ('model: {served_name: "a\\nb"}', 1, "expected text without control characters", ""),
    ('server: {env: {A: "\\0"}}', 1, "server.env.A: the character U+0000 has no place", ""),
    ("model: {served_name: '${host.x}'}", 1, "found ${host.…}, which is no reference", "plan.int"),
    ("paths: {work_dir: '{{ x }}'}", 1, "expected a path without {{, {% or {#", ""),
]


@pytest.mark.parametrize(("text", "line", "what", "todo"), MISTAKES)
def test_a_mistake_is_explained(tmp_path: Path, text: str, line: int, what: str, todo: str) -> None:
    with pytest.raises(InputError) as caught:
        load_site(tmp_path, text)
    assert caught.value.exit_code == 2
    assert what in caught.value.what
    assert str(caught.value.where) == f"{tmp_path}/site.yaml:{line}"
    assert todo in (caught.value.todo or "")


@pytest.mark.parametrize(
    "password", ["hunter2", "'hunter2'", "[hunter2]", "{text: hunter2}", "{file: 5, pass: hunter2}"]
)
def test_a_literal_password_is_refused_without_being_shown(tmp_path: Path, password: str) -> None:
    with pytest.raises(InputError) as caught:
        load_site(tmp_path, f"hosts:\n  local: {{password: {password}}}\n")
    assert "hosts.local.password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_literal_password_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\{file: PATH\} or \{variable: NAME\}"):
        load_site(tmp_path, "hosts: {local: {password: hunter2}}")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ManyErrors) as caught:
        load_site(tmp_path, "ports: {proxy: x}\nruntime: dockr\nstop: {grace_s: -1}\n")
    wheres = {str(error.where).rpartition("/")[2] for error in caught.value.errors}
    assert wheres == {"site.yaml:1", "site.yaml:2", "site.yaml:3"}


def test_a_flood_of_mistakes_is_cut(tmp_path: Path) -> None:
    with pytest.raises(ManyErrors, match="and 20 more mistakes"):
        load_site(tmp_path, "".join(f"x{i}: 1\n" for i in range(40)))


def test_a_mistake_in_an_option_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_site(tmp_path, "stop: {}", ["ports.proxy=x"])
    assert str(caught.value).startswith("--set ports.proxy: found 'x', expected a whole number.")
