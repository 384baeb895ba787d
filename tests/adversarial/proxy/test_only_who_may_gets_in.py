"""No key, no answer; what the proxy knows of keys shows nowhere; what changes a server is closed.

Real nginx before small real servers that write down what reached them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable

import openai
import pytest
from certificates import Authority
from running_proxy import Running

from hostkit.access.service import Service
from hostkit.base.health import Answer, request, wait_until

pytestmark = pytest.mark.needs("nginx", "lua")

KEYS = {"toolkit": "k-" + "A" * 30, "alice": "k-" + "b" * 30, "bob": "k-" + "C" * 29 + "="}
INTERNAL = "internal-" + "d" * 30
GENERATING = (
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
)
# What changes a server, or tells of it: vLLM 0.9 and later, omni-infer's own.
CLOSED = [
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/../v1/load_lora_adapter",
    "/v1//load_lora_adapter",
    "/v1/%6coad_lora_adapter",
    "/v1/completions/../load_lora_adapter",
    "/v1/load_lora_adapter/",
    "/v1/load_lora_adapter;/../completions",
    "/v1/load_lora_adapter?/../completions",
    "/v1/./unload_lora_adapter",
    "/v1/responses/../load_lora_adapter",
    "/v1/responses/%2e%2e/load_lora_adapter",
    "/v1/models/../../sleep",
    "/sleep",
    "/wake_up",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/start_profile",
    "/stop_profile",
    "/collective_rpc",
    "/pause",
    "/resume",
    "/update_weights",
    "/scale_elastic_ep",
    "/server_info",
    "/init_weight_transfer_engine",
    "/abort_requests",
    "/fault_tolerance/apply",
    "/release_kv_cache_memory",
    "/invocations",
    "/tokenize",
    "/detokenize",
    "/pooling",
    "/score",
    "/rerank",
    "/classify",
    "/version",
    "/load",
    "/metrics/",
    "/inference/v1/generate",
    "/docs",
    "/openapi.json",
    "/omnikit/status",
    "/v2/rerank",
    "/v1",
    "/v1/",
    "/v1/completions/",
    "/v1/completions/render",
    "/V1/load_lora_adapter",
]


def keys_file(keys: dict[str, str], internal: str = "") -> dict[str, str]:
    digests = [f'["{n}"] = "{hashlib.sha256(k.encode()).hexdigest()}"' for n, k in keys.items()]
    text = f'return {{ digests = {{ {", ".join(digests)} }}, internal = "{internal}" }}\n'
    return {"pd_keys.lua": text}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def closed(start: Callable[..., Running], backend: Callable[..., Any]) -> Any:
    """A proxy that wants keys, with its prefill and decode server."""
    prefill, decode = backend("prefill"), backend("decode")
    beside = keys_file(KEYS, INTERNAL)
    proxy = start([prefill], [decode], beside=beside, api_keys=True, internal_key=True)
    return proxy, prefill, decode


def ask(proxy: Running, path: str, headers: dict[str, str], method: str = "POST") -> Answer:
    body = {"model": "m", "prompt": "p"} if method == "POST" else None
    return request(proxy.url + path, timeout_s=20, body=body, method=method, headers=headers)


WRONG: dict[str, dict[str, str]] = {
    "none": {},
    "an empty one": bearer(""),
    "a wrong one": bearer("k-" + "z" * 30),
    "one that begins like a right one": bearer(KEYS["alice"][:-1]),
    "a right one and more": bearer(KEYS["alice"] + "x"),
    "two": bearer(f"{KEYS['alice']} {KEYS['bob']}"),
    "a name for a key": bearer("alice"),
    "its digest": bearer(hashlib.sha256(KEYS["alice"].encode()).hexdigest()),
    "the servers' own": bearer(INTERNAL),
    "in another scheme": {"Authorization": f"Basic {KEYS['alice']}"},
    "without a scheme": {"Authorization": KEYS["alice"]},
    "in another header": {"X-Api-Key": KEYS["alice"], "Api-Key": KEYS["alice"]},
    "in a cookie": {"Cookie": f"Authorization=Bearer {KEYS['alice']}"},
    "a very long one": bearer("k" * 60000),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_without_a_right_key_nothing_is_answered_and_no_server_hears_of_it(
    wrong: str, closed: Any
) -> None:
    """On no path that generates, lists models, or changes anything."""
    proxy, prefill, decode = closed
    for path in (*GENERATING, "/v1/models", "/v1/load_lora_adapter", "/v1/responses/r_1"):
        for method in ("POST", "GET", "DELETE", "OPTIONS"):
            answer = ask(proxy, path, WRONG[wrong], method)
            error = answer.json()["error"]
            assert answer.status == 401, (path, method, answer)
            assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
            assert error["param"] is None and answer.headers["www-authenticate"] == "Bearer"
            assert not any(key in answer.text for key in (*KEYS.values(), INTERNAL))
    assert not prefill.seen and not decode.seen


def test_a_key_in_the_query_is_none(closed: Any) -> None:
    proxy, prefill, _ = closed
    assert ask(proxy, f"/v1/completions?api_key={KEYS['alice']}", {}).status == 401
    assert KEYS["alice"] not in proxy.log("access.log") and not prefill.seen


def test_every_key_works_and_the_servers_get_their_own_instead(closed: Any) -> None:
    """A client's key reaches no server; whatever else a client sends does."""
    proxy, prefill, decode = closed
    for key in KEYS.values():
        for path in GENERATING:
            answer = ask(proxy, path, {**bearer(key), "X-Trace": "7"})
            assert answer.status == 200, (path, answer)
    assert len(prefill.seen) == 3 * len(GENERATING)
    for one in (*prefill.seen, *decode.seen):
        assert one.headers["authorization"] == f"Bearer {INTERNAL}"
        assert one.headers["x-trace"] == "7"
        assert not any(key in str(one) for key in KEYS.values())


