"""One host's part in a transfer: libtorrent, told what to do by standard input.

Nothing of it outlives the caller: it ends when standard input ends (the control host was killed,
the SSH connection broke), when the caller falls silent, and when its time is over.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import platform
import selectors
import socket
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Optional

from hostkit.base import health, writing
from hostkit.base.errors import ActionError, InputError
from hostkit.spread import folder
from hostkit.spread.folder import tell

OLDEST = (2, 0, 6)  # of libtorrent
_TURN_S = 0.25
_CONNECT_S = 3.0
_FEW = 16  # pieces
_SAVE_S = 5.0
_SILENT_S = 60.0  # the caller says something every few seconds
# RFC 7919's group: OpenSSL wants one, though keys of TLS 1.3 come of curves.
_DH = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


def place(work_dir: str) -> Path:
    """Where a host keeps the engine that was shipped to it: one for each kind of Python."""
    return Path(work_dir) / "engines" / f"libtorrent-{tag()}"


def tag() -> str:
    """What a wheel must be for: cp311-x86_64."""
    libc = "" if platform.libc_ver()[0] == "glibc" else "-musl"
    return f"cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}{libc}"


def found(work_dir: str) -> str:
    """The version of the engine that this host has; "": none that will do."""
    try:
        return str(_load(work_dir).version)
    except InputError:
        return ""


def compare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: what of a folder is here (folder.compare), and the engine: its version, "" for none, and
    what a wheel must be for.
    """
    return {
        **folder.compare(parameters),
        "engine": found(parameters["work_dir"]),
        "tag": tag(),
    }


def take(parameters: dict[str, Any]) -> dict[str, Any]:
    """Unpack a wheel. parameters: work_dir, wheel (base64), which the caller has checked."""
    to = place(parameters["work_dir"])
    to.mkdir(parents=True, exist_ok=True, mode=0o755)
    with zipfile.ZipFile(BytesIO(base64.b64decode(parameters["wheel"]))) as wheel:
        for name in wheel.namelist():
            if name.startswith("libtorrent/") and name.endswith((".so", ".py")):
                file = to / name
                file.parent.mkdir(exist_ok=True)
                beside = writing.beside_of(file)
                beside.write_bytes(wheel.read(name))
                beside.replace(file)
    version = found(parameters["work_dir"])
    if not version:
        _load(parameters["work_dir"])
    return {"changed": True, "engine": version}


def _load(work_dir: str) -> Any:
    """libtorrent: what was shipped, else what the system has. Raises InputError."""
    shipped = str(place(work_dir))
    if shipped not in sys.path:
        sys.path.insert(0, shipped)
    importlib.invalidate_caches()
    try:
        module: Any = importlib.import_module("libtorrent")
        version = tuple(int(part) for part in str(module.__version__).split(".")[:3])
    except (ImportError, ValueError) as error:
        sys.modules.pop("libtorrent", None)
        raise InputError(
            f"libtorrent cannot be loaded: {error}.",
            where=shipped,
            todo="call invoke distribute-weights again, which ships it",
        ) from error
    if version < OLDEST:
        raise InputError(f"libtorrent {module.__version__} is too old, expected 2.0.6 or newer.")
    module.version = module.__version__
    return module


# Nobody is found but by name, nothing is sent but through TLS over TCP, no part is played for
# strangers; every peer is a friend and gets what it asks for.
_SETTINGS = {
    **dict.fromkeys(("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"), False),
    **dict.fromkeys(("enable_incoming_utp", "enable_outgoing_utp"), False),
    # BitTorrent's own obfuscation inside of TLS gains nothing and waits 10 s for its handshake.
    **dict.fromkeys(("out_enc_policy", "in_enc_policy"), 2),  # enc_policy.pe_disabled
    "listen_system_port_fallback": False,
    "max_retry_port_bind": 0,
    "allow_multiple_connections_per_ip": True,
    "anonymous_mode": False,
    "unchoke_slots_limit": -1,
    "unchoke_interval": 1,  # a new peer waits for that
    "connections_limit": 400,
    "connection_speed": 200,
    "min_reconnect_time": 2,
    "max_failcount": 1000,
    "peer_connect_timeout": 7,
    "active_seeds": -1,
    "active_limit": -1,
    "mixed_mode_algorithm": 0,
    "request_timeout": 10,
    "send_buffer_watermark": 1 << 20,
    "hashing_threads": 2,
}


# --- the torrent: made once where the files are, of which each run makes its own by its CA --------


