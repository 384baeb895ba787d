"""What clients and servers see of the proxy: a real nginx between real connections."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from port_rooms import free_port

from hostkit.base import run
from hostkit.base.health import request, wait_until
from omnikit import proxy

# Real processes, seconds together.
pytestmark = pytest.mark.slow

PROMPT = 'tell nobody: 秘密 " \\ { ] \u2028 \ufffd'


def raw(running, body: bytes, path="/v1/completions", **headers):
    """A request whose body is sent as it stands."""
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    client.request("POST", path, body, {"Content-Type": "application/json", **headers})
    answer = client.getresponse()
    text = answer.read().decode()
    client.close()
    return answer, text


def error(answer):
    found = answer.json()["error"]
    assert sorted(found) == ["code", "message", "type"]
    assert found["code"] == answer.status
    return found


@pytest.fixture
def pd(start, backend):
    """One prefill server, one decode server, and the proxy before them."""
    prefill, decode = backend("prefill"), backend("decode")
    return start([prefill], [decode]), prefill, decode


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_prefill_gets_a_shortened_copy_and_decode_the_original_with_the_hand_over(pd, path):
    running, prefill, decode = pd
    sent = {
        "model": "m",
        "prompt": PROMPT,
        "max_tokens": 50,
        "max_completion_tokens": 60,
        "min_tokens": 9,
        "logprobs": 3,
        "stream_options": {"include_usage": True},
    }
    answer = running.post(sent, path + "?a=b%20c")
    assert (answer.status, answer.json()["path"]) == (200, path + "?a=b%20c")
    assert answer.headers["content-type"] == "application/json"
    shortened = {k: v for k, v in sent.items() if k != "stream_options"}
    shortened.update(max_tokens=1, max_completion_tokens=1, min_tokens=1, stream=False)
    assert prefill.seen[0].data == {
        **shortened,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }
    assert prefill.seen[0].path == path + "?a=b%20c"
    assert decode.seen[0].data == {**sent, "kv_transfer_params": json.loads(prefill.hand_over)}


def test_limits_that_the_client_did_not_name_are_not_added(pd):
    running, prefill, _ = pd
    running.post({"prompt": "x", "min_tokens": 0})
    assert "max_completion_tokens" not in prefill.seen[0].data
    assert prefill.seen[0].data["min_tokens"] == 0


def test_a_connector_that_needs_no_asking_is_not_asked(start, backend):
    prefill, decode = backend("prefill"), backend("decode")
    start([prefill], [decode], kv_params="none").post({"prompt": "x"})
    assert "kv_transfer_params" not in prefill.seen[0].data
    assert decode.seen[0].data["kv_transfer_params"]["remote_engine_id"] == "e-1"


@pytest.mark.parametrize("prefill", [1, 0])
def test_servers_may_have_names_and_addresses_of_ipv6(start, backend, prefill):
    first, second, named = (
        backend("prefill", host="::1"),
        backend("decode", host="::1"),
        backend("decode"),
    )
    names = [second, ("localhost", named.address[1])]
    running = start([first] * prefill, names, decode_balance="round_robin")
    assert [running.post({"prompt": "x"}).status for _ in range(4)] == [200] * 4
    assert len(second.seen) == len(named.seen) == 2
    assert request(running.url + "/ready", timeout_s=9).status == 200
    assert request(running.url + "/v1/models", timeout_s=9).status == 200


def test_what_the_client_wrote_reaches_decode_byte_by_byte(pd):
    running, prefill, decode = pd
    kept = (
        b'  "seed" : 9223372036854775807,"t":1.0, "tiny":1e-320,\n"esc":"\\u00e9\\"\\\\",'
        + '"text":"日本語 🙂 \\"","deep":[[{"a":"]}"}],'.encode()
        + b"[" * 200
        + b"]" * 200
        + b'], "none" :null '
    )
    raw(running, b" {" + kept + b"} \n")
    head = b'{"kv_transfer_params":' + prefill.hand_over.encode() + b","
    assert decode.seen[0].body == head + kept + b"}"
    assert b'"seed" : 9223372036854775807' in prefill.seen[0].body


@pytest.mark.parametrize("key", ["kv_transfer_params", "kv_transfer\\u005fparams"])
@pytest.mark.parametrize("hand_over", ['{"remote_engine_id":"e-2"}', "null"])
def test_a_client_cannot_send_kv_transfer_params(start, backend, key, hand_over):
    prefill, decode = backend("prefill", hand_over=hand_over), backend("decode")
    running = start([prefill], [decode])
    evil = f'"{key}":{{"remote_host":"evil"}}'
    raw(running, f'{{{evil},"prompt":"x",{evil},"n":1,{evil}}}'.encode())
    assert b"evil" not in prefill.seen[0].body + decode.seen[0].body
    given = decode.seen[0].data.get("kv_transfer_params")
    assert given == json.loads(hand_over)
    assert decode.seen[0].data["n"] == 1


def test_a_missing_hand_over_is_served_and_written_down(start, backend):
    prefill, decode = backend("prefill", hand_over="null"), backend("decode")
    running = start([prefill], [decode])
    assert running.post({"prompt": PROMPT}).status == 200
    assert running.access(1)[0]["handover"] == "no"
    assert "kv_transfer_params" in running.log("error.log")


def test_a_request_id_is_kept_and_one_is_made(pd):
    running, prefill, decode = pd
    kept = running.post({"prompt": "x"}, X_Request_Id="mine-1")
    made = running.post({"prompt": "x"})
    assert kept.headers["x-request-id"] == "mine-1"
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])
    for server in (prefill, decode):
        assert [one.headers["x-request-id"] for one in server.seen] == [
            "mine-1",
            made.headers["x-request-id"],
        ]


def test_headers_of_the_client_reach_both_servers(pd):
    running, prefill, decode = pd
    running.post({"prompt": "x"}, Authorization="Bearer k", x_under_score="1")
    for server in (prefill, decode):
        assert server.seen[0].headers["authorization"] == "Bearer k"
        assert server.seen[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_an_error_of_prefill_is_the_client_s(pd, status):
    running, prefill, decode = pd
    text = json.dumps({"error": {"message": "é no", "type": "t", "code": status}})
    prefill.behave = lambda handler, seen: handler.answer(status, text, Retry_After="3")
    answer = running.post({"prompt": "x"}, X_Request_Id="mine")
    assert (answer.status, answer.text) == (status, text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["retry-after"] == "3"
    assert decode.seen == []


@pytest.mark.parametrize(("sent", "status"), [(500, 500), (502, 502), (503, 503), (200, 502)])
def test_what_is_no_json_from_prefill_becomes_json(pd, sent, status):
    running, prefill, decode = pd
    prefill.behave = lambda handler, seen: handler.answer(sent, "<html>oh</html>", "text/html")
    answer = running.post({"prompt": "x"})
    assert answer.status == status
    assert "refill" in error(answer)["message"]
    assert "html" not in answer.text
    assert decode.seen == []


def test_an_answer_of_prefill_beyond_the_buffer_is_a_json_error(pd):
    running, prefill, decode = pd
    prefill.behave = lambda handler, seen: handler.answer(200, json.dumps({"a": "x" * 200_000}))
    answer = running.post({"prompt": "x"})
    assert answer.status == 502
    assert error(answer)["type"] == "prefill_answer_too_large"
    assert "subrequest_output_buffer_size" in error(answer)["message"]
    assert "too large" in running.log("error.log")
    assert decode.seen == []
    prefill.behave = None
    assert running.post({"prompt": "x"}).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1]",
        b'"text"',
        b"null",
        b"{",
        b'{"prompt":"x"',
        b'{"prompt":"x"}}',
        b'{"prompt":"x",}',
        b'{"prompt":tru}',
        b'{"prompt" "x"}',
        b"{prompt:1}",
        b'{"prompt":"x}',
        b'{"prompt":["x"}',
        b'{"prompt":"\xff"}',
        b'{"\\q":1}',
    ],
)
def test_a_body_that_is_no_json_object_is_refused(pd, body):
    running, prefill, decode = pd
    answer, text = raw(running, body)
    found = json.loads(text)["error"]
    assert (answer.status, found["code"], found["type"]) == (400, 400, "bad_request")
    assert answer.headers["Content-Type"] == "application/json"
    assert prefill.seen == decode.seen == []


def test_an_empty_object_is_for_the_server_to_judge(pd):
    running, prefill, decode = pd
    assert raw(running, b"{ }")[0].status == 200
    assert prefill.seen[0].data["max_tokens"] == 1
    assert list(decode.seen[0].data) == ["kv_transfer_params"]


def test_a_body_that_is_too_large_is_refused(pd):
    running, prefill, _ = pd
    answer = running.post({"prompt": "x" * (1 << 20)})
    assert answer.status == 413
    assert error(answer)["type"] == "request_too_large"
    assert prefill.seen == []


def test_the_largest_body_passes(pd):
    running, _, decode = pd
    prompt = ("é" * 100 + '"') * 4000
    assert len(json.dumps({"prompt": prompt}, ensure_ascii=False).encode()) < 1 << 20
    body = json.dumps({"prompt": prompt}, ensure_ascii=False).encode()
    assert raw(running, body)[0].status == 200
    assert decode.seen[0].data["prompt"] == prompt


def test_a_body_in_chunks_passes(pd):
    running, _, decode = pd
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    client.request("POST", "/v1/completions", iter([b'{"prompt"', b':"ab"}']), encode_chunked=True)
    assert client.getresponse().status == 200
    client.close()
    assert decode.seen[0].data["prompt"] == "ab"


def test_a_dead_prefill_server_is_skipped_on_the_same_request(start, backend):
    prefill, decode = backend("prefill"), backend("decode")
    dead = ("127.0.0.1", free_port())
    running = start([dead, prefill, dead], [decode], prefill_balance="round_robin")
    answers = [running.post({"prompt": "x"}).status for _ in range(6)]
    assert answers == [200] * 6
    assert len(prefill.seen) == 6


@pytest.mark.parametrize("how", ["502", "503"])
def test_a_server_that_fails_on_the_way_is_skipped_on_the_same_request(start, backend, how):
    def fail(handler, seen):
        handler.answer(int(how), "{}")

    broken = [backend("prefill", behave=fail), backend("decode", behave=fail)]
    whole = [backend("prefill"), backend("decode")]
    running = start(
        [broken[0], whole[0]],
        [broken[1], whole[1]],
        prefill_balance="round_robin",
        decode_balance="round_robin",
    )
    assert [running.post({"prompt": "x"}).status for _ in range(4)] == [200] * 4
    assert [len(one.seen) for one in whole] == [4, 4]
    assert broken[0].seen and broken[1].seen


def test_no_prefill_server_at_all(start, backend):
    decode = backend("decode")
    running = start([("127.0.0.1", free_port()), ("127.0.0.1", free_port())], [decode])
    for _ in range(5):  # beyond max_fails nginx has no live server: a path of its own
        answer = running.post({"prompt": "x"})
        assert answer.status == 502
        assert error(answer) == {
            "message": "No prefill server can be reached.",
            "type": "prefill_unreachable",
            "code": 502,
        }
    assert decode.seen == []
    passed_on = request(running.url + "/v1/models", timeout_s=5)
    assert error(passed_on)["message"] == "No prefill server can be reached."


def test_no_decode_server(start, backend):
    running = start([backend("prefill")], [("127.0.0.1", free_port())])
    answer = running.post({"prompt": "x"}, X_Request_Id="mine")
    assert answer.status == 502
    assert error(answer)["message"] == "No decode server can be reached."
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_server_that_does_not_answer_in_time(start, backend, role):
    servers = {"prefill": backend("prefill"), "decode": backend("decode")}
    never = servers[role]
    never.behave = lambda handler, seen: never.go_on.wait(10)
    running = start([servers["prefill"]], [servers["decode"]], read_timeout="200ms")
    answer = running.post({"prompt": "x"})
    assert answer.status == 504
    assert role in error(answer)["message"]


def test_an_error_of_decode_is_the_client_s(pd):
    running, _, decode = pd
    decode.behave = lambda handler, seen: handler.answer(500, '{"error":{"message":"kv"}}')
    answer = running.post({"prompt": "x"})
    assert (answer.status, answer.json()) == (500, {"error": {"message": "kv"}})


def test_streams_pass_as_they_are_made(pd):
    running, prefill, decode = pd
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    client.request("POST", "/v1/completions", json.dumps({"prompt": "x", "stream": True}))
    answer = client.getresponse()
    # The second event is not even made before the first one was read here.
    assert answer.readline() == b'data: {"choices":[{"text":"one"}]}\n'
    assert not decode.go_on.is_set()
    decode.go_on.set()
    assert answer.read().endswith(b"data: [DONE]\n\n")
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert prefill.seen[0].data["stream"] is False
    client.close()


def test_a_client_that_hangs_up_ends_the_decode_request(pd):
    running, _, decode = pd
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    client.request("POST", "/v1/completions", json.dumps({"prompt": "x", "stream": True}))
    client.getresponse().readline()
    client.sock.shutdown(socket.SHUT_RDWR) if client.sock else None
    client.close()
    assert decode.hung_up.wait(5)


def test_a_client_that_hangs_up_during_prefill_leaves_decode_no_work(pd):
    running, prefill, decode = pd
    arrived = threading.Event()

    def slow(handler, seen):
        arrived.set()
        prefill.go_on.wait(10)
        handler.answer(200, '{"kv_transfer_params":{}}')

    prefill.behave = slow
    client = http.client.HTTPConnection("127.0.0.1", running.spec.listen_port, timeout=20)
    client.request("POST", "/v1/completions", json.dumps({"prompt": "x", "stream": True}))
    assert arrived.wait(5)
    client.close()
    prefill.go_on.set()
    assert running.access(1)[0]["status"] == 499
    assert wait_until(lambda: not decode.seen or decode.hung_up.is_set(), 5, 0.01)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_every_other_v1_path_goes_to_prefill_as_it_is(pd, method):
    running, prefill, decode = pd
    path = "/v1/models/a-b?x=1&y=%20"
    answer = request(
        running.url + path,
        timeout_s=5,
        method=method,
        headers={"X-Mine": "1", "under_score": "2"},
        body={"stream_options": 1, "kv_transfer_params": 2} if method == "POST" else None,
    )
    assert answer.status == 200
    got = prefill.seen[0]
    assert (got.method, got.path) == (method, path)
    assert (got.headers["x-mine"], got.headers["under_score"]) == ("1", "2")
    assert got.headers["host"] == f"127.0.0.1:{running.spec.listen_port}"
    if method == "POST":
        assert got.data == {"stream_options": 1, "kv_transfer_params": 2}
    assert decode.seen == []


def test_another_method_on_a_generation_path_is_for_prefill_to_refuse(pd):
    running, prefill, decode = pd
    assert request(running.url + "/v1/completions?a=1", timeout_s=5).status == 200
    assert (prefill.seen[0].method, prefill.seen[0].path) == ("GET", "/v1/completions?a=1")
    assert decode.seen == []


@pytest.mark.parametrize(
    "path", ["/", "/omnikit/status", "/prefill/v1/completions", "/decode/x", "/v1"]
)
def test_other_paths_are_not_found(pd, path):
    running, prefill, decode = pd
    answer = request(running.url + path, timeout_s=5)
    assert answer.status in (404, 301) if path == "/v1" else answer.status == 404
    assert prefill.seen == decode.seen == []


def test_health_is_the_proxy_s_own(start):
    dead = ("127.0.0.1", free_port())
    running = start([dead, dead], [dead])
    answer = request(running.url + "/health", timeout_s=5)
    assert (answer.status, answer.json()) == (
        200,
        {"status": "ok", "role": "proxy", "prefill": 2, "decode": 1},
    )


def test_the_access_log_tells_an_operator_who_did_what(start, backend):
    prefill, decode = backend("prefill"), backend("decode")
    running = start([prefill], [decode])
    hostile = 'mine" ,"status":1,\\'
    running.post({"prompt": PROMPT}, "/v1/completions?prompt=secret", X_Request_Id=hostile)
    request(running.url + "/v1/models", timeout_s=5)
    first, second = running.access(2)
    at = {server.role: ":".join(map(str, server.address)) for server in (prefill, decode)}
    assert first["request_id"] == hostile
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/completions", 200)
    assert (first["prefill"], first["prefill_status"]) == (at["prefill"], "200")
    assert (first["server"], first["server_status"]) == (at["decode"], "200")
    assert (first["handover"], first["client"]) == ("yes", "127.0.0.1")
    assert first["seconds"] >= float(first["prefill_seconds"]) >= 0
    assert float(first["server_seconds"]) >= float(first["first_byte_seconds"]) >= 0
    assert (second["path"], second["server"], second["prefill"]) == (
        "/v1/models",
        at["prefill"],
        "",
    )


@pytest.mark.parametrize("body", [{"prompt": PROMPT}, {"prompt": PROMPT, "stream": "秘密"}])
def test_no_prompt_is_ever_logged(start, backend, body, tmp_path):
    decode = backend("decode", behave=lambda handler, seen: handler.cut())
    running = start([backend("prefill")], [decode], log_level="info")
    running.post(body)
    raw(running, b'{"prompt": "tell nobody", "a": tell nobody}')
    running.access(2)
    logged = running.log("access.log") + running.log("error.log")
    logged += (tmp_path / "stderr").read_text(encoding="utf-8")
    assert "upstream prematurely closed" in logged
    assert "nobody" not in logged and "秘密" not in logged


def test_many_requests_at_once_keep_their_own_hand_over(start, backend):
    def echo(handler, seen):
        handler.answer(200, json.dumps({"kv_transfer_params": {"of": seen.data["prompt"]}}))

    prefill = [backend("prefill", behave=echo) for _ in range(2)]
    decode = backend("decode", behave=lambda handler, seen: handler.answer(200, seen.body.decode()))
    running = start(prefill, [decode])
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda i: running.post({"prompt": f"p{i}"}), range(400)))
    for i, answer in enumerate(answers):
        assert answer.json() == {"prompt": f"p{i}", "kv_transfer_params": {"of": f"p{i}"}}
    assert min(len(one.seen) for one in prefill) > 100  # least_conn spreads them


def test_a_reload_takes_new_servers_and_drops_no_request(start, backend):
    prefill, old, new = backend("prefill"), backend("decode"), backend("decode")
    running = start([prefill], [old])
    stop = threading.Event()

    def client() -> list[int]:
        got = []
        while not stop.is_set():
            got.append(running.post({"prompt": "x"}).status)
        return got

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client) for _ in range(8)]
        assert wait_until(lambda: len(old.seen) > 30, 10, 0.01)
        spec = replace(running.spec, decode=(new.address,))
        running.write(spec)
        run.run(proxy.check_command(spec))
        run.run(proxy.reload_command(spec))
        assert wait_until(lambda: len(new.seen) > 30, 10, 0.01)
        stop.set()
        statuses = [status for one in clients for status in one.result()]
    assert set(statuses) == {200}
    assert running.process.poll() is None


def test_without_prefill_it_is_a_balancer(start, backend):
    servers = [backend("decode"), backend("decode")]
    dead = ("127.0.0.1", free_port())
    running = start([], [servers[0], dead, servers[1]], decode_balance="round_robin")
    body = b'{"prompt": "x",  "kv_transfer_params": {"a": 1}}'
    for _ in range(8):
        assert raw(running, body)[0].status == 200
    assert [len(one.seen) for one in servers] == [4, 4]
    assert servers[0].seen[0].body == body
    assert request(running.url + "/v1/models?a=1", timeout_s=5).json()["path"] == "/v1/models?a=1"
    assert request(running.url + "/health", timeout_s=5).json()["prefill"] == 0
    assert request(running.url + "/x", timeout_s=5).status == 404
    assert "upstream" not in running.access(9)[0] and running.access(9)[0]["server"]


def test_a_balancer_without_servers_says_so(start):
    running = start([], [("127.0.0.1", free_port())])
    assert error(running.post({"prompt": "x"}))["message"] == "No decode server can be reached."


def test_it_writes_below_its_own_folders_only(pd, tmp_path):
    running, _, _ = pd
    assert (tmp_path / "nginx.pid").read_text(encoding="utf-8").strip() == str(running.process.pid)
    links = [str(fd.readlink()) for fd in Path(f"/proc/{running.process.pid}/fd").iterdir()]
    files = [one for one in links if one.startswith("/") and not one.startswith("/dev/")]
    assert files and all(one.startswith(str(tmp_path)) for one in files)


def test_a_second_proxy_on_the_port_says_what_is_wrong(pd, tmp_path):
    running, _, _ = pd
    other = replace(running.spec, run_dir=str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    running.write(other)
    result = run.run(proxy.command(other), check=False, timeout=20)
    assert result.code != 0
    assert "Address already in use" in result.err