def test_without_a_key_of_the_servers_they_get_none(start: Any, backend: Any) -> None:
    prefill, decode = backend("prefill"), backend("decode")
    proxy = start([prefill], [decode], beside=keys_file(KEYS), api_keys=True)
    assert ask(proxy, "/v1/completions", bearer(KEYS["bob"])).status == 200
    assert all("authorization" not in one.headers for one in (*prefill.seen, *decode.seen))


def test_co_located_servers_behind_a_proxy_are_closed_too(start: Any, backend: Any) -> None:
    server = backend("decode")
    proxy = start([], [server], beside=keys_file(KEYS, INTERNAL), api_keys=True, internal_key=True)
    for path in (*GENERATING, "/v1/models"):
        assert ask(proxy, path, {}).status == 401
    assert not server.seen
    assert ask(proxy, "/v1/completions", bearer(KEYS["alice"])).status == 200
    assert server.seen[0].headers["authorization"] == f"Bearer {INTERNAL}"


def test_the_official_client_says_that_its_key_is_wrong(closed: Any) -> None:
    proxy, *_ = closed
    wrong = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as raised:
        wrong.completions.create(model="m", prompt="p")
    assert raised.value.code == "invalid_api_key" and "sk-wrong" not in str(raised.value)


def test_logs_have_the_names_of_keys_and_never_a_key(closed: Any, tmp_path: Path) -> None:
    proxy, prefill, _ = closed
    ask(proxy, "/v1/completions", bearer(KEYS["alice"]))
    ask(proxy, "/v1/completions", bearer("k-" + "z" * 30))
    prefill.close()
    ask(proxy, "/v1/chat/completions", bearer(KEYS["bob"]))
    ask(proxy, "/v1/load_lora_adapter", bearer(KEYS["bob"]))
    lines = proxy.access(4)
    assert [line["key"] for line in lines] == ["alice", "", "bob", "bob"]
    told = "".join(proxy.log(name) for name in ("access.log", "error.log"))
    told += (tmp_path / "stderr").read_text()
    for key in (*KEYS.values(), INTERNAL, "z" * 30):
        assert key not in told


def test_processes_do_not_show_a_key(closed: Any) -> None:
    """Neither in their words nor in what they were given as variables."""
    proxy, *_ = closed
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    variables = Path(f"/proc/{proxy.process.pid}/environ").read_bytes().decode()
    for key in (*KEYS.values(), INTERNAL):
        assert key not in listed.stdout and key not in variables


def raw(proxy: Running, target: str, headers: str) -> str:
    """A request line as it stands: clients tidy paths up."""
    with socket.create_connection(("127.0.0.1", proxy.spec.listen_port), timeout=20) as client:
        body = '{"lora_name":"x","lora_path":"/etc"}'
        head = f"POST {target} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {len(body)}\r\n"
        client.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())
        data = b""
        while piece := client.recv(65536):
            data += piece
    return data.decode()


@pytest.mark.parametrize("keyed", [True, False], ids=["with keys", "without keys"])
def test_what_changes_a_server_is_closed_however_it_is_spelled(
    keyed: bool, start: Any, backend: Any
) -> None:
    """Also to who has a key, and where no keys are in use."""
    prefill, decode = backend("prefill"), backend("decode")
    beside = keys_file(KEYS) if keyed else {}
    proxy = start([prefill], [decode], beside=beside, api_keys=keyed)
    head = f"Authorization: Bearer {KEYS['alice']}\r\n" if keyed else ""
    for path in CLOSED:
        for target in (path, f"http://h{path}"):
            answer = raw(proxy, target, head)
            assert re.match(r"HTTP/1\.1 (404|403|400|301) ", answer), (target, answer)
    assert not prefill.seen and not decode.seen
    for path in ("/v1/responses/resp_1-a", "/v1/completions"):
        assert raw(proxy, path, head).startswith("HTTP/1.1 200"), path


