"""KV between prefill and decode: the links made at the start, and the pulls over them.

omni/accelerators/pd/llmdatadist_manager.py, register_link: every decode device links with one
device of each prefill instance, by the rank tables alone, and neither side is ready before its
links are (check_register_status). The NPUs' own network is not here: a device of prefill is reached
at a port of its instance's first host (real: at the device's own address, port 16666). What both
sides were told is held against each other at the first hand-over: the real one notices nothing and
answers wrongly or hangs (kv_parallel_size, the number of instances), or cannot link.

A prefill instance that starts anew is linked again by decode servers that run. In v0.4.1's code
nothing of decode's does that (later releases do); whether it works there nobody has tried.
"""

from __future__ import annotations

import json
import math
import select
import socket
import threading
import time
from typing import Any, Optional

from vllm.twin.log import Fault, say
from vllm.twin.rank_tables import Device, Group, Tables

_FIRST_PORT = 61000
_RETRY_S = 0.1
Told = dict[str, Any]


def prefill_rank(prefill_tp: int, decode_dp: int, rank: int) -> int:
    """omni/accelerators/pd/utils.py, get_p_start_rank, with decode TP 1 and one decode instance."""
    step = max(1, math.ceil(prefill_tp / decode_dp))
    return (rank * step) % prefill_tp


def place(group: Group, device: Device) -> tuple[str, int]:
    """Where a device of prefill is reached. Instances on one host have devices of their own."""
    return group.host_ip, _FIRST_PORT + group.devices[0].id + device.rank


class Kept:
    """What prefill keeps until decode has pulled it, and the ports it gives it at."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.kept: dict[str, str] = {}
        self.lock = threading.Lock()
        self.linked: set[int] = set()
        self.listeners: list[socket.socket] = []

    def listen(self, address: tuple[str, int]) -> None:
        """Give it at one more port; raises OSError where that is taken."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(256)
        threading.Thread(target=self._accept, args=(made,), daemon=True).start()
        self.listeners.append(made)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        rank = None
        try:
            with peer, peer.makefile("rw") as lines:
                for line in lines:
                    asked = json.loads(line)
                    if "link" in asked:
                        rank = int(asked["link"])
                        self.linked.add(rank)
                        answer: Any = self.told
                    elif "free" in asked:
                        answer = None
                        self.free(asked["free"])
                    else:
                        with self.lock:
                            answer = self.kept.get(asked["pull"])
                    lines.write(json.dumps(answer) + "\n")
                    lines.flush()
        except (OSError, ValueError):
            pass
        finally:
            self.linked.discard(rank or 0)

    def keep(self, request: str, prompt: str) -> None:
        """Keep the KV of a prompt."""
        with self.lock:
            self.kept[request] = prompt

    def free(self, request: str) -> None:
        """Decode has it."""
        with self.lock:
            self.kept.pop(request, None)


class PrefillLinks(Kept):
    """The prefill side, by the rank tables."""

    def __init__(self, tables: Tables, told: Told) -> None:
        super().__init__(told)
        self.tables = tables
        for device in tables.own.devices:
            address = place(tables.own, device)
            try:
                self.listen(address)
            except OSError as error:
                raise Fault(
                    "RuntimeError: HcclCommInitClusterInfoConfig failed\n"
                    "EJ0001: Failed to initialize the HCCP process. Reason: the device"
                    f" {address[1] - _FIRST_PORT} is used by another process"
                ) from error

    def wait(self) -> None:
        """Until every decode device is linked."""
        wanted = {device.rank for group in self.tables.decode for device in group.devices}
        while not wanted <= self.linked:
            time.sleep(_RETRY_S)
        say("llmdatadist_manager.py:312", f"{len(wanted)} links are up")


