"""Whether this host reaches the others: their SSH servers, and their accelerators from its own.

Standard library only: this module runs on the hosts. It changes nothing.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hostkit.base import health, run
from hostkit.base.errors import ToolkitError

_LOSS = re.compile(r"(\d+) packets transmitted, (\d+) received, ([\d.]+)% packet loss")
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def reach(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "reach": try all peers and device addresses, at_once at the same time.

    parameters: peers [[name, address, SSH port]...], pings [[own device, address of another]...],
    hccn_tool, timeout_s (each), interval_s (before a busy tool is asked again), at_once.
    """
    pinger = _Pinger(parameters)
    with ThreadPoolExecutor(max_workers=parameters["at_once"]) as pool:
        peers = [
            pool.submit(reach_port, name, address, port, parameters["timeout_s"])
            for name, address, port in parameters["peers"]
        ]
        pings = [pool.submit(pinger.ping, device, ip) for device, ip in parameters["pings"]]
        return {
            "reached": [future.result() for future in peers],
            "pings": [future.result() for future in pings],
        }


def reach_port(name: str, address: str, port: int, timeout_s: float) -> dict[str, Any]:
    """Connect to an SSH server and read its greeting.

    state: ok, refused (the machine answers, no SSH server does) or silent (nothing answers).
    """
    started = time.monotonic()
    state, found = _greeting(address, port, timeout_s)
    return {
        "name": name,
        "address": address,
        "port": port,
        "ok": state == "ok",
        "state": state,
        "found": found,
        "ms": round((time.monotonic() - started) * 1000, 1),
    }


def _greeting(address: str, port: int, timeout_s: float) -> tuple[str, str]:
    try:
        connection = socket.create_connection((address, port), timeout_s)
    except ConnectionRefusedError:
        return "refused", "connection refused"
    except socket.timeout:
        return "silent", f"no answer within {timeout_s:g} s"
    except OSError as error:
        if error.errno in _UNREACHABLE:
            return "silent", "no route to this host"
        return "silent", (error.strerror or str(error)).lower()
    with connection:
        try:
            said = connection.recv(256).decode("ascii", "replace").split("\n")[0].strip()
        except OSError as error:
            why = "nothing" if isinstance(error, socket.timeout) else (error.strerror or "").lower()
            return "refused", f"connected, but it is no SSH server: it says {why}"
    if not said.startswith("SSH-"):
        return "refused", f"connected, but it is no SSH server: it says {said[:40]!r}"
    return "ok", said


class _Pinger:
    """Pings from device to device. hccn_tool may refuse to work for two at a time: then in turn."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._tool = parameters.get("hccn_tool", "")
        self._timeout_s = parameters["timeout_s"]
        self._interval_s = parameters["interval_s"]
        self._alone = threading.Lock()

    def ping(self, device: int, address: str) -> dict[str, Any]:
        """One ping; it does not raise."""
        ok, found = self._try(device, address)
        if "is busy" in found:
            with self._alone:
                answers = [(ok, found)]

                def idle() -> bool:
                    answers.append(self._try(device, address))
                    return "is busy" not in answers[-1][1]

                health.wait_until(idle, self._timeout_s, self._interval_s)
                ok, found = answers[-1]
        return {"device": device, "peer_ip": address, "ok": ok, "found": found}

    def _try(self, device: int, address: str) -> tuple[bool, str]:
        try:
            done = run.run(
                ping_argv(self._tool, device, address), check=False, timeout=self._timeout_s
            )
        except ToolkitError as error:
            return False, error.what
        return ping_answer(f"{done.out}\n{done.err}", done.code)


def ping_argv(tool: str, device: int, address: str) -> list[str]:
    """The command that pings an address from a device."""
    return [tool, "-i", str(device), "-ping", "-g", "address", address]


def ping_answer(said: str, code: int) -> tuple[bool, str]:
    """Whether every packet came back, and what to say about it.

    >>> ping_answer("3 packets transmitted, 3 received, 0.00% packet loss", 0)
    (True, '3 of 3 packets came back')
    """
    counted = _LOSS.search(said)
    if counted:
        sent, received, _ = counted.groups()
        return sent == received != "0", f"{received} of {sent} packets came back"
    words = " ".join(said.split())[:200]
    return False, f"hccn_tool says: {words}" if words else f"exit status {code}, no words"
