"""Ranks, devices and the meeting of all data-parallel ranks."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from vllm.twin.log import Fault, say

_VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
_WORKER = '  File "/workspace/omniinfer/omni/adaptors/vllm/worker/npu_worker.py", line 108, in'
_CORE = '  File "/workspace/omniinfer/infer_engines/vllm/vllm/v1/engine/core.py", line'


@dataclass(frozen=True)
class Parallel:
    """config.py, ParallelConfig.__post_init__: with data-parallel size 1 in the words, what the
    variables VLLM_DP_* say holds (envs.py has their defaults).
    """

    tp: int
    size: int
    rank: int
    local: int
    master_ip: str
    master_port: int


def parallel(values: Any, env: Mapping[str, str]) -> Parallel:
    """What words and variables make of it."""
    dp, local = values.data_parallel_size, values.data_parallel_size_local
    if local is not None and local > dp:
        raise Fault(
            f"ValueError: data_parallel_size_local ({local}) must be <= data_parallel_size ({dp})",
            where="config.py:1815",
        )
    if dp > 1:
        # Several engines behind one API server: omni-infer starts one server per rank instead.
        raise Fault("RuntimeError: the twin has no data parallelism inside of one API server")
    rank = int(env.get("VLLM_DP_RANK", "0"))
    return Parallel(
        values.tensor_parallel_size,
        int(env.get("VLLM_DP_SIZE", "1")),
        rank,
        int(env.get("VLLM_DP_RANK_LOCAL", str(rank))),
        env.get("VLLM_DP_MASTER_IP", "127.0.0.1"),
        int(env.get("VLLM_DP_MASTER_PORT", "0")),
    )


def present() -> list[int]:
    """NPUs of this container: their device nodes, as CANN's runtime counts them."""
    # TWIN_DEV: where tests have these files on a machine without NPUs.
    place = Path(os.environ.get("TWIN_DEV", "/dev"))
    names = [node.name[len("davinci") :] for node in place.glob("davinci[0-9]*")]
    return sorted(int(name) for name in names if name.isdigit())


def claim(par: Parallel, env: Mapping[str, str], offset: int, locals_: int) -> list[int]:
    """Numbers of the NPUs of locals_ workers of one host, as physical devices.

    v1/engine/core.py, DPEngineCoreProc._init_data_parallel: with several ranks a list that is set
    is cut by VLLM_DP_RANK_LOCAL (platforms/interface.py, device_id_to_physical_device_id).
    omni/adaptors/vllm/worker/npu_worker.py, NPUWorker.__init__: the worker's device is
    local_rank + VLLM_DP_RANK_LOCAL * tp - SERVER_OFFSET, counted in what the process sees.
    """
    there = present()
    listed: Optional[list[str]] = env[_VISIBLE].split(",") if _VISIBLE in env else None
    if listed == [""]:
        raise Fault(
            f"RuntimeError: {_VISIBLE} is set to empty string, which means current platform"
            " support is disabled."
        )
    if par.size > 1 or par.rank > 0:
        if not (par.size > 1 and 0 <= par.local <= par.rank < par.size):
            raise Fault(
                "AssertionError",
                f"{_CORE} 701, in _init_data_parallel",
                "    assert 0 <= local_dp_rank <= dp_rank < dp_size",
            )
        if listed is not None:
            first = par.local * par.tp
            cut = listed[first : first + par.tp]
            if len(cut) < par.tp:
                raise Fault(
                    "IndexError: list index out of range",
                    f"{_CORE} 707, in _init_data_parallel",
                    "    str(current_platform.device_id_to_physical_device_id(i))",
                    "    physical_device_id = device_ids[device_id]",
                )
            listed = cut
    seen = there if listed is None else _visible(listed, there)
    if not seen:
        raise no_device()
    return [_device(worker + par.local * par.tp - offset, seen) for worker in range(locals_)]


def no_device() -> Fault:
    """What CANN says where a process sees none."""
    return Fault(
        "RuntimeError: init:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:292 NPU function"
        " error: aclrtGetDeviceCount(&device_count), error code is 207004\n"
        "[Error]: The device is unavailable."
    )


def _visible(listed: list[str], there: list[int]) -> list[int]:
    """Ids that do not exist are dropped without a word, with all that follow them."""
    seen = []
    for word in listed:
        if not word.strip().isdigit() or int(word) not in there:
            break
        seen.append(int(word))
    return seen


def _device(number: int, seen: list[int]) -> int:
    if number < 0:
        # c10/core/Device.cpp: a device string has no minus.
        raise Fault(
            f"RuntimeError: Invalid device string: 'npu:{number}'",
            f"{_WORKER} init_device",
            '    self.device = torch.device(f"{current_platform.device_type}:{self.local_rank}")',
        )
    if number >= len(seen):
        raise Fault(
            "RuntimeError: SetDevice:torch_npu/csrc/core/npu/NPUFunctions.cpp:160 NPU function"
            " error: c10_npu::SetDevice(device), error code is 107001\n"
            "[Error]: Invalid device ID.\n"
            "        Check whether the device ID is valid.\n"
            f"EE1001: The argument is invalid.Reason: Set device failed, invalid device, input"
            f" device={number}, valid device range is [0, {len(seen)})",
            f"{_WORKER} init_device",
            "    NPUPlatform.set_device(self.device)",
        )
    return seen[number]


