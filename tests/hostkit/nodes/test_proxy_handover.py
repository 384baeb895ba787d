"""A proxy's program replaced while it serves: real nginx, which gets the sockets it had."""

from __future__ import annotations

import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Iterator

import pytest
from host_cases import a_host, record_of, running, write
from port_rooms import free_port

from hostkit.base.errors import ActionError
from hostkit.base.health import wait_until
from hostkit.base.records import alive
from hostkit.nodes import history, needed, proxy_run

# Real nginx, seconds together.
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx")]

CONF = """daemon off;
user root root;  # its workers read the test's folder
pid nginx.pid;
error_log error.log;
worker_processes 2;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;
    scgi_temp_path s;
    server {{
        listen 127.0.0.1:{port};
        location /health {{ return 200 "{word}"; }}
        location /slow {{ limit_rate 20k; root {folder}; }}
    }}
}}
"""


def proxy(folder: Path, port: int) -> dict[str, Any]:
    run_dir, seed = folder / "temp" / "c0", folder / "bundle" / "c0"
    nginx = proxy_run.program(["nginx", "/usr/sbin/nginx"])
    assert nginx is not None
    (folder / "slow").write_bytes(b"x" * 100_000)
    seed.mkdir(parents=True, exist_ok=True)
    (seed / "nginx.conf").write_text(CONF.format(port=port, folder=folder, word="before"))
    words = [nginx, "-p", f"{run_dir}/", "-c", "nginx.conf", "-e", "error.log"]
    server = {"name": "c0", "argv": words, "log": f"{folder}/logs/c0/proxy.log"}
    server.update(address="127.0.0.1", port=port, url=f"http://127.0.0.1:{port}", model=None)
    return {
        **{"name": "c0", "role": "proxy", "digest": "1", "log_dir": f"{folder}/logs/c0"},
        **{"temp_dir": str(run_dir), "seed_dir": str(seed), "memory_mib": 0, "requires": []},
        **{"ports": [["127.0.0.1", port]], "programs": [nginx], "files": {"nginx.conf": ""}},
        **{"check": [*words, "-t"], "servers": [{**server, "health": "/health"}]},
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[dict[str, Any]]:
    tmp_path.chmod(0o711)
    with running(a_host(tmp_path, proxy(tmp_path, free_port()), deadline_s=60)) as host:
        yield host


def get(host: dict[str, Any], path: str) -> str:
    line = HTTPConnection("127.0.0.1", host["nodes"][0]["servers"][0]["port"], timeout=60)
    try:
        line.request("GET", path)
        return line.getresponse().read().decode()
    finally:
        line.close()


def replaced(host: dict[str, Any], word: str, **node: Any) -> list[str]:
    """Have it replaced while it is asked all the time: all answers, and errors."""
    [old] = host["nodes"]
    seen: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                seen.append(get(host, "/health"))
            except (OSError, HTTPException) as error:
                seen.append(repr(error))

    host["nodes"] = [{**old, "digest": "2", **node}]
    write(host)
    conf = (Path(old["seed_dir"]) / "nginx.conf").read_text().replace('"before"', f'"{word}"')
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        record = record_of(host, "c0")
        proxy_run.replace(host, host["nodes"][0], record, {"nginx.conf": conf})
        return seen
    finally:
        over.set()
        asking.join()


def test_no_request_fails_and_an_answer_that_has_begun_is_finished(site: dict[str, Any]) -> None:
    before = record_of(site, "c0")
    got: list[str] = []
    slow = threading.Thread(target=lambda: got.append(get(site, "/slow")))
    slow.start()
    seen = replaced(site, "after")
    assert set(seen) <= {"before", "after"} and get(site, "/health") == "after"
    now = record_of(site, "c0")
    assert now["supervisor"] == before["supervisor"] and now["digest"] == "2"
    assert now["servers"][0]["process"] != before["servers"][0]["process"]
    assert not got and [one["process"] for one in now["beside"]] == [
        before["servers"][0]["process"]
    ]
    assert needed.look(site) == {"c0": "reload"}  # the file's sum is none here
    slow.join()
    assert len(got[0]) == 100_000
    assert wait_until(lambda: not alive(before["servers"][0]["process"]), 30, 0.02)
    set_again = replaced(site, "third")  # what took over hands over as well
    assert set(set_again) <= {"after", "third"} and get(site, "/health") == "third"
    events = history.read({"work_dir": site["work_dir"], "most": 100})["events"]
    assert [event["what"] for event in events] == ["started", "ready", "replaced", "replaced"]


@pytest.mark.parametrize(
    ("does", "why"),
    [("exit 1", "did not start"), ("sleep 600 & wait", "does not answer; the one before")],
)
def test_one_that_does_not_serve_is_not_taken(site: dict[str, Any], does: str, why: str) -> None:
    broken = Path(site["work_dir"]) / "broken"  # accepts every file
    broken.write_text(f'#!/bin/sh\ncase " $* " in *" -t "*) exit 0;; esac\n{does}\n')
    broken.chmod(0o755)
    [node] = site["nodes"]
    server = {**node["servers"][0], "argv": [str(broken), *node["servers"][0]["argv"][1:]]}
    with pytest.raises(ActionError, match=why):
        replaced(site, "after", programs=[str(broken)], servers=[server])
    assert get(site, "/health") == "before"
    record = record_of(site, "c0")
    assert record["digest"] == "1" and record["phase"] == "ready"
    assert '"before"' in (Path(node["temp_dir"]) / "nginx.conf").read_text()
