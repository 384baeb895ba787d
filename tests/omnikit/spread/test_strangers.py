"""Somebody on the network who knows the torrent, and runs libtorrent itself, without a certificate
of this run: gets nothing, and gives nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from docker_host import wait_for
from port_rooms import free_port

from hostkit.spread import engine, folder
from omnikit.spread import wheel
from omnikit.spread.transfer import Authority

pytestmark = pytest.mark.slow  # libtorrent's wheel is fetched
SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
NAME = "model.safetensors"
DATA = hashlib.shake_128(b"weights").digest(1 << 20)


class Site:
    """Hosts and strangers, all on the loopback. lt: libtorrent as it is shipped to hosts."""

    def __init__(self, place: Path, data: bytes = DATA) -> None:
        self.place, self.authority = place, Authority()
        self.files = {NAME: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        work_dir = str(place / "work")
        shipped = base64.b64encode(wheel.of(engine.tag(), None)).decode()
        engine.take({"work_dir": work_dir, "wheel": shipped})
        self.lt = engine._load(work_dir)
        self.work_dir = work_dir
        source = self.folder("source", data)
        folder.note(work_dir, source, {NAME: self.files[NAME]["sha256"]}, whole=True)
        given = {"dir": str(source), "files": self.files, "work_dir": work_dir}
        self.torrent = engine.describe(given)["torrent"]

    def folder(self, name: str, data: bytes = b"") -> Path:
        """A folder with the file, or an empty one."""
        made = self.place / name / "model"  # what lies beside would be taken for an older version
        made.mkdir(parents=True, exist_ok=True)
        if data:
            (made / NAME).write_bytes(data)
        return made

    @contextmanager
    def host(self, name: str, peers: list[list[Any]], only: bool = False) -> Iterator[Host]:
        """The job of a host as it is done on hosts, in a process of its own, until it listens."""
        certificate, key = self.authority.peer(name)
        given = {
            **{"dir": str(self.folder(name)), "work_dir": self.work_dir, "torrent": self.torrent},
            **{"files": self.files, "wanted": None, "place": True, "replace": False, "rate": 0},
            **{"authority": self.authority.certificate, "certificate": certificate, "key": key},
            **{"address": "127.0.0.1", "port": free_port(), "peers": peers, "only": only},
            "limit_s": 600,
        }
        host = Host(given)
        try:
            wait_for(lambda: "at" in host.told(), f"{name} listens")
            yield host
        finally:
            host.child.stdin.close()  # type: ignore[union-attr]
            host.child.wait(timeout=30)

    def peer(self, name: str, data: bytes, certificate: Optional[tuple[str, str]]) -> Peer:
        """A session of libtorrent with the torrent of this run."""
        return Peer(self, self.folder(name, data), certificate)


class Host:
    """A host's job while it runs."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.out = Path(f"{given['dir']}.out")
        words = "import sys; from hostkit.agent.receive import do; sys.exit(do('spread-run'))"
        with self.out.open("wb") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-c", words],
                env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        assert self.child.stdin is not None
        self.child.stdin.write(base64.b64encode(json.dumps(given).encode()) + b"\n")
        self.child.stdin.flush()

    def told(self) -> dict[str, Any]:
        """What it said of itself so far."""
        assert self.child.poll() is None, self.out.read_text()
        lines = self.out.read_text().rpartition("\n")[0].splitlines()
        found: dict[str, Any] = {}
        for line in lines:
            found.update(json.loads(line))
        return found

    @property
    def address(self) -> tuple[str, int]:
        return self.given["address"], self.given["port"]