def addresses() -> set[str]:
    """This host's own IPv4 addresses, from the kernel's table of routes to itself."""
    found, before = set(), ""
    for line in Path("/proc/net/fib_trie").read_text().splitlines():
        if "/32 host LOCAL" in line:
            found.add(before.split()[-1])
        before = line
    return found


def interface_exists(name: str) -> bool:
    """Whether the kernel knows it."""
    return name in {known for _, known in socket.if_nameindex()}


class Group:
    """The store at the master: nobody goes on before all ranks are there.

    config.py, ParallelConfig.stateless_init_dp_group -> distributed/utils.py: rank 0 listens at
    VLLM_DP_MASTER_PORT on all its addresses (torch's TCPStore), the others come to
    VLLM_DP_MASTER_IP. The store counts who joins; then Gloo connects every rank with every other
    and waits for one that is missing. The time limit is Gloo's, half an hour, by a variable less.
    When a rank ends, the connections of the others break: they end too.
    """

    def __init__(self, par: Parallel, limit_s: float) -> None:
        self.par = par
        self.limit_s = limit_s
        self.held: list[socket.socket] = []

    def meet(self) -> None:
        """Come together, or die of who is missing."""
        if self.par.size == 1:
            return
        end = time.monotonic() + self.limit_s
        ranks = self._as_guest(end) if self.par.rank else self._as_master(end)
        expected = [[rank, self.par.size] for rank in range(self.par.size)]
        if sorted(ranks) != expected:
            time.sleep(max(0.0, end - time.monotonic()))
            raise _no_mesh()
        say("parallel_state.py:1064", f"rank {self.par.rank} in world size {self.par.size}")

    def _as_master(self, end: float) -> list[list[int]]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.bind(listener, end)
        listener.listen(1024)
        self.held.append(listener)
        guests: list[tuple[socket.socket, list[int]]] = []
        while len(guests) < self.par.size - 1:
            listener.settimeout(max(0.01, end - time.monotonic()))
            try:
                guest, _ = listener.accept()
                guest.settimeout(5)
                guests.append((guest, json.loads(guest.makefile().readline())))
            except socket.timeout as error:
                raise Fault(
                    f"torch.distributed.DistStoreError: Timed out after {self.limit_s:.0f} seconds"
                    f" waiting for clients. {len(guests) + 1}/{self.par.size} clients joined."
                ) from error
            except ValueError:
                continue  # somebody who only looked whether the port is open
        ranks = [[0, self.par.size], *(told for _, told in guests)]
        for guest, _ in guests:
            guest.sendall(json.dumps(ranks).encode() + b"\n")
            guest.settimeout(None)
            self.held.append(guest)
        listener.settimeout(None)
        return ranks

    def bind(self, listener: socket.socket, end: float) -> None:
        """Rank 0's place; raises Fault."""
        port = self.par.master_port
        try:
            listener.bind(("", port))
        except OSError as error:
            raise Fault(
                "torch.distributed.DistNetworkError: The server socket has failed to listen on any"
                f" local network address. port: {port}, useIpv6: 0, code: -98, name: EADDRINUSE,"
                " message: address already in use"
            ) from error
        if self.par.master_ip not in addresses():
            # Rank 0 is also a client of its own store, by the address that all were told.
            raise self.unreachable(end)

    def _as_guest(self, end: float) -> list[list[int]]:
        place = (self.par.master_ip, self.par.master_port)
        while True:
            try:
                store = socket.create_connection(place, timeout=2)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise self.unreachable(end) from error
                time.sleep(0.05)
        store.sendall(json.dumps([self.par.rank, self.par.size]).encode() + b"\n")
        store.settimeout(max(0.01, end - time.monotonic()))
        try:
            line = store.makefile().readline()
        except OSError:
            line = ""
        if not line:
            time.sleep(max(0.0, end - time.monotonic()))
            raise _no_mesh()
        store.settimeout(None)
        self.held.append(store)
        return [list(pair) for pair in json.loads(line)]

    def unreachable(self, end: float) -> Fault:
        """What a rank dies of that does not find rank 0, at the end of its patience."""
        time.sleep(max(0.0, end - time.monotonic()))
        return Fault(
            "torch.distributed.DistNetworkError: The client socket has timed out after"
            f" {self.limit_s * 1000:.0f}ms while trying to connect to"
            f" ({self.par.master_ip}, {self.par.master_port})."
        )

    def watch(self) -> None:
        """End when a connection of the group breaks, as every step of all ranks needs all."""
        for peer in self.held:
            if peer.family == socket.AF_INET and _connected(peer):
                threading.Thread(target=self._watch_one, args=(peer,), daemon=True).start()

    def _watch_one(self, peer: socket.socket) -> None:
        try:
            left = peer.recv(1)
        except OSError:
            left = b""
        if not left:
            say("core.py:502", "EngineCore encountered a fatal error.", "ERROR")
            say(
                "core.py:502",
                "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection"
                " closed by peer",
                "ERROR",
            )
            os._exit(1)


def _no_mesh() -> Fault:
    return Fault(
        "RuntimeError: Gloo connectFullMesh failed with"
        " [../third_party/gloo/gloo/transport/tcp/pair.h:311] Connect timeout [none]",
        f"{_CORE} 712, in _init_data_parallel",
        "    self.dp_group = vllm_config.parallel_config.stateless_init_dp_group()",
    )


def _connected(peer: socket.socket) -> bool:
    try:
        peer.getpeername()
    except OSError:
        return False
    return True
