"""The files and commands of the kind nginx-lua."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import golden_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_settings import COLOCATED, LARGE, LOCAL, SETTINGS

from hostkit.base import run
from hostkit.base.errors import InputError
from omnikit import proxy


@pytest.mark.parametrize("name", golden_files.PROXIES)
def test_what_differs_from_the_usual_is_as_stored(name):
    """The usual files themselves stand in tests/golden/local."""
    assert golden_files.proxy_difference(name) == golden_files.proxy_file(name).read_text()


def test_commands_name_nothing_outside_the_run_dir():
    assert proxy.command(LOCAL) == [
        "/usr/sbin/nginx",
        *("-e", "stderr", "-p", "/work/run/c0/", "-c", "nginx.conf"),
    ]
    assert proxy.reload_command(LOCAL) == [*proxy.command(LOCAL), "-s", "reload"]
    assert proxy.check_command(LOCAL) == [*proxy.command(LOCAL), "-t", "-q"]
    assert proxy.health_path(LOCAL) == "/health"


@pytest.mark.parametrize("spec", [LOCAL, LARGE, replace(COLOCATED, decode=(("::1", 9200),))])
def test_nginx_accepts_the_files(nginx, tmp_path, spec):
    here = {"nginx": nginx.path, "modules_dir": nginx.modules_dir}
    ours = replace(
        spec,
        run_dir=str(tmp_path),
        log_dir=str(tmp_path),
        settings={**spec.settings, **here},
    )
    for name, text in proxy.files(ours, "x").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    result = run.run(proxy.check_command(ours) or [], check=False)
    assert result.code == 0, result.err


def test_a_source_with_line_ends_stays_in_its_comment():
    for text in proxy.files(LOCAL, 'a\nload_module "x";\r\u2028\x0bb').values():
        assert text.splitlines()[0].endswith(' generated from a load_module "x";   b')


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decode": ()}, "topology"),
        ({"decode": (("a;b", 1),)}, "decode server"),
        ({"prefill": (("a b", 1),)}, "prefill server"),
        ({"prefill": (("fe80::1%eth0", 1),)}, "prefill server"),
        ({"prefill": (("a", 0),)}, "prefill server"),
        ({"prefill": (("a", True),)}, "prefill server"),
        ({"listen_host": "$host"}, "listen_host"),
        ({"listen_port": 65536}, "listen_host"),
        ({"log_dir": "/a/$x"}, "log_dir"),
        ({"log_dir": "relative"}, "log_dir"),
        ({"run_dir": "/a\nb"}, "run_dir"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, named):
    with pytest.raises(InputError) as caught:
        proxy.files(replace(LOCAL, **change), "x")
        proxy.command(replace(LOCAL, **change))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kv_params", "nxil"),
        ("prefill_balance", "least_conn;"),
        ("decode_balance", None),
        ("worker_processes", 0),
        ("worker_connections", "many"),
        ("keepalive", True),
        ("max_fails", -1),
        ("fail_timeout", "10 s"),
        ("connect_timeout", "soon"),
        ("read_timeout", ""),
        ("client_max_body_size", "0"),
        ("subrequest_output_buffer_size", "1m;"),
        ("large_client_header_buffers", "4"),
        ("log_level", "loud"),
        ("modules_dir", '/a"; load_module "b'),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(key, value):
    with pytest.raises(InputError) as caught:
        proxy.files(replace(LOCAL, settings={**SETTINGS, key: value}), "x")
    assert f"proxy.{key}" in str(caught.value)
    assert caught.value.todo


def directives(conf: str) -> list[list[str]]:
    """nginx's own way of reading words, quotes, comments and ends, kept to what it needs here."""
    found: list[list[str]] = [[]]
    word, quote, at = "", "", 0
    while at < len(conf):
        c = conf[at]
        if quote:
            if c == "\\":
                word, at = word + conf[at : at + 2], at + 1
            elif c == quote:
                quote, found[-1], word = "", [*found[-1], word], ""
            else:
                word += c
        elif c == "#" and not word:
            at = conf.index("\n", at)
        elif c in "\"'" and not word:
            quote = c
        elif c.isspace() or c in ";{}":
            if word:
                found[-1].append(word)
            word = ""
            if c in ";{}":
                found.append([])
        else:
            word += c
        at += 1
    return found


hostile = st.one_of(
    st.text(max_size=20),
    st.sampled_from(list(";{}$'\"\\# \n\r\0\u2028")).map(lambda c: f"/a{c}b"),
    st.text(alphabet="a/.;{}$'\"\\# \n\t", max_size=12).map(lambda text: f"/{text}"),
)


# No deadline: a busy machine is no failure.
@settings(deadline=None, max_examples=60)
@given(value=hostile, place=st.sampled_from(["log_dir", "modules_dir", "host", "listen"]))
def test_no_text_becomes_configuration(value: str, place: str) -> None:
    """Whatever text comes in is refused or stays one word: the shape of the file is the same."""
    changes: dict[str, Any] = {
        "log_dir": {"log_dir": value},
        "modules_dir": {"settings": {**SETTINGS, "modules_dir": value or None}},
        "host": {"decode": ((value, 9102),)},
        "listen": {"listen_host": value},
    }[place]
    try:
        text = proxy.files(replace(LOCAL, **changes), "x")["nginx.conf"]
    except InputError:
        return
    usual = proxy.files(LOCAL, "x")["nginx.conf"]
    assert [len(words) for words in directives(text)] == [len(w) for w in directives(usual)]
    assert sum(value in word for words in directives(text) for word in words)
