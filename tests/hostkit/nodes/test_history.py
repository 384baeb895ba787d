"""What happened on a host: lines that are whole, in a file that stays small."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Iterator

import pytest

from hostkit.base import lock
from hostkit.base.health import wait_until
from hostkit.base.records import remove_record
from hostkit.nodes import history

ROOT = Path(__file__).resolve().parents[3]


def teller(folder: Path, node: str = "d0") -> history.Teller:
    host = {"work_dir": str(folder), "environment": "test", "host": "h"}
    return history.Teller(host, {"name": node, "role": "decode"})


def read(folder: Path, since_s: Any = None, most: int = 1000) -> dict[str, Any]:
    return history.read({"work_dir": str(folder), "since_s": since_s, "most": most})


def whats(folder: Path) -> list[str]:
    return [event["what"] for event in read(folder)["events"]]


def test_events_of_nodes_and_commands_are_read_in_order_of_time(tmp_path: Path) -> None:
    assert read(tmp_path) == {"changed": False, "events": [], "left_out": 0}
    teller(tmp_path).tell("started")
    lock.audit(tmp_path, "ann@bastion:/x", "deploy of test", "ok")
    [event] = [e for e in read(tmp_path)["events"] if "node" in e]
    assert (event["node"], event["role"], event["host"]) == ("d0", "decode", "h")
    assert event["environment"] == "test"
    [command] = [e for e in read(tmp_path)["events"] if "node" not in e]
    assert (command["what"], command["by"], command["result"]) == (
        *("deploy of test", "ann@bastion:/x", "ok"),
    )
    times = [e["time"] for e in read(tmp_path)["events"]]
    assert times == sorted(times)


def test_the_present_state_is_there_for_prometheus(tmp_path: Path) -> None:
    one = teller(tmp_path)
    for what in ("started", "ready", "died", "restarted", "crash-loop"):
        one.tell(what)
    path = tmp_path / "state" / "d0.prom"
    lines = path.read_text().splitlines()
    labels = 'environment="test",node="d0",role="decode"'
    assert f'omnikit_instance_state{{{labels},state="crash-loop"}} 1' in lines
    assert f"omnikit_instance_restarts_total{{{labels}}} 1" in lines
    assert [line for line in lines if line.endswith(" 1") and "state=" in line] == [
        f'omnikit_instance_state{{{labels},state="crash-loop"}} 1'
    ]
    remove_record(tmp_path / "state", "d0")
    assert not path.exists()


def test_only_the_last_ones_or_those_of_some_time_are_told(tmp_path: Path) -> None:
    path = tmp_path / history.FILE
    path.parent.mkdir()
    path.write_text('{"time": "2020-01-01T00:00:00.000Z", "what": "old"}\n')
    for number in range(3):
        teller(tmp_path).tell(str(number))
    assert [e["what"] for e in read(tmp_path, since_s=3600)["events"]] == ["0", "1", "2"]
    found = read(tmp_path, most=2)
    assert [e["what"] for e in found["events"]] == ["1", "2"] and found["left_out"] == 2


def test_what_is_no_event_is_passed_over_and_half_a_line_spoils_none(tmp_path: Path) -> None:
    path = tmp_path / history.FILE
    path.parent.mkdir()
    path.write_bytes(b'\xff\n[1]\n{"time": 1, "what": "x"}\n{"time": "2020", "wh')
    teller(tmp_path).tell("started")
    assert whats(tmp_path) == ["started"]


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_FULL", 1000)
    for number in range(20):
        teller(tmp_path).tell(str(number))
    files = sorted((tmp_path / "state").glob("history*"))
    assert [path.name for path in files] == ["history.jsonl", "history.jsonl.1"]
    assert all(path.stat().st_size <= 1000 for path in files)
    assert whats(tmp_path)[-1] == "19"


def test_a_full_disk_leaves_no_half_line_and_what_waited_is_written_later(tmp_path: Path) -> None:
    """A limit of a file's size cuts a write short as a full disk does."""
    one = teller(tmp_path)
    one.tell("started")
    path = tmp_path / history.FILE
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        one.tell("died")
        one.tell("restarted")
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one.tell("ready")
    assert whats(tmp_path) == ["started", "died", "restarted", "ready"]