class Peer:
    """libtorrent with the toolkit's own settings. ends: how its connections ended."""

    def __init__(self, site: Site, place: Path, certificate: Optional[tuple[str, str]]) -> None:
        lt = self.lt = site.lt
        self.port = free_port()
        settings = {**engine._SETTINGS, "listen_interfaces": f"127.0.0.1:{self.port}s"}
        settings["alert_mask"] = lt.alert.category_t.all_categories
        self.session = lt.session(settings)
        made = lt.add_torrent_params()
        torrent = base64.b64decode(site.torrent)
        made.ti = engine._of_this_run(lt, torrent, site.authority.certificate)
        made.save_path = str(place)
        made.renamed_files = {0: str(place / NAME)}
        made.flags = lt.torrent_flags.paused
        self.handle = self.session.add_torrent(made)
        if certificate:
            self.handle.set_ssl_certificate_buffer(*certificate, engine._DH)
        self.handle.unset_flags(lt.torrent_flags.paused)
        self.ends: list[str] = []
        wait_for(self.checked, "the peer has looked at its files")

    def checked(self) -> bool:
        """Whether it knows what it has."""
        states = self.lt.torrent_status.states
        return self.handle.status().state not in (
            *(states.checking_files, states.checking_resume_data),
        )

    def connect(self, host: Host) -> None:
        """Take up a connection to a host."""
        self.handle.connect_peer(host.address)

    def was_refused(self, times: int = 2) -> bool:
        """Whether connections have ended so often; it tries again by itself."""
        for alert in self.session.pop_alerts():
            if isinstance(alert, (self.lt.peer_disconnected_alert, self.lt.peer_error_alert)):
                self.ends.append(alert.message())
        return len(self.ends) >= times

    @property
    def got(self) -> int:
        return int(self.handle.status().total_payload_download)

    @property
    def gave(self) -> int:
        return int(self.handle.status().total_payload_upload)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("strangers"))


def stranger(kind: str) -> Optional[tuple[str, str]]:
    """A certificate of nobody, or of another run's authority."""
    return Authority().peer("h1") if kind == "foreign" else None


@pytest.mark.parametrize("kind", ["none", "foreign"])
def test_a_stranger_gets_nothing(site: Site, kind: str) -> None:
    site.folder(f"giver-{kind}", DATA)
    with site.host(f"giver-{kind}", []) as host:
        peer = site.peer(f"taking-{kind}", b"", stranger(kind))
        peer.connect(host)
        wait_for(peer.was_refused, "the stranger is refused")
        assert peer.got == 0 and peer.handle.status().num_pieces == 0, peer.ends
        # Who belongs to this run gets all of it from the same host meanwhile.
        friend = site.peer(f"friend-{kind}", b"", site.authority.peer("h2"))
        friend.connect(host)
        wait_for(lambda: friend.handle.status().is_seeding, "a host of this run gets it")
        wait_for(lambda: host.told().get("sent", 0) >= len(DATA), "the giver has counted that")
        assert host.told()["sent"] < 2 * len(DATA) and peer.got == 0, peer.ends


@pytest.mark.parametrize("kind", ["none", "foreign"])
def test_a_stranger_gives_nothing_neither_called_nor_calling(site: Site, kind: str) -> None:
    with ExitStack() as stack:
        peer = site.peer(f"giving-{kind}", DATA, stranger(kind))
        assert peer.handle.status().is_seeding, "it has all that the host wants"
        # The host takes the stranger's address for that of another host, and calls there, too.
        host = stack.enter_context(site.host(f"taker-{kind}", [["127.0.0.1", peer.port]]))
        peer.connect(host)
        wait_for(lambda: peer.was_refused(4), "the stranger is refused")
        assert host.told().get("got", 0) == 0 and peer.gave == 0, peer.ends
        assert host.told()["done"] == 0 and host.told()["at"] == "receiving"
        friend = site.peer(f"bringing-{kind}", DATA, site.authority.peer("h2"))
        friend.connect(host)
        wait_for(lambda: host.told()["at"] == "has it", "a host of this run gives it")
        assert host.told()["got"] >= len(DATA) and peer.gave == 0
        assert (Path(host.given["dir"]) / NAME).read_bytes() == DATA


def test_one_small_file_is_given_by_the_only_host_that_has_it(tmp_path: Path) -> None:
    site = Site(tmp_path, DATA[:1400])
    site.folder("giver", DATA[:1400])
    with ExitStack() as stack:
        giver = stack.enter_context(site.host("giver", [], only=True))
        taker = stack.enter_context(site.host("taker", [list(giver.address)]))
        wait_for(lambda: taker.told()["at"] == "has it", "the file is there")
    assert (Path(taker.given["dir"]) / NAME).read_bytes() == DATA[:1400]
