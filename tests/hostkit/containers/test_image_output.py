"""A running pull: layers counted, lines of progress, an end when it must end."""

from __future__ import annotations

import sys

import pytest

from hostkit.base import health
from hostkit.base.errors import InputError
from hostkit.base.faults import NETWORK, REFUSED, SPACE
from hostkit.containers.image_output import Progress, read, watch

DOCKER = """1: Pulling from a/big
3d2f0b2ae876: Already exists
9bf28627b0fb: Pulling fs layer
ae0625cd4b0d: Pulling fs layer
ae0625cd4b0d: Waiting
9bf28627b0fb: Download complete
9bf28627b0fb: Pull complete
ae0625cd4b0d: Retrying in 5 seconds
ae0625cd4b0d: Retrying in 4 seconds
"""


def test_dockers_layers_are_counted(capsys) -> None:
    progress = Progress()
    for line in DOCKER.splitlines():
        progress.line(line)
    assert progress.show() == "2 of 3 layers done"
    assert progress.begun and progress.already == 1
    assert capsys.readouterr().err.count("ae0625cd4b0d: the connection was cut") == 1
    progress.line("Digest: sha256:" + "c" * 64)
    assert progress.digest == "sha256:" + "c" * 64
    assert progress.said[0] == "1: Pulling from a/big"


def test_nothing_begins_when_all_is_there_and_podman_does_not_say() -> None:
    progress = Progress()
    progress.line("3d2f0b2ae876: Already exists")
    assert not progress.begun
    progress.line(f"Copying blob sha256:{'d' * 64}")
    assert not progress.begun and progress.show() == "2 layers"


def test_a_silent_command_has_lines_of_progress(capsys) -> None:
    code = "import sys, time; print('9bf28627b0fb: Pulling fs layer', flush=True); time.sleep(1)"
    assert watch([sys.executable, "-c", code], "pulling x", say_s=0.2)[0] == 0
    assert "pulling x: 0 of 1 layers done, 0 s" in capsys.readouterr().err


def test_the_last_line_counts_without_its_end_and_so_does_the_exit_status() -> None:
    code = "import sys; print('first'); sys.stdout.write('last'); sys.exit(3)"
    status, progress = watch([sys.executable, "-c", code], "x")
    assert (status, progress.said) == (3, ["first", "last"])


def test_what_stands_against_the_first_layer_ends_the_command(tmp_path) -> None:
    mark = tmp_path / "alive"
    code = (
        "import os, time; print('9bf28627b0fb: Pulling fs layer', flush=True)\n"
        f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )

    def refuse() -> None:
        assert health.wait_until(lambda: mark.exists() and bool(mark.read_text()), 10, 0.01)
        raise InputError("no room")

    with pytest.raises(InputError, match="no room"):
        watch([sys.executable, "-c", code], "x", on_begin=refuse)
    from pathlib import Path

    assert not Path(f"/proc/{mark.read_text()}").exists()


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
