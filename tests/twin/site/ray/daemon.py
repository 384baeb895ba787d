"""`ray start`: the head, which listens, or a worker, which stays connected to it."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from typing import Any, Sequence

from vllm.twin.parallel import present

import ray

_KNOWN: list[dict[str, Any]] = []


def _devices() -> list[int]:
    """ray/_private/accelerators/npu.py: device files, or fewer where a variable says so."""
    listed = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    there = present()
    return there if listed is None else [n for n in there if str(n) in listed.split(",")]


def _serve(peer: socket.socket) -> None:
    entry = None
    try:
        with peer, peer.makefile() as lines:
            for line in lines:
                told = json.loads(line)
                if "ask" in told:
                    peer.sendall(json.dumps(_KNOWN).encode() + b"\n")
                else:
                    entry = told
                    _KNOWN.append(told)
    except (OSError, ValueError):
        pass
    finally:
        if entry is not None:
            _KNOWN.remove(entry)


def _head(port: int) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
    except OSError:
        sys.exit(
            f"ConnectionError: Ray is trying to start at :{port}, but is already running at"
            f" :{port}. Please specify a different port using the `--port` flag"
        )
    listener.listen(64)
    print("Ray runtime started.", flush=True)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=_serve, args=(peer,), daemon=True).start()


def _worker(place: tuple[str, int], own: dict[str, Any]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            head = socket.create_connection(place, timeout=5)
            break
        except OSError:
            if time.monotonic() > end:
                sys.exit(f"Failed to connect to GCS at address {place[0]}:{place[1]}")
            time.sleep(0.1)
    head.settimeout(None)
    head.sendall(json.dumps(own).encode() + b"\n")
    print("Ray runtime started.", flush=True)
    head.recv(1)  # until the head is gone
    sys.exit("The head is gone")


def main(words: Sequence[str]) -> int:
    """Command line, as far as anybody uses it."""
    made = argparse.ArgumentParser("ray")
    made.add_argument("verb", choices=["start"])
    for flag in ("--head", "--block", "--disable-usage-stats"):
        made.add_argument(flag, action="store_true")
    made.add_argument("--node-ip-address", default="127.0.0.1")
    made.add_argument("--port", type=int, default=6379)
    made.add_argument("--address")
    made.add_argument("--num-gpus", type=int)
    given = made.parse_args(words)
    own = {
        "ip": given.node_ip_address,
        "pid": os.getpid(),
        "devices": _devices(),
        "offset": os.environ.get("SERVER_OFFSET", "0"),
    }
    address = f"{given.node_ip_address}:{given.port}" if given.head else str(given.address)
    ray.ADDRESS_FILE.parent.mkdir(exist_ok=True)
    ray.ADDRESS_FILE.write_text(address)
    ray.ADDRESS_FILE.with_name("daemon.pid").write_text(str(os.getpid()))
    if given.head:
        _KNOWN.append(own)
        _head(given.port)
    host, _, port = address.rpartition(":")
    _worker((host, int(port)), own)
    return 0
