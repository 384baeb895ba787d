"""From what the hosts show to what is wrong with them. Pure.

A look is one host's answer to the job "symptoms" (omnikit.host_symptoms).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping, Optional

from omnikit import doctor_logs
from omnikit.doctor_findings import CERTAIN, LIKELY, POSSIBLE, Finding, known

Look = Mapping[str, Any]
_SIGTERM = (-15, 143)
_KILLED = (-9, 137)
_KERNEL_TIME = re.compile(r"^\[\s*(\d+\.\d+)\]")
_KERNEL_PID = re.compile(r"Killed process (\d+)")


@dataclass(frozen=True)
class Limits:
    """kv_high: share of the KV cache that nothing running should hold. quiet_s: a log that does not
    move for so long stands still. look_again_s: between two looks at a suspicious load.
    disk_free_mib: less is nearly full. tail_bytes: of logs that are read.
    """

    kv_high: float
    quiet_s: float
    look_again_s: float
    disk_free_mib: int
    tail_bytes: int
    clock_skew_s: float


def machine(host: str, look: Look, limits: Limits) -> list[Finding]:
    """Disks, the lock and restarts of one host."""
    on = f"host {host}"
    found = []
    for disk in look["machine"]["disks"]:
        place = f"{disk['path']} ({', '.join(disk['what'])})"
        if disk["no_inodes"]:
            found.append(known("disk-full", CERTAIN, on, f"{place}: no inodes left"))
        elif disk["free_mib"] < min(limits.disk_free_mib, disk["total_mib"] // 20 + 1):
            sure = CERTAIN if disk["free_mib"] == 0 else LIKELY
            text = f"{place}: {disk['free_mib']} MiB free of {disk['total_mib']} MiB"
            found.append(known("disk-full", sure, on, text))
    lock = look["machine"]["lock"]
    if lock:
        minutes = lock["age_s"] / 60
        text = f"{lock['owner']} is changing this host: {lock['what']}, for {minutes:.0f} min"
        found.append(known("being-changed", POSSIBLE, on, text))
    return found


def clock(
    host: str, sent_at: float, got_at: float, their_time: float, limits: Limits
) -> list[Finding]:
    """The host's clock against this machine's; sent_at and got_at: when it was asked and answered.

    What the way there and back took is not held against it.
    """
    ahead, behind = their_time - got_at, sent_at - their_time
    if max(ahead, behind) <= limits.clock_skew_s:
        return []
    which, by = ("ahead", ahead) if ahead > behind else ("behind", behind)
    text = f"its clock is {by:.0f} s {which} of this machine's"
    return [known("clock-skew", POSSIBLE, f"host {host}", text)]


def nodes(
    host: str, look: Look, planned: Mapping[str, Optional[str]], limits: Limits
) -> list[Finding]:
    """States of one host's nodes. planned: digests of what the configuration now wants, by node;
    None where that is not known.
    """
    found: list[Finding] = []
    there = {node["node"]: node for node in look["nodes"]}
    for name, digest in planned.items():
        node = there.get(name)
        on = f"{name} on {host}"
        if node is None or node["state"] == "stopped":
            found += _stopped(on, name, node, look)
        else:
            found += _failed(on, node, look) + list(_slow(on, node, look, limits))
            found += _pending(on, node, digest)
    for name in there.keys() - planned.keys():
        if there[name]["state"] in ("ready", "starting"):
            text = (
                f"{name} runs with other settings than the configuration now has: it has no {name}"
            )
            found.append(known("deploy-pending", POSSIBLE, f"{name} on {host}", text))
    return found


def _stopped(on: str, name: str, node: Optional[Look], look: Look) -> list[Finding]:
    if node is not None and node["rebooted"]:
        booted = time.strftime(
            "%Y-%m-%d %H:%M:%S", time.localtime(look["time"] - look["machine"]["up_s"])
        )
        text = f"the host was restarted at {booted}, after {name} was started"
        return [known("host-rebooted", CERTAIN, on, text)]
    text = f"{name} is planned but does not run"
    if not look["deployed"]:
        text += "; nothing was deployed on this host"
    return [known("not-running", CERTAIN, on, text)]


def _failed(on: str, node: Look, look: Look) -> list[Finding]:
    """Why a node failed: the server that ended first tells; the others were ended because of it."""
    dead = [server for server in node["servers"] if server["state"] == "failed"]
    if not dead:
        return []
    of_itself = [server for server in dead if server["exit"] not in _SIGTERM] or dead
    first = min(of_itself, key=lambda server: server.get("ended_at") or float("inf"))
    how = node["reason"] or first.get("reason") or _end(first)
    killed = _killed(first, node, look)
    if killed:
        return [known("killed-for-memory", CERTAIN, f"{first['name']}, {on}", killed, how)]
    return doctor_logs.explain(
        on if first["name"] == node["node"] else f"{first['name']}, {on}", first, how
    )


def _end(server: Look) -> str:
    end = server["exit"]
    if end is None:
        return f"{server['name']} does not run any more"
    return f"{server['name']} ended with exit status {end}"


def _killed(server: Look, node: Look, look: Look) -> Optional[str]:
    """The kernel's line about the memory that ran out while a killed server ran."""
    if server["exit"] not in _KILLED:
        return None
    begun = look["machine"]["up_s"] - (look["time"] - (node["started_at"] or look["time"]))
    for line in look["machine"]["killed"] or []:
        at = _KERNEL_TIME.match(line)
        if at and float(at.group(1)) >= begun and _KERNEL_PID.search(line):
            return f"the kernel says: {line.strip()}"
    return None


