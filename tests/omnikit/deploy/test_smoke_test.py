"""How answers and metrics are judged; the real engine is asked in test_deploy."""

from __future__ import annotations

import http.server
import threading
from typing import Any

import pytest

from omnikit.config import config
from omnikit.deploy import smoke_test
from omnikit.topology.topology import make_plan


@pytest.mark.parametrize(
    ("before", "after", "tokens", "passed"),
    [
        ((0.0, 0.0), (44.0, 0.0), 44, True),
        ((7.0, 9.0), (51.0, 9.0), 44, True),
        ((0.0, 0.0), (0.0, 44.0), 44, False),  # forgotten: decode computed it all
        ((0.0, 0.0), (43.0, 1.0), 44, False),  # a token was computed again
        ((0.0, 0.0), (88.0, 0.0), 44, True),  # another request fell into it
        # A busy service, where some ask for several prompts: none of them is handed over.
        ((0.0, 0.0), (4890.0, 149.0), 44, True),
        ((0.0, 0.0), (2217.0, 5783.0), 44, True),
        ((0.0, 0.0), (40.0, 5783.0), 44, False),
        (None, (44.0, 0.0), 44, False),
        ((0.0, 0.0), None, 44, False),
    ],
)
def test_only_a_complete_hand_over_passes(before, after, tokens, passed) -> None:
    assert smoke_test.judge_kv(before, after, tokens).passed is passed


def test_the_curl_line_quotes_whatever_the_prompt_is() -> None:
    loaded = config.load("colocated", assignments=["smoke_test.prompt=it's $(x)"], environ={})
    line = smoke_test.curl_line(make_plan(loaded), loaded.settings)
    assert "$(x)" in line and line.endswith("'")
    import shlex

    assert '"prompt": "it\'s $(x)"' in shlex.split(line)[-1]


def test_nothing_listening_is_a_failed_check_not_an_exception() -> None:
    loaded = config.load(
        "colocated", assignments=["topology.colocated=[{hosts: [local], api_port: 9}]"], environ={}
    )
    checks = smoke_test.run(make_plan(loaded), loaded.settings)
    assert [check.passed for check in checks] == [False, False]
    assert "status 0" in checks[0].found


@pytest.mark.parametrize(
    "said",
    ["[1]", "7", "null", '{"data": 7, "choices": {"0": 1}}', '{"data": [7], "choices": [[]]}'],
)
def test_an_answer_of_a_wrong_shape_is_a_failed_check_not_an_exception(said: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            topology = [{"hosts": ["local"], "api_port": server.server_port}]
            given = ["ports.ephemeral_low=65535", f"topology.colocated={topology}".replace("'", "")]
            loaded = config.load("colocated", assignments=given, environ={})
            checks = smoke_test.run(make_plan(loaded), loaded.settings)
        finally:
            server.shutdown()
    assert not all(check.passed for check in checks)
