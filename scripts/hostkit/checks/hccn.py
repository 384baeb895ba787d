"""The NPUs' own network ports, with hccn_tool: address, link, TLS switch; and job "reach", whether
this host reaches the others: their SSH servers, and their accelerators from its own.

Changes nothing.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional

from hostkit.base import health, run
from hostkit.base.errors import ToolkitError
from hostkit.base.log import some
from hostkit.checks.base import Group, one_line, within
from hostkit.checks.devices import missing_tool
from hostkit.ranks import device_facts, device_query
from hostkit.ranks.device_query import HCCN_CONF, NoAnswer, Tools

_LINK = re.compile(r"link status\s*:\s*(\S+)", re.IGNORECASE)
_TLS = re.compile(r"tls switch\s*\[\s*([01])\s*\]", re.IGNORECASE)


def look(group: Group) -> None:
    """All checks of the devices' ports; one that hangs ends them."""
    if group.given["device_kind"] != "npu" or not group.given["devices"]:
        return
    tool, source = group.given["ranktable"]["hccn_tool"], group.given["ranktable"]["source"]
    without = source == HCCN_CONF
    missing = not without and missing_tool(group, "npu.hccn_tool", "ranktable.hccn_tool", tool)
    hangs = _addresses(group)
    if without or missing or hangs:
        return
    if _each(group, "npu.link", "links of the devices", "-link", link, _links):
        _each(group, "npu.tls", "TLS switch of the devices", "-tls", tls_switch, _switches)


def _tools(group: Group) -> Tools:
    given = group.given["ranktable"]
    return Tools(
        hccn_tool=given["hccn_tool"],
        hccn_conf=group.path(given["hccn_conf"]),
        npu_smi=given["npu_smi"],
        ip=given["ip"],
        timeout_s=group.timeout_s,
        interval_s=given["interval_s"],
        address=given["device_address"],
    )


def _addresses(group: Group) -> bool:
    """Every device's address; whether the tool hangs."""
    tools, source = _tools(group), group.given["ranktable"]["source"]
    found: dict[str, str] = {}
    problems: list[str] = []
    hangs = False
    for device in group.given["devices"]:
        try:
            answer = _address(group, tools, device, source)
        except NoAnswer as error:
            problems, hangs = [one_line(error.what)], True
            break
        except ToolkitError as error:
            problems.append(one_line(error.what))
            continue
        found[str(device)] = answer
        problem = device_facts.address_problem(answer)
        if problem:
            problems.append(f"the address of device {device} {problem}")
        elif list(found.values()).count(answer) > 1:
            problems.append(f"device {device} has the address {answer} of another device")
    group.facts["device_ips"] = found
    group.add(
        *("npu.address", "addresses of the devices", not problems),
        found=some(problems, 4, "; ") if problems else _span(list(found.values())),
        needed="an address of its own for each planned device",
        todo="cat /etc/hccn.conf; hccn_tool -i DEVICE -ip -g; set a missing one: hccn_tool -i"
        " DEVICE -ip -s address ADDRESS netmask MASK"
        if tools.address == "ip"
        else "npu-smi info -t spod-info -i CARD -c CHIP; outside of a super pod set"
        " ranktable.device_address: ip and ranktable.device_ping: ping",
        required=bool(group.given["disaggregated"] or group.given["peers"]),
    )
    return hangs


def _address(group: Group, tools: Tools, device: int, source: str) -> str:
    what = f"{tools.hccn_tool} -i {device} -{tools.address} -g"

    def ask() -> str:
        answers, _ = device_query.device_addresses(
            [device], tools, source=source, host=group.given["host"]
        )
        return answers[device].address

    # A busy tool is asked again for timeout_s, and the last answer may take as long.
    return within(2 * group.timeout_s, what, ask)