def test_a_place_that_cannot_be_written_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    teller(tmp_path).tell("started")
    assert read(tmp_path)["events"] == []


def test_several_writers_lose_nothing_also_when_the_file_is_full(tmp_path: Path) -> None:
    code = (
        "import sys; from hostkit.nodes import history\n"
        "history._FULL = 20_000\n"
        f"host = {{'work_dir': {str(tmp_path)!r}, 'environment': 'test', 'host': 'h'}}\n"
        "one = history.Teller(host, {'name': sys.argv[1], 'role': 'decode'})\n"
        "[one.tell(str(n)) for n in range(50)]\n"
    )
    env = {"PYTHONPATH": str(ROOT / "scripts")}
    words = [sys.executable, "-c", code]
    writers = [subprocess.Popen([*words, name], env=env) for name in ("a", "b", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = b"".join(
        path.read_bytes() for path in (tmp_path / "state").glob("history*")
    ).splitlines()
    events = [json.loads(line) for line in lines]
    assert {(e["node"], e["what"]) for e in events} == {
        (name, str(number)) for name in ("a", "b", "c") for number in range(50)
    }


@contextmanager
def receiver(status: int) -> Iterator[tuple[str, list[tuple[Any, dict[str, Any]]]]]:
    """A web server that takes what is posted: its address, and the headers and bodies it got."""
    got: list[tuple[Any, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers, json.loads(body)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook?key=hidden-key", got
        server.shutdown()


def hooked(folder: Path, **settings: Any) -> history.Teller:
    made = {"command": [], "webhook": None, "authorization": None, "timeout_s": 30, **settings}
    (folder / "bundle").mkdir()
    (folder / "bundle" / history.HOOKS).write_text(json.dumps(made))
    return teller(folder)


def ended(one: history.Teller) -> bool:
    return wait_until(lambda: all(c.poll() is not None for c in one.hooks.values()), 60, 0.02)


def test_a_webhook_gets_the_event_with_its_secret(tmp_path: Path) -> None:
    with receiver(204) as (url, got):
        one = hooked(tmp_path, webhook=url, authorization="Bearer x")
        one.tell("died", "p0 ended with exit status 1")
        assert ended(one)
    [(headers, event)] = got
    assert headers["Authorization"] == "Bearer x"
    assert headers["Content-Type"] == "application/json"
    assert [event] == read(tmp_path)["events"] and event["why"] == "p0 ended with exit status 1"


def test_a_command_gets_the_event_by_standard_input_and_variables(tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = f'cat > {out}.part; echo " $OMNIKIT_EVENT_WHAT $OMNIKIT_EVENT_NODE" >> {out}.part'
    one = hooked(tmp_path, command=["sh", "-c", f"{line}; mv {out}.part {out}"])
    one.tell("ready")
    assert ended(one)
    event, words = out.read_text().rsplit("}", 1)
    assert [json.loads(event + "}")] == read(tmp_path)["events"]
    assert words.split() == ["ready", "d0"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"command": ["sh", "-c", "exit 3"]}, "the command sh ended with exit status 3"),
        ({"command": ["/no/such"]}, "the command: cannot start /no/such"),
        ({"command": ["sleep", "3600"], "timeout_s": 0.2}, "sleep was ended after 0.2 s"),
        ({"webhook": "http://127.0.0.1:1/?key=hidden-key"}, "the webhook: ConnectionRefused"),
        ({"webhook": "http://[?key=hidden-key"}, "the webhook: "),
    ],
)
def test_what_fails_is_an_event_that_nobody_is_told_of(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    one = hooked(tmp_path, **settings)
    one.tell("ready")
    assert ended(one)
    first, failed = read(tmp_path)["events"]
    assert (first["what"], failed["what"]) == ("ready", "hook-failed")
    assert said in failed["why"] and f"of ready, {first['time']}: " in failed["why"]
    assert failed["node"] == "d0" and "hidden-key" not in failed["why"]


def test_a_webhook_that_refuses_is_a_failure(tmp_path: Path) -> None:
    with receiver(403) as (url, _):
        one = hooked(tmp_path, webhook=url)
        one.tell("ready")
        assert ended(one)
    assert "the webhook answers 403" in read(tmp_path)["events"][1]["why"]
