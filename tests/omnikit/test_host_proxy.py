"""Prefill servers out of nginx's configuration; real reloads are in test_roll_prefill."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from omnikit import host_proxy
from omnikit.errors import InputError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONF = """http {
    upstream prefill_servers {
        zone prefill_servers 1m;
        server 192.0.2.1:9000 max_fails=3 fail_timeout=10s;
        server 192.0.2.1:90001 max_fails=3;
        server [2001:db8::1]:9001;
        keepalive 16;
    }

    upstream decode_servers {
        server 192.0.2.1:9000;
    }
}
"""


def test_a_server_is_left_out_of_prefill_alone() -> None:
    made = host_proxy.without(CONF, ["192.0.2.1:9000"])
    assert made == CONF.replace(
        "        server 192.0.2.1:9000 max_fails=3 fail_timeout=10s;\n", "", 1
    )
    made = host_proxy.without(CONF, ["[2001:db8::1]:9001", "192.0.2.1:90001"])
    assert "2001" not in made and "90001" not in made and "keepalive 16;" in made
    assert host_proxy.without(CONF, []) == CONF


def test_an_unknown_server_and_the_last_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"no prefill server 192\.0\.2\.9:1"):
        host_proxy.without(CONF, ["192.0.2.9:1"])
    every = ["192.0.2.1:9000", "192.0.2.1:90001", "[2001:db8::1]:9001"]
    with pytest.raises(InputError, match="no prefill server would be left"):
        host_proxy.without(CONF, every)
    with pytest.raises(InputError, match="no prefill server at all"):
        host_proxy.without("http {}", [])


@pytest.mark.parametrize("environment", ["local", "2p1d", "18p1d"])
def test_the_rendered_configurations_are_understood(environment: str) -> None:
    [path] = (GOLDEN / environment).rglob("nginx.conf")
    text = path.read_text()
    block = text.partition("upstream prefill_servers {")[2].partition("}")[0]
    first = next(line for line in block.splitlines() if line.strip().startswith("server "))
    name = first.split()[1].rstrip(";")
    assert host_proxy.without(text, [name]) == text.replace(first + "\n", "", 1)


def test_files_of_another_content_differ(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("a")
    node = {
        "temp_dir": str(tmp_path),
        "files": {"nginx.conf": hashlib.sha256(b"a").hexdigest()},
    }
    assert not host_proxy.differs(node)
    (tmp_path / "nginx.conf").write_text("b")
    assert host_proxy.differs(node)
    (tmp_path / "nginx.conf").unlink()
    assert host_proxy.differs(node)
    assert not host_proxy.differs({"temp_dir": str(tmp_path)})  # of a kind that cannot reload


def test_what_a_running_proxy_does_without_is_seen(tmp_path: Path) -> None:
    node = {"files": {}, "seed_dir": str(tmp_path / "seed"), "temp_dir": str(tmp_path / "run")}
    for name, text in (("seed", CONF), ("run", host_proxy.without(CONF, ["192.0.2.1:9000"]))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nginx.conf").write_text(text)
    assert host_proxy.left_out(node) == ["192.0.2.1:9000"]
    (tmp_path / "run" / "nginx.conf").write_text(CONF)
    assert host_proxy.left_out(node) == []
    (tmp_path / "run" / "nginx.conf").unlink()
    assert host_proxy.left_out(node) == []  # it does not run
    assert host_proxy.left_out({}) == []