class Link:
    """One decode rank's way to a device of prefill, found again when that starts anew."""

    def __init__(self, address: tuple[str, int], rank: int, lost: str) -> None:
        self.address, self.rank, self.lost = address, rank, lost
        self.lock = threading.Lock()
        self.peer: Optional[socket.socket] = None
        self.told: Told = {}

    def up(self) -> bool:
        """Connect if that can be done now."""
        with self.lock:
            if self.peer is not None and select.select([self.peer], [], [], 0)[0]:
                self.peer = None  # nothing was asked: the other side has closed it
            return self.peer is not None or self._connect()

    def _connect(self) -> bool:
        try:
            self.peer = socket.create_connection(self.address, timeout=2)
            self.peer.settimeout(20)  # sync_kv_timeout, 20 s
            self.told = self._ask({"link": self.rank})
        except (OSError, ValueError):
            self.peer = None
            return False
        return True

    def _ask(self, question: Any) -> Any:
        assert self.peer is not None
        self.peer.sendall(json.dumps(question).encode() + b"\n")
        line = self.peer.makefile().readline()
        if not line:
            raise OSError("the link is closed")
        return json.loads(line)

    def pull(self, request: str) -> Optional[str]:
        """The prompt whose KV prefill keeps under that request; raises OSError."""
        with self.lock:
            for _ in range(2):  # the second time after a new connection
                try:
                    if self.peer is None and not self._connect():
                        break
                    found = self._ask({"pull": request})
                    return None if found is None else str(found)
                except (OSError, ValueError):
                    self.peer = None
        raise OSError(self.lost)

    def free(self, request: str) -> None:
        """Tell prefill that its KV is here."""
        with self.lock:
            self._ask({"free": request})

    def differences(self, told: Told, words: str) -> None:
        """Raise OSError where prefill was told something else than this side."""
        different = [name for name in told if told[name] != self.told.get(name)]
        if different:
            raise OSError(
                f"{words}: "
                + ", ".join(
                    f"{name} is {self.told.get(name)} in prefill and {told[name]} in decode"
                    for name in different
                )
            )


def _link(group: Group, rank: int, decode_dp: int) -> Link:
    device = group.devices[prefill_rank(len(group.devices), decode_dp, rank)]
    lost = f"[link] failed, error code is LLMStatusCode.LLM_LINK_FAILED, {{{group.cluster}: 0}}"
    return Link(place(group, device), rank, lost)


class DecodeLinks:
    """The decode side of one rank."""

    def __init__(self, tables: Tables, rank: int, told: Told) -> None:
        self.told = told
        devices = tables.own.devices
        if rank >= len(devices):
            raise Fault("IndexError: list index out of range in the rank table's devices")
        self.links = {group.cluster: _link(group, rank, len(devices)) for group in tables.prefill}

    def wait(self) -> None:
        """Until all are up."""
        waiting = list(self.links.values())
        while waiting:
            waiting = [link for link in waiting if not link.up()]
            if waiting:
                time.sleep(_RETRY_S)
        say("llmdatadist_manager.py:312", f"{len(self.links)} links are up")
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while True:
            time.sleep(1.0)
            for link in self.links.values():
                link.up()

    def pull(self, params: Told) -> str:
        """What kv_transfer_params of a request stand for; raises OSError with the real text."""
        link = self.links.get(params["remote_cluster_id"])
        if link is None:
            raise OSError(
                "Could not find remote cluster id from"
                f" meta.remote_cluster_id={params['remote_cluster_id']}"
            )
        found = link.pull(params["remote_request_id"])
        link.differences(self.told, link.lost)
        if found is None:
            raise OSError(f"no KV of request {params['remote_request_id']}")
        self._tell(params)
        return found

    def _tell(self, params: Told) -> None:
        """To prefill's control port: it may free its blocks (real: a ZMQ PUSH socket)."""
        host, _, port = params["remote_host_ip"][len("tcp://") :].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as peer:
            peer.sendall(json.dumps([params["remote_request_id"]]).encode() + b"\n")
