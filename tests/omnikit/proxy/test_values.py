from __future__ import annotations

import json

import pytest
from settings_file import load_site

from hostkit.base.errors import InputError
from omnikit.proxy import values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::1", "[::1]"),
        ("FE80::0:1", "[fe80::1]"),
        ("node_1.cluster-a", "node_1.cluster-a"),
    ],
)
def test_hosts_as_they_stand_in_an_address(text, expected):
    assert values.host("x", text) == expected
    assert values.address("x", (text, 80)) == f"{expected}:80"


@pytest.mark.parametrize("text", ["", "-a", "a-", "a..;", "a:1", "[::1]", "::1%lo", "é", "a\n", 7])
def test_what_is_no_host(text):
    with pytest.raises(InputError, match="host name or IP address"):
        values.host("x", text)


def test_sizes_and_times_as_numbers():
    assert [values.size_bytes(t) for t in ("7", "2k", "3M", "1g")] == [7, 2048, 3 << 20, 1 << 30]
    assert [values.seconds(t) for t in ("10", "1h30m", "1500ms", "1ms", "2d", "5")] == [
        10,
        5400,
        1,
        1,
        172800,
        5,
    ]


def test_a_missing_setting_is_named():
    assert values.wanted({"a": 0}, "a") == 0
    with pytest.raises(InputError, match=r"proxy\.b"):
        values.wanted({"b": None}, "b")


def test_a_path_may_have_spaces_and_more_but_nothing_that_nginx_expands():
    assert values.path("x", "/a b;{}#é/日本") == "/a b;{}#é/日本"
    for text in ("a", "", "/a$b", '/a"', "/a\\b", "/a\x7f", "/a\u2028b", "/a\ud800", None):
        with pytest.raises(InputError):
            values.path("x", text)


def test_comments_stay_on_one_line():
    assert values.comment("a\nb\u2028c\td") == "a b c d"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("worker_connections", 7, "at least 8"),
        ("worker_processes", 1025, "at most 1024"),
        ("modules_dir", "modules", "an absolute path"),
        ("log_file", "/l/$b", "a path without quotes, backslashes and dollar signs"),
        ("large_client_header_buffers", "0 0", "number and size like 4 512k"),
        ("metrics_from", ["300.1.1.1"], "an IP address, or a network like 10.0.0.0/8"),
    ],
)
def test_what_a_setting_may_be_is_said_where_it_stands_and_to_launchers(
    tmp_path, key, value, expected
):
    """Once, in the schema: a configuration's error has file and line, a launcher's the setting."""
    with pytest.raises(InputError) as caught:
        load_site(tmp_path, f"proxy:\n  {key}: {json.dumps(value)}\n")
    assert caught.value.where.endswith("site.yaml:2") and expected in str(caught.value)
    with pytest.raises(InputError) as caught:
        values.setting({key: value}, key)
    assert caught.value.where == f"proxy.{key}" and expected in str(caught.value)
