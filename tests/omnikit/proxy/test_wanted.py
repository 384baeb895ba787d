"""From the launcher's options, or a rendered file, to what shall run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostkit.base.errors import InputError
from omnikit.proxy import launch

LISTS = {"prefill": (("192.0.2.1", 9000),), "decode": (("192.0.2.2", 9100),)}


def rendered(kind: str = "omni-nginx", **given: Any) -> launch.Wanted:
    return launch.rendered({**LISTS, **given}, kind, Path("/run/here"))


names = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
hosts = st.one_of(names, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
servers = st.lists(st.tuples(hosts, st.integers(1, 65535)), unique=True, max_size=64)


@given(servers=servers)
def test_a_list_says_its_servers_in_order(servers: list[tuple[str, int]]) -> None:
    text = ",".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in servers
    )
    assert launch.parse_servers("--list", text) == tuple(servers)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a", "'a'"),
        ("a:", "'a:'"),
        ("a:1,", "''"),
        (":1", "host name or IP"),
        ("a:1,a:1", "stands twice"),
        ("a:65536", "65535"),
        ("fe80::1:80", r"\[address\]:port"),
        ("a;b:1", "host name or IP"),
        ("a:1;", "'a:1;'"),
    ],
)
def test_a_malformed_list_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        launch.parse_servers("--decode-servers-list", text)
    assert "--decode-servers-list" in str(caught.value)


@settings(deadline=None)
@given(text=st.text(alphabet="a1:,;{}$[]. \n'\"\\#", max_size=20))
def test_no_list_becomes_configuration(text: str) -> None:
    try:
        found = launch.parse_servers("--list", text)
    except InputError:
        return
    assert all(not set(host) & set(";{}$ \n'\"\\#,") for host, _ in found)


def test_options_stand_above_the_configuration_which_fills_the_rest() -> None:
    made = rendered(
        listen_port=7123,
        prefill_balance="least_conn",
        decode_balance="weighted_least_active",
        worker_processes=2,
        start_core=16,
        log_file="/var/log/x/nginx_error.log",
        log_level="notice",
        modules_dir="/opt/modules",
    )
    text = made.files["nginx.conf"]
    assert (made.host, made.port) == ("0.0.0.0", 7123)
    assert 'error_log "/var/log/x/nginx_error.log" notice;' in text
    assert 'access_log "/var/log/x/access.log" pd;' in text
    assert "worker_processes 2;" in text
    assert f"worker_cpu_affinity 1{'0' * 16} 1{'0' * 17};" in text
    assert 'load_module "/opt/modules/ngx_http_upstream_weighted_least_active_module.so";' in text
    assert "keepalive 2048;" in text
    assert made.health_url == "http://127.0.0.1:7123/health"


def test_without_options_it_is_what_the_shipped_environment_says() -> None:
    made = rendered()
    assert "pd_score_balance prefill;" in made.files["nginx.conf"]
    assert "pd_score_balance_decode_req_limit 25;" in made.files["nginx.conf"]
    assert str(made.error_log) == "/run/here/logs/nginx_error.log"
    assert made.port == 7000


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"prefill_balance": "fastest"}, "proxy.prefill_balance"),
        ({"worker_processes": 0}, "proxy.worker_processes"),
        ({"start_core": -1}, "proxy.start_core"),
        ({"listen_port": 0}, "proxy.listen_host"),
        ({"log_file": "/a$b/e.log"}, "paths.log_dir"),
        ({"log_file": "/l/$b"}, "proxy.log_file"),
        ({"log_level": "loud"}, "proxy.log_level"),
        ({"decode": ()}, "topology"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        rendered("omni-nginx", **given)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"prefill_balance": "pd_score_balance"}, "proxy.prefill_balance"),
        ({"start_core": 0}, "--start-core-index"),
        ({"metrics": LISTS["decode"]}, "--metrics-servers-list"),
        ({"client_body_buffer_size": "1m"}, "--client-body-buffer-size"),
        ({"stream_ops": "off"}, "--stream-ops"),
        ({"max_num_seqs": {"decode": 1}}, "--{prefill,decode}-max-num-seqs"),
        ({"log_file": "/l/e.log"}, "--log-file"),
    ],
)
def test_nginx_lua_refuses_what_only_the_other_kind_can(given: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        rendered("nginx-lua", **given)
    assert caught.value.where == where and caught.value.todo


def test_a_rendered_file_is_read_back_as_it_was(tmp_path: Path) -> None:
    for kind in launch.ENVIRONMENTS:
        made = rendered(kind, listen_port=7300)
        for name, text in made.files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        read = launch.from_file(kind, tmp_path / "nginx.conf", made.settings)
        assert (read.host, read.port, read.error_log) == (made.host, 7300, made.error_log)
        assert made.files.items() <= read.files.items()


@pytest.mark.parametrize("lost", ["daemon off;", "pid nginx.pid;", "error_log ", "listen "])
def test_a_file_that_cannot_be_held_is_refused(lost: str) -> None:
    text = re.sub(rf"(?m)^\s*{lost}.*$", "", rendered().files["nginx.conf"])
    with pytest.raises(InputError, match=re.escape(lost.split()[0])):
        launch.from_text("omni-nginx", {"nginx.conf": text}, "a test", {})


def test_a_pid_file_outside_the_run_dir_is_refused() -> None:
    text = rendered().files["nginx.conf"].replace("pid nginx.pid", "pid /run/nginx.pid")
    with pytest.raises(InputError, match="relative"):
        launch.from_text("omni-nginx", {"nginx.conf": text}, "a test", {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        launch.from_file("omni-nginx", tmp_path / "no.conf", {})
    assert caught.value.where == str(tmp_path / "no.conf")


@pytest.mark.parametrize(
    ("listen", "host", "url"),
    [
        ("8080", "0.0.0.0", "http://127.0.0.1:8080/health"),
        ("*:8080", "0.0.0.0", "http://127.0.0.1:8080/health"),
        ("[::]:8080", "[::]", "http://[::1]:8080/health"),
        ("192.0.2.7:8080", "192.0.2.7", "http://192.0.2.7:8080/health"),
    ],
)
def test_where_it_listens_and_is_asked(listen: str, host: str, url: str) -> None:
    text = re.sub(r"listen [^;]+;", f"listen {listen};", rendered().files["nginx.conf"])
    made = launch.from_text("omni-nginx", {"nginx.conf": text}, "a test", {})
    assert (made.host, made.health_url) == (host, url)
