"""What engines say when a pull fails, word for word as they said it, and what it means."""

from __future__ import annotations

import pytest

from hostkit.containers.image_fault import NETWORK, REFUSED, SPACE, read

DAEMON = "Error response from daemon: "
SAID = [
    (NETWORK, DAEMON + 'Get "http://r/v2/": dial tcp 127.0.0.1:1: connect: connection refused'),
    (NETWORK, DAEMON + 'Get "https://r/v2/": net/http: TLS handshake timeout'),
    (NETWORK, DAEMON + 'Get "https://r/v2/": read tcp 10.0.0.1:2: connection reset by peer'),
    (NETWORK, DAEMON + 'Get "https://r/v2/": dial tcp 10.0.0.1:443: i/o timeout'),
    (NETWORK, DAEMON + "received unexpected HTTP status: 503 Service Unavailable"),
    (NETWORK, DAEMON + 'Get "http://r/v2/": http: server closed idle connection'),
    (NETWORK, DAEMON + 'Get "https://r/v2/": net/http: request canceled (Client.Timeout exceeded)'),
    (NETWORK, DAEMON + "Get: http2: client connection lost"),
    (NETWORK, "EOF"),
    (NETWORK, "unexpected EOF"),
    (NETWORK, 'Error: storing blob to file "/var/tmp/s/4": happened during read: unexpected EOF'),
    (NETWORK, DAEMON + "Head: context deadline exceeded (Client.Timeout exceeded)"),
    (REFUSED, DAEMON + "manifest for r/a:2 not found: manifest unknown: manifest unknown"),
    (REFUSED, "Error: initializing source docker://r/a:7: reading manifest 7: manifest unknown"),
    (REFUSED, DAEMON + 'Head "http://r/v2/a/manifests/1": no basic auth credentials'),
    (REFUSED, DAEMON + "pull access denied for a, repository does not exist or may require"),
    (REFUSED, DAEMON + "login attempt to http://r/v2/ failed with status: 401 Unauthorized"),
    (REFUSED, DAEMON + "dial tcp: lookup nosuch.invalid on 10.0.0.53:53: no such host"),
    (REFUSED, DAEMON + "Get: http: server gave HTTP response to HTTPS client"),
    (REFUSED, DAEMON + "Get: x509: certificate signed by unknown authority"),
    (REFUSED, "no matching manifest for linux/arm64/v8 in the manifest list entries"),
    (REFUSED, "something that nobody has heard of"),
    (SPACE, "write /var/lib/docker/tmp/GetImageBlob1: no space left on device"),
]


@pytest.mark.parametrize(("kind", "said"), SAID)
def test_what_was_said_has_a_meaning(kind, said) -> None:
    found = read(said, "r/a:1", engine="docker", registry="r")
    assert found.kind == kind
    assert said in str(found.error("r/a:1"))
    assert found.todo or kind == SPACE


def test_the_error_says_what_to_do_for_this_engine_and_registry() -> None:
    found = read("unauthorized", "m/a:1", engine="podman", registry="m")
    text = str(found.error("r/a:1"))
    assert "podman login m" in text and "r/a:1 (asked for as m/a:1)" in text
    said = "no matching manifest for linux/x"
    other = read(said, "r/a:1", engine="docker", registry="r", platform="linux/arm64")
    assert "not for linux/arm64" in other.why