def _slow(on: str, node: Look, look: Look, limits: Limits) -> Iterator[Finding]:
    """A start that stands still."""
    if node["state"] != "starting":
        return
    for server in node["servers"]:
        end = server["log_end"]
        taken = look["time"] - (node["started_at"] or look["time"])
        if server["state"] != "starting" or taken < limits.quiet_s:
            continue
        age = end.get("age_s", taken)
        if age < limits.quiet_s:
            continue
        text = (
            f"{server['name']} is not ready after {taken:.0f} s and its log has not moved for"
            f" {age:.0f} s ({server['log']}, {len(end.get('lines', []))} last lines read)"
        )
        told = doctor_logs.mentions(on, server, LIKELY)
        yield from told
        shown = tuple(str(line)[:300] for line in end.get("lines", [])[-8:])
        silent = known("log-silent", LIKELY if not told else POSSIBLE, on, text)
        yield replace(silent, lines=() if told else shown)


def _pending(on: str, node: Look, wanted: Optional[str]) -> list[Finding]:
    """What runs is not what the configuration says now."""
    name, runs, sent = node["node"], node["digest"], node["sent_digest"]
    if wanted is not None and runs != wanted:
        text = f"{name} runs with other settings than the configuration now has"
    elif runs != sent:
        text = f"{name}: a change was sent but not started"
    else:
        return []
    return [known("deploy-pending", POSSIBLE, on, text)]


def starting(host: str, look: Look) -> list[str]:
    """Notes about what is on its way, which is nothing wrong yet."""
    return [
        f"{node['node']} on {host} is starting for {look['time'] - node['started_at']:.0f} s"
        for node in look["nodes"]
        if node["state"] == "starting" and node["started_at"]
    ]


def suspicious(look: Look, limits: Limits) -> set[str]:
    """Servers whose load needs a second look."""
    return {
        server["name"]
        for node in look["nodes"]
        for server in node["servers"]
        if _stuck(server, limits) or _hangs(server)
    }


def _stuck(server: Look, limits: Limits) -> bool:
    idle = server.get("running") == 0 and not server.get("waiting")
    return idle and (server.get("kv_usage") or 0.0) >= limits.kv_high


def _hangs(server: Look) -> bool:
    return server.get("running") == 0 and (server.get("waiting") or 0) > 0


def load(host: str, first: Look, second: Look, limits: Limits) -> list[Finding]:
    """KV that nobody fetches, and requests that nobody computes, in both looks."""
    before = {s["name"]: s for node in first["nodes"] for s in node["servers"]}
    found = []
    for node in second["nodes"]:
        for now in node["servers"]:
            then = before.get(now["name"], {})
            on = f"{now['name']} on {host}"
            over = f"in two looks {limits.look_again_s:g} s apart"
            if _stuck(now, limits) and _stuck(then, limits):
                text = f"its KV cache is {now['kv_usage']:.1%} used with nothing running, {over}"
                found.append(known("kv-stuck", LIKELY, on, text))
                found += doctor_logs.mentions(on, now)
            elif _hangs(now) and _hangs(then):
                many = f"{now['waiting']:g} requests wait and none runs"
                usage = now.get("kv_usage")
                if usage is not None:
                    many += f", KV cache {usage:.1%} used"
                found.append(known("requests-hang", LIKELY, on, f"{many}, {over}"))
                found += doctor_logs.mentions(on, now)
    return found
