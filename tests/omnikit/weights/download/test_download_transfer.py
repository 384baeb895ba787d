"""One file from a server: what is kept, what is asked for again, what is given up."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Iterator

import pytest
from weights_server import WeightsServer, sha256

from hostkit.base.errors import ActionError
from hostkit.base.health import wait_until
from omnikit.weights.download.request import Requests
from omnikit.weights.download.transfer import Fetch, Stopped
from omnikit.weights.download.types import Patience, RemoteFile

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    made = WeightsServer({"file": DATA})
    yield made
    made.close()


class Case:
    """A transfer of the server's file into a folder."""

    def __init__(self, server: WeightsServer, folder: Path, timeout_s: float = 20) -> None:
        self.said: list[str] = []
        self.passed: list[int] = []
        patience = Patience(3, 0.01, timeout_s)
        self.fetch = Fetch(Requests(timeout_s), patience, self.passed.append, self.said.append)
        self.part = folder / "file.incomplete"
        self.url = f"{server.folder}/file"

    def file(self, hashed: bool = True, version: str = "") -> str:
        digest = f"sha256:{sha256(DATA)}" if hashed else ""
        return self.fetch.file(RemoteFile("file", self.url, len(DATA), digest, version), self.part)


def test_attempts_count_anew_while_it_moves(server: WeightsServer, tmp_path: Path) -> None:
    server.faults["file"] = ["cut:1000", "503"] * 5
    case = Case(server, tmp_path)
    assert case.file() == f"sha256:{sha256(DATA)}"
    assert case.part.read_bytes() == DATA and sum(case.passed) == len(DATA)
    assert len(case.said) == 10


def test_without_progress_it_is_given_up(server: WeightsServer, tmp_path: Path) -> None:
    server.faults["file"] = ["cut:1000", "503", "503", "503"]
    with pytest.raises(ActionError, match=r"HTTP 503 .*, also at attempt 3"):
        Case(server, tmp_path).file()
    assert (tmp_path / "file.incomplete").read_bytes() == DATA[:1000]


@pytest.mark.parametrize("status", ["401", "403", "404", "410"])
def test_a_no_is_not_asked_again(server: WeightsServer, tmp_path: Path, status: str) -> None:
    server.faults["file"] = [status]
    with pytest.raises(ActionError, match=f"HTTP {status}"):
        Case(server, tmp_path).file()
    assert len(server.asked) == 1


def test_no_server_is_a_fault_of_the_network(server: WeightsServer, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    server.close()
    with pytest.raises(ActionError, match="Connection refused, also at attempt 3"):
        case.file()


def test_silence_ends_after_the_timeout(server: WeightsServer, tmp_path: Path) -> None:
    server.faults["file"] = ["hold:1000"]
    case = Case(server, tmp_path, timeout_s=0.3)
    case.file()
    assert "timed out" in case.said[0] and server.ranges("file") == [None, "bytes=1000-"]


def test_a_whole_part_is_verified_and_not_fetched(server: WeightsServer, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.file()
    case.file()
    assert len(server.asked) == 1
    case.part.write_bytes(bytes(len(DATA)))  # of this length, with another content
    case.file()
    assert len(server.asked) == 2 and case.part.read_bytes() == DATA


def test_parts_of_two_versions_are_never_put_together(
    server: WeightsServer, tmp_path: Path
) -> None:
    etag = f'etag:"{sha256(DATA)[:16]}"'
    server.faults["file"] = ["cut:1000"] + ["503"] * 3
    with pytest.raises(ActionError, match="503"):
        Case(server, tmp_path).file(hashed=False, version=etag)
    server.files["file"] = DATA[::-1]
    with pytest.raises(ActionError, match="the file changed on the server"):
        Case(server, tmp_path).file(hashed=False, version=etag)
    assert not (tmp_path / "file.incomplete").exists()


def test_what_nothing_tells_apart_begins_anew(server: WeightsServer, tmp_path: Path) -> None:
    server.etags = False
    server.faults["file"] = ["cut:1000"]
    Case(server, tmp_path).file(hashed=False)
    assert server.ranges("file") == [None, None]


def test_a_halt_is_seen_while_the_server_is_silent(server: WeightsServer, tmp_path: Path) -> None:
    server.faults["file"] = ["hold:1000"]
    case = Case(server, tmp_path)
    ended: list[BaseException] = []

    def act() -> None:
        try:
            case.file()
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    assert wait_until(lambda: sum(case.passed) == 1000, 10, 0.01)
    case.fetch.halt()
    thread.join(5)
    assert ended and case.part.read_bytes() == DATA[:1000]