def _span(addresses: list[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"{addresses[0]} to {addresses[-1]}"


def link(said: str) -> Optional[str]:
    """UP or DOWN, from `hccn_tool -i N -link -g`; None when it says neither.

    >>> link("link status: UP")
    'UP'
    """
    found = _LINK.search(said)
    return found.group(1).upper() if found else None


def tls_switch(said: str) -> Optional[str]:
    """on or off, from `hccn_tool -i N -tls -g`; None when it says neither.

    >>> tls_switch("dev_id:0, tls switch[0](0:disable, 1:enable), tls alarm time threshold[60]days")
    'off'
    """
    found = _TLS.search(said)
    if found:
        return "on" if found.group(1) == "1" else "off"
    return "off" if "no certificate found" in said.lower() else None


def _each(
    group: Group,
    name: str,
    title: str,
    option: str,
    read: Callable[[str], Optional[str]],
    judge: Callable[[Group, dict[int, str]], None],
) -> bool:
    """Ask about each device and judge the answers; False when the tool hangs."""
    found: dict[int, str] = {}
    problems = []
    for device in group.given["devices"]:
        argv = [group.given["ranktable"]["hccn_tool"], "-i", str(device), option, "-g"]
        try:
            said = _patiently(group, argv)
        except ToolkitError as error:
            group.error(name, title, error, needed="an answer for each device", todo=_TOOL_TODO)
            return False
        state = read(said)
        if state is None:
            problems.append(f"device {device}: {one_line(said) or 'hccn_tool says nothing'}")
        else:
            found[device] = state
    if problems:
        group.unknown(name, title, some(problems, 3, "; "), todo=_TOOL_TODO)
    else:
        judge(group, found)
    return True


_TOOL_TODO = "npu-smi info shows the health of the device; run hccn_tool as root"


def _patiently(group: Group, argv: list[str]) -> str:
    """What the tool says, asked again while it is busy with somebody else."""
    answers = [""]

    def idle() -> bool:
        done = group.ask(*argv)
        answers.append(f"{done.out}\n{done.err}")
        return "is busy" not in answers[-1]

    health.wait_until(idle, group.timeout_s, group.given["ranktable"]["interval_s"])
    return answers[-1]


def _links(group: Group, found: dict[int, str]) -> None:
    down = [str(device) for device, state in found.items() if state != "UP"]
    group.add(
        *("npu.link", "links of the devices", not down),
        found=f"not UP: device {', '.join(down)}" if down else f"all {len(found)} are UP",
        needed="UP",
        todo=f"hccn_tool -i {down[0]} -link_stat -g; hccn_tool -i {down[0]} -optical -g;"
        " then cable, module and switch port"
        if down
        else "",
        required=bool(group.given["peers"]),
    )


def _switches(group: Group, found: dict[int, str]) -> None:
    """Whether they are equal on all hosts is for the control host to say."""
    group.facts["tls"] = {str(device): state for device, state in found.items()}
    states = sorted(set(found.values()))
    shown = [
        f"{state} on device {','.join(str(d) for d, s in found.items() if s == state)}"
        for state in states
    ]
    group.add(
        *("npu.tls", "TLS switch of the devices", len(states) == 1),
        found=states[0] if len(states) == 1 else "; ".join(shown),
        needed="the same on all devices",
        todo="hccn_tool -i DEVICE -tls -s enable 0, for each device where it is on",
    )


_LOSS = re.compile(r"(\d+) packets transmitted, (\d+) received, ([\d.]+)% packet loss")
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def reach(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "reach": try all peers and device addresses, at_once at the same time.

    parameters: peers [[name, address, SSH port]...], pings [[own device, address of another]...],
    hccn_tool and its option device_ping, timeout_s (each), interval_s (before a busy tool is asked
    again), at_once.
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
        self._option = parameters.get("device_ping", "ping")
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
                ping_argv(self._tool, device, address, self._option),
                check=False,
                timeout=self._timeout_s,
            )
        except ToolkitError as error:
            return False, error.what
        ok, found = ping_answer(f"{done.out}\n{done.err}", done.code)
        # What -hccs_ping says is not recorded: where it counts no packets, its status decides.
        other = self._option != "ping" and "packets" not in found and "is busy" not in found
        return ok or (other and done.code == 0), found


def ping_argv(tool: str, device: int, address: str, option: str = "ping") -> list[str]:
    """The command that pings an address from a device. option: ping, or hccs_ping."""
    return [tool, "-i", str(device), f"-{option}", "-g", "address", address]


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