def describe(parameters: dict[str, Any]) -> dict[str, Any]:
    """The torrent of a folder's files. parameters: dir, files {name: {size, sha256}}, work_dir.

    It is kept: who has it and unchanged files reads none of them again.
    """
    lt, source = _load(parameters["work_dir"]), Path(parameters["dir"])
    files = parameters["files"]
    kept = Path(parameters["work_dir"]) / "spread" / f"{folder.digest(files)}.torrent"
    stamps = {name: folder.stamp(source / name) for name in files}
    record = writing.read_back(kept.with_suffix(".json"))
    if kept.is_file() and record == {"dir": str(source), "stamps": stamps}:
        return {"changed": False, "torrent": base64.b64encode(kept.read_bytes()).decode()}
    if set(files) - set(folder.present({**parameters, "dry_run": True})):
        raise ActionError("files were changed meanwhile.", where=str(source), todo="again")
    storage = lt.file_storage()
    for name, one in sorted(files.items()):
        storage.add_file(f"{source.name}/{name}", one["size"])
    total = sum(one["size"] for one in files.values())
    made = lt.create_torrent(storage, _piece(total), lt.create_torrent.v2_only)
    made.set_priv(True)
    length, began = made.piece_length(), time.monotonic()

    def passed(piece: int) -> None:
        if piece % 16 == 0:
            took = time.monotonic() - began
            tell(at="pieces", done=min(total, piece * length), total=total, seconds=took)

    try:
        lt.set_piece_hashes(made, str(source.parent), passed)
    except RuntimeError as error:
        raise ActionError(f"the files cannot be read: {error}.", where=str(source)) from error
    torrent = lt.bencode(made.generate())
    writing.write_private(kept, torrent)
    writing.write_private(
        kept.with_suffix(".json"), json.dumps({"dir": str(source), "stamps": stamps}).encode()
    )
    return {"changed": True, "torrent": base64.b64encode(torrent).decode()}


def _piece(total: int) -> int:
    """A piece is passed on when it is whole: small ones begin early, large ones cost less."""
    piece = 64 << 10
    while piece < 16 << 20 and piece * 1500 < total:
        piece *= 2
    return piece


def _of_this_run(lt: Any, torrent: bytes, authority: str) -> Any:
    """The torrent whose peers must have a certificate of this authority."""
    told = lt.bdecode(torrent)
    told[b"info"][b"ssl-cert"] = authority.encode()
    return lt.torrent_info(told)


# --- one run --------------------------------------------------------------------------------------


@dataclass
class _Caller:
    """Who told us to run, at the other end of standard input and output."""

    heard: float = field(default_factory=time.monotonic)
    pending: bytes = b""
    gone: bool = False

    def lines(self) -> list[dict[str, Any]]:
        """What was said meanwhile; gone when nobody is there any more."""
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(0, selectors.EVENT_READ)
            except PermissionError:  # a file: it has ended
                self.gone = True
                return []
            while not self.gone and selector.select(0):
                part = os.read(0, 65536)
                self.gone = not part
                self.pending += part
        *whole, self.pending = self.pending.split(b"\n")
        if whole:
            self.heard = time.monotonic()
        if time.monotonic() - self.heard > _SILENT_S:
            self.gone = True
        return [json.loads(line) for line in whole if line.strip()]


