"""Who counts the losses counts all of them: the load and the verdicts of the steady load."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Iterator

import pd_faults
import pytest
import steady_load
from steady_load import CUT, ENDED, LOST, RIGHT, WRONG

RIGHT_ONE = {"0": "abc", "0 ended": "length"}


def event(text: str, reason: str = "") -> str:
    choice = {"index": 0, "text": text, "finish_reason": reason or None}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


WHOLE = event("ab") + event("c", "length")
DONE, ERROR = "data: [DONE]\n\n", 'data: {"error":{"message":"lost"}}\n\n'
ANSWER = json.dumps({"choices": [{"index": 0, "text": "abc", "finish_reason": "length"}]})
# What a server does (status, body, whether it then resets the connection), and what that is called.
STREAMS = {
    "whole": (200, WHOLE + DONE, False, RIGHT),
    "ended by an error": (200, event("ab") + ERROR, False, ENDED),
    "an error after another text": (200, event("xy") + ERROR, False, WRONG),
    "another text": (200, event("abd", "length") + DONE, False, WRONG),
    "a shorter text that looks whole": (200, event("ab", "length") + DONE, False, WRONG),
    "no end": (200, event("ab"), False, CUT),
    "no end after the last word": (200, WHOLE, False, CUT),
    "cut": (200, event("ab"), True, CUT),
    "refused": (502, ERROR, False, LOST),
    "nothing": (0, "", True, LOST),
}
OTHERS = {
    "whole": (200, ANSWER, False, RIGHT),
    "another text": (200, ANSWER.replace("abc", "abd"), False, WRONG),
    "nonsense": (200, "<html>", False, WRONG),
    "cut": (200, ANSWER[:20], True, LOST),
    "refused": (502, "{}", False, LOST),
    "nothing": (0, "", True, LOST),
}
CASES = [(True, *one) for one in STREAMS.values()] + [(False, *one) for one in OTHERS.values()]


class Handler(BaseHTTPRequestHandler):
    """Does what the request's number says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, status, text, cut, _ = CASES[json.loads(body)["number"]]
        if status:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text) + (50 if cut else 0)))
            self.end_headers()
            self.wfile.write(text.encode())
            self.wfile.flush()
        if cut:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_each_request_is_asked_once_and_every_loss_is_counted(url: str, tmp_path: Path) -> None:
    bodies = [{"number": at, "stream": case[0]} for at, case in enumerate(CASES)]
    shapes = [("/v1/completions", body) for body in bodies]
    task = {"url": url, "rate": 50, "shapes": shapes, "requests": list(range(len(CASES)))}
    (tmp_path / "task").write_text(json.dumps(task))
    words = [sys.executable, steady_load.__file__, str(tmp_path / "task"), str(tmp_path / "out")]
    subprocess.run(words, check=True, timeout=60)
    found = steady_load.records(tmp_path / "out")
    assert sorted(one["number"] for one in found) == list(range(len(CASES)))
    for one in found:
        assert steady_load.verdict(one, RIGHT_ONE) == CASES[one["number"]][-1], one
    wanted: dict[str, int] = {}
    for *_, verdict in CASES:
        wanted[verdict] = wanted.get(verdict, 0) + 1
    assert steady_load.tally(found, [RIGHT_ONE] * len(CASES)) == wanted


def line(versions: str, prefill: str = "p0", server: str = "d0") -> str:
    return json.dumps({"versions": versions, "prefill": prefill, "server": server})


def test_a_pair_of_two_versions_is_found_in_the_log() -> None:
    good = [
        line("a, a"),
        line(""),
        line("a", prefill="", server="d0"),
        line("a, a, b, b", "p0, p1", "d0, d1"),
    ]
    bad = [line("a, b"), line("a, a, a, b", "p0, p1", "d0, d1"), line("a, b, b", "p0, p1", "d0")]
    run = pd_faults.judged([record(0.0)], [RIGHT_ONE], [], "\n".join([*good, *bad]) + "\n")
    assert run.mixed == bad


def record(sent_at: float, **more: Any) -> dict[str, Any]:
    whole = {"id": "r", "shape": 0, "stream": False, "status": 200, "error": "", "text": ANSWER}
    return {**whole, "sent_at": sent_at, "ended_at": sent_at + 1, **more}


def test_what_was_asked_during_a_fault_is_told_with_it() -> None:
    fault = pd_faults.Done("kill", began=10.0, ended=20.0, out_s=0.5, back_s=10.0)
    found = [record(5.0), record(9.5), record(19.5, status=502), record(30.0, status=502)]
    run = pd_faults.judged(found, [RIGHT_ONE], [fault], "")
    assert fault.verdicts == {RIGHT: 1, LOST: 1} and run.verdicts == {RIGHT: 2, LOST: 2}
    assert "9.50 to 10.50 s after kill" in run.odd[0] and "no fault" in run.odd[1]
    table = "\n".join(run.table())
    assert "4 requests, 0 of them streams" in table and "1 lost  kill" in table


def test_the_shapes_are_as_they_are_meant() -> None:
    made = steady_load.shapes()
    assert len([one for one in made if one.body.get("stream")]) * 2 == len(made)
    prompts = {json.dumps(one.body.get("prompt") or one.body["messages"]) for one in made}
    assert len(prompts) == len(made) > len({one.path for one in made}) == 2
    assert made == steady_load.shapes() and {*pd_faults.SHORT} <= {*pd_faults.FAULTS}