def test_a_closed_path_is_open_to_who_asks_for_it_in_the_settings(start: Any, backend: Any) -> None:
    prefill, decode = backend("prefill"), backend("decode")
    proxy = start([prefill], [decode], paths={"/v1/load_lora_adapter": True})
    assert ask(proxy, "/v1/load_lora_adapter", {}).status == 200
    assert ask(proxy, "/v1/completions", {}).status == 404
    assert len(prefill.seen) + len(decode.seen) == 1


def test_metrics_are_told_to_named_addresses_alone(start: Any, backend: Any) -> None:
    """Who asks from another one gets 403, whatever it says of itself."""
    proxy = start([backend("prefill")], [backend("decode")])
    assert request(f"{proxy.url}/metrics", timeout_s=20).status == 200
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}):
        assert from_elsewhere(proxy, "/metrics", headers) == 403
    assert from_elsewhere(proxy, "/health", {}) == 200
    settings = {**proxy.spec.settings, "metrics_from": ["127.0.0.2"]}
    proxy.write(dataclasses.replace(proxy.spec, settings=settings))
    reload(proxy)
    assert from_elsewhere(proxy, "/metrics", {}) == 200


def from_elsewhere(proxy: Running, path: str, headers: dict[str, str]) -> int:
    """The status for a client at 127.0.0.2."""
    client = http.client.HTTPConnection(
        "127.0.0.1", proxy.spec.listen_port, timeout=20, source_address=("127.0.0.2", 0)
    )
    client.request("GET", path, headers=headers)
    try:
        return client.getresponse().status
    finally:
        client.close()


def workers(proxy: Running) -> set[str]:
    listed = subprocess.run(
        ["ps", "--no-headers", "-o", "pid,args", "--ppid", str(proxy.process.pid)],
        capture_output=True,
        text=True,
    )
    return {line.split()[0] for line in listed.stdout.splitlines() if "shutting" not in line}


def reload(proxy: Running) -> None:
    """The running nginx takes its files over."""
    before = workers(proxy)
    os.kill(proxy.process.pid, signal.SIGHUP)
    assert wait_until(lambda: bool(now := workers(proxy)) and not now & before, 30, 0.02)


@pytest.mark.slow
def test_tls_is_renewed_without_a_lost_request(start: Any, backend: Any, tmp_path: Path) -> None:
    """Clients that verify, with a private authority, while certificates are changed under load."""
    authority = Authority(tmp_path)
    beside = tls_files(authority)
    servers = [backend("prefill")], [backend("decode")]
    proxy = start(*servers, beside=beside, tls={"certificate": "used"})
    service = Service(proxy.url, ca=str(authority.file))
    stop, answers = threading.Event(), list[Answer]()

    def go_on() -> None:
        while not stop.is_set():
            body = {"model": "m", "prompt": "p"}
            answers.append(service.request("/v1/completions", timeout_s=20, body=body))

    clients = [threading.Thread(target=go_on) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        serials = {serial(proxy)}
        for _ in range(5):
            for name, text in tls_files(authority).items():
                (tmp_path / name).write_text(text)
            reload(proxy)
            serials.add(serial(proxy))
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert len(serials) == 6
    assert len(answers) > 20 and {answer.status for answer in answers} == {200}, answers[-1]


def tls_files(authority: Authority) -> dict[str, str]:
    made = authority.make()
    return {
        "tls.crt": Path(made["certificate"]).read_text(),
        "tls.key": Path(made["key"]).read_text(),
    }


def serial(proxy: Running) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", proxy.spec.listen_port))
    return hashlib.sha256(pem.encode()).hexdigest()


def test_an_unknown_authority_is_refused_and_says_which_setting(
    start: Any, backend: Any, tmp_path: Path
) -> None:
    made, strange = tmp_path / "made", tmp_path / "strange"
    made.mkdir()
    strange.mkdir()
    beside = tls_files(Authority(made))
    proxy = start(
        [backend("prefill")], [backend("decode")], beside=beside, tls={"certificate": "x"}
    )
    answer = Service(proxy.url, ca=str(Authority(strange).file)).request("/health", timeout_s=20)
    assert answer.status == 0 and "proxy.tls.ca" in answer.text


def test_who_speaks_no_tls_is_told_in_json(start: Any, backend: Any, tmp_path: Path) -> None:
    beside = tls_files(Authority(tmp_path))
    proxy = start(
        [backend("prefill")], [backend("decode")], beside=beside, tls={"certificate": "x"}
    )
    plain = request(proxy.url.replace("https", "http") + "/v1/models", timeout_s=20)
    assert plain.status == 400 and "https://" in json.loads(plain.text)["error"]["message"]


def test_versions_of_tls_that_are_broken_are_refused(
    start: Any, backend: Any, tmp_path: Path
) -> None:
    beside = tls_files(Authority(tmp_path))
    proxy = start(
        [backend("prefill")], [backend("decode")], beside=beside, tls={"certificate": "x"}
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    with (
        socket.create_connection(("127.0.0.1", proxy.spec.listen_port), timeout=20) as client,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(client)
