"""Requests that go out: secrets stay with their host, certificates are held against."""

from __future__ import annotations

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator

import pytest
import requests
import urllib3
from weights_server import LARGE, REPOSITORY, WeightsServer

from hostkit.base.errors import ActionError
from omnikit.weights.download import request as download_request
from omnikit.weights.download.request import RefusedError, Requests
from omnikit.weights.download.types import TransientError

COMMIT_URL = f"{REPOSITORY}/resolve/0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    made = WeightsServer({"large": bytes(LARGE), "small": b"text"})
    made.token = "secret"
    yield made
    made.close()


@pytest.mark.parametrize(("name", "size"), [("large", LARGE), ("small", 4)])
def test_a_token_goes_to_its_host_and_not_to_the_next(
    server: WeightsServer, name: str, size: int
) -> None:
    host = f"127.0.0.1:{server.port}"
    requests = Requests(10, host, {"Authorization": "Bearer secret"})
    answer = requests.open(f"{server.url}/{COMMIT_URL}/{name}")
    assert len(answer.read(2 * LARGE)) == size and server.secrets_at_cdn == []
    elsewhere = Requests(10, "other:1", {"Authorization": "Bearer secret"})
    with pytest.raises(ActionError, match="HTTP 401"):
        elsewhere.open(f"{server.url}/{COMMIT_URL}/{name}")


class _Silent(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_certificate_that_is_not_accepted_is_told(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        [*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Silent)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        with pytest.raises(ActionError, match="certificate is not accepted") as raised:
            Requests(10).open(f"https://localhost:{http.server_address[1]}/")
        assert "SSL_CERT_FILE" in str(raised.value)
    finally:
        http.shutdown()
        http.server_close()


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    plain = download_request.plain
    assert plain("https://me:word@host:1/a?token=c#d") == "https://host:1/a"
    assert plain("ftp://me:word@host/a?b") == "ftp://host/a"
    assert plain("https://[word") == "an address that cannot be read"
    ours = "https://host/repo?Revision=master&FilePath=config.json"
    assert plain(ours) == ours and plain(f"{ours}&token=c") == "https://host/repo"
    assert plain("/folder") == "/folder"


def test_an_address_that_cannot_be_asked_is_told_once_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "*")  # a proxy of this machine would be asked
    with pytest.raises(ActionError) as raised:
        Requests(5).open("http://me:word@host:x/")
    assert "word" not in str(raised.value)


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_plain_servers_no_has_remedies_that_a_plain_server_knows(
    status: int, token: bool
) -> None:
    told = str(download_request.refused(status, "http://host/x", token=token, hub=False))
    assert f"HTTP {status}" in told and "weights.download." in told
    for word in ("repository", "revision", "terms", "private", "endpoint", "its page"):
        assert word not in told
    assert "repository" in str(download_request.refused(404, "http://host/x", token=token))


@pytest.mark.parametrize("status", ["501", "503"])
def test_a_method_that_a_server_does_not_know_is_not_asked_again(
    server: WeightsServer, status: str
) -> None:
    server.faults["small"] = [status]
    with pytest.raises(TransientError if status == "503" else RefusedError):
        Requests(5).open(f"{server.folder}/small")


def test_an_answer_that_was_read_to_its_end_can_be_cut(server: WeightsServer) -> None:
    server.token = ""
    answer = Requests(5).open(f"{server.url}/files/small")
    assert answer.read(100) == b"text"
    answer.cut()


@pytest.mark.parametrize("digits", ["²", "9" * 5000], ids=["a sign", "many"])
def test_a_server_s_number_that_is_none_is_not_known(digits: str) -> None:
    response = requests.Response()
    response.raw, response.status_code = urllib3.HTTPResponse(), 206
    response.headers.update(
        {"Content-Length": digits, "Content-Range": f"bytes {digits}-9/{digits}"}
    )
    with pytest.raises(TransientError, match="asked for bytes from 5"):
        download_request._answer(response, 5)
    response.status_code = 200
    assert download_request._answer(response, 0).total is None
    response.status_code = 503
    response.headers["Retry-After"] = digits
    assert isinstance(download_request._no(response, "http://h/x", 0, False, False), TransientError)