def run(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: take part until the caller says that all is done.

    parameters: dir, work_dir, torrent (base64), files, wanted (names; None: all), place (whether
    what arrived belongs in dir at the end), replace (files there that do not belong go), authority,
    certificate, key (PEM), address, port, peers ([address, port]), rate (bytes a second each way;
    0: any), only (whether nobody else has all), limit_s.
    """
    lt = _load(parameters["work_dir"])
    part = _Part(lt, parameters)
    try:
        part.begin()
        if not health.wait_until(part.turn, parameters["limit_s"], _TURN_S):
            raise ActionError(
                f"not done within {parameters['limit_s']:g} s (distribution.limit_s).",
                todo="call it again: it goes on where it was",
            )
    finally:
        part.end()
    return {"changed": part.changed, **part.last}


class _Part:
    """A session of libtorrent with one torrent, and what the caller is told of it.

    state: receiving, then verifying (hashing all that arrived), placing, and "has it".
    """

    def __init__(self, lt: Any, given: dict[str, Any]) -> None:
        self.lt, self.given = lt, given
        self.caller = _Caller()
        self.dir, self.files = Path(given["dir"]), given["files"]
        self.staging = self.dir / folder.STAGING
        self.info = _of_this_run(lt, base64.b64decode(given["torrent"]), given["authority"])
        self.rate = given["rate"]
        self.peers = [(socket.gethostbyname(one), int(port)) for one, port in given["peers"]]
        self.have = set(folder.present(given))
        self.wanted = set(self.files if given["wanted"] is None else given["wanted"])
        self.lacks = [name for name in self.files if name in self.wanted - self.have]
        self.state = "receiving" if self.lacks else "has it"
        self.changed = bool(self.lacks)
        self.session: Any = None
        self.handle: Any = None
        self.placing: dict[int, str] = {}
        self.late: list[str] = []
        self.checked: Optional[list[str]] = None
        self.hashed = 0
        self.tried = self.told = 0.0
        self.saved = time.monotonic()
        self.fault = ""
        self.last = {"sent": 0, "got": 0}

    def begin(self) -> None:
        """Listen, and name the others. Raises ActionError."""
        lt, given = self.lt, self.given
        if self.lacks:
            folder.stage(self.dir, self.files, self.files.keys() - set(self.lacks))
        address, kinds = folder.listens_on(given["address"]), lt.alert.category_t
        shown = f"[{address}]" if ":" in address else address
        settings = {
            "listen_interfaces": f"{shown}:{given['port']}s",
            "outgoing_interfaces": "" if address == "0.0.0.0" else address,
            "alert_mask": kinds.error_notification
            | kinds.status_notification
            | kinds.storage_notification,
            **_SETTINGS,
        }
        self.session = lt.session({k: v for k, v in settings.items() if k in lt.default_settings()})
        if not health.wait_until(self._listens, 10.0, 0.05):
            raise ActionError(
                f"port {given['port']} cannot be listened on: {self.fault or 'no answer'}.",
                todo=f"see what has it (ss -ltnp | grep {given['port']}), or choose another:"
                " --set distribution.port=PORT",
            )
        self.handle = self.session.add_torrent(self._torrent())
        self.handle.set_ssl_certificate_buffer(given["certificate"], given["key"], _DH)
        self._limit()
        self.handle.unset_flags(lt.torrent_flags.paused)
        tell(at="listening", port=given["port"])

    def _names(self) -> dict[int, str]:
        """The torrent's files by number; those between them, which fill up pieces, are none."""
        storage, padding = self.info.files(), self.lt.file_flags_t.flag_pad_file
        return {
            index: folder.name_in(storage.file_path(index))
            for index in range(storage.num_files())
            if not storage.file_flags(index) & padding
        }

    def _torrent(self) -> Any:
        """The torrent, its files where they are, and which pieces are known to be good."""
        lt, names = self.lt, self._names()
        made = lt.add_torrent_params()
        made.ti, made.save_path = self.info, str(self.staging)
        made.renamed_files = {
            index: str((self.dir if name in self.have else self.staging) / name)
            for index, name in names.items()
        }
        if not self.wanted >= self.files.keys():
            priorities = [0] * self.info.num_files()
            for index, name in names.items():
                priorities[index] = 4 if name in self.wanted else 0
            made.file_priorities = priorities
        flags = lt.torrent_flags
        made.flags = flags.paused | flags.disable_dht | flags.disable_lsd | flags.disable_pex
        # Of few pieces it would gain nothing; a torrent of one is never given in that mode.
        many = self.info.num_pieces() > _FEW
        if many and self.given["only"] and self.have >= self.files.keys():
            made.flags |= flags.super_seeding
        good = self._good(names)
        if good is not None:
            made.have_pieces = good
        return made

    def _good(self, names: dict[int, str]) -> Optional[list[bool]]:
        """Which pieces need not be read again; None: all are to be, since something lies there."""
        storage, length = self.info.files(), self.info.piece_length()
        good = [False] * self.info.num_pieces()
        for index, name in names.items():
            if name in self.have:
                first = storage.file_offset(index) // length
                count = -(-storage.file_size(index) // length)
                good[first : first + count] = [True] * count
        if not any((self.staging / name).exists() for name in self.lacks):
            return good
        before = folder.remembered(self.staging, self.files, len(good))
        for piece in before or ():
            good[piece] = True
        return None if before is None else good

    def _listens(self) -> bool:
        for alert in self.session.pop_alerts():
            if isinstance(alert, self.lt.listen_failed_alert):
                self.fault = alert.message()
            if isinstance(alert, self.lt.listen_succeeded_alert):
                self.fault = ""
                return True
        return False

    def _limit(self) -> None:
        # Of the torrent: the session's would not count for addresses of a local network.
        self.handle.set_download_limit(int(self.rate) or -1)
        self.handle.set_upload_limit(int(self.rate) or -1)

    def turn(self) -> bool:
        """Hear, connect, go on to the next state, tell; whether this is over."""
        for said in self.caller.lines():
            if "rate" in said and said["rate"] != self.rate:
                self.rate = said["rate"]
                self._limit()
            if said.get("stop"):
                return True
        if self.caller.gone:
            raise ActionError("nobody is there any more who asked for this.")
        for alert in self.session.pop_alerts():
            self._hear(alert)
        if self.fault:
            raise ActionError(self.fault)
        now, status, state = time.monotonic(), self.handle.status(), self.state
        if now - self.tried > _CONNECT_S:
            self.tried = now
            self._connect()
        if state == "receiving" and status.is_finished and status.total_wanted:
            self._save(status)
            self._verify()
        elif state == "verifying" and self.checked is not None:
            self._verified()
        elif state == "placing" and not self.placing:
            self._place()
        if now - self.saved > _SAVE_S and state == "receiving":
            self.saved = now
            self._save(status)
        if now - self.told > 1.0 or state != self.state:
            self.told = now
            self._tell(status)
        return False

    def _hear(self, alert: Any) -> None:
        lt = self.lt
        if isinstance(alert, lt.file_renamed_alert):
            self.placing.pop(int(alert.index), None)
        elif isinstance(alert, lt.file_rename_failed_alert):
            self.fault = f"a file cannot get its place: {alert.message()}"
        elif isinstance(alert, lt.file_error_alert):
            self.fault = f"a file cannot be written or read: {alert.message()}"
        elif isinstance(alert, lt.torrent_error_alert):
            self.fault = alert.message()

    def _connect(self) -> None:
        there = {peer.ip[0] for peer in self.handle.get_peer_info()}
        for address, port in self.peers:
            if address not in there:
                self.handle.connect_peer((address, port))

    def _verify(self) -> None:
        """Hash what has arrived, whole, against the manifest, while others get it from here."""
        self.state, self.hashed = "verifying", 0
        lacking = {name: self.files[name] for name in self.lacks}

        def work() -> None:
            self.checked = folder.wrong(self.staging, lacking, self._passed)

        threading.Thread(target=work, daemon=True).start()

    def _passed(self, count: int) -> None:
        self.hashed += count

    def _verified(self) -> None:
        bad, self.checked = self.checked, None
        if bad:  # what lies on the disk is not what was written: read all again, fetch that anew
            tell(at="damaged", files=bad)
            self.state = "receiving"
            self.handle.force_recheck()
        elif not self.given["place"]:
            self.state = "has it"
        else:
            self.state = "placing"
            folder.clear_way(self.dir, self.files, self.lacks, self.given["replace"])
            self.late = [name for name in self.lacks if name in folder.LAST]
            self._rename([name for name in self.lacks if name not in self.late])

    def _rename(self, names: list[str]) -> None:
        """libtorrent moves the files itself: it goes on giving them."""
        numbers = {name: index for index, name in self._names().items()}
        self.placing = {numbers[name]: name for name in names}
        for index, name in self.placing.items():
            self.handle.rename_file(index, str(self.dir / name))

    def _place(self) -> None:
        if self.late:
            names, self.late = self.late, []
            self._rename(names)
            return
        folder.placed(self.dir, self.files, self.given["work_dir"])
        self.state = "has it"

    def _save(self, status: Any) -> None:
        pieces = [index for index, there in enumerate(status.pieces) if there]
        folder.remember(self.staging, self.files, pieces, self.info.num_pieces())

    def _tell(self, status: Any) -> None:
        states, state = status.states, self.state
        if status.state in (states.checking_files, states.checking_resume_data):
            state = "comparing"
        tell(
            at=state,
            done=int(status.total_wanted_done),
            total=int(status.total_wanted),
            part=float(status.progress) if state == "comparing" else 0,
            down=int(status.download_payload_rate),
            up=int(status.upload_payload_rate),
            peers=len({peer.ip[0] for peer in self.handle.get_peer_info()}),
            hashed=self.hashed,
            **self.sums(),
        )

    def sums(self) -> dict[str, Any]:
        """Bytes of content that went out and came in."""
        if self.handle is not None:
            status = self.handle.status()
            self.last = {"sent": status.total_payload_upload, "got": status.total_payload_download}
        return self.last

    def end(self) -> None:
        """Nothing listens after this."""
        if self.handle is not None:
            self.sums()
            if self.state == "receiving":
                self.handle.pause()
                self._save(self.handle.status())
        self.handle = None
        self.session = None  # its end waits until all is closed
