"""What doctor finds: from what the hosts show to what is wrong, and the remedy. Pure.

A look is one host's answer to the job "symptoms" (hostkit.logs.symptoms).
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, replace
from statistics import median
from types import MappingProxyType
from typing import Any, Iterable, Iterator, Mapping, Optional, Sequence

from omnikit.deploy import status
from omnikit.fleet import causes

# What doctor found: causes with their evidence and remedy, ordered by certainty. Pure.

# How sure it is that this is what is wrong.
CERTAIN, LIKELY, POSSIBLE, UNKNOWN = "certain", "likely", "possible", "unknown"
_ORDER = (CERTAIN, LIKELY, POSSIBLE, UNKNOWN)
_SHOWN = 4  # pieces of evidence in the text; JSON has all


@dataclass(frozen=True)
class Finding:
    """name: of the catalogue, or "unknown". on: what it concerns. lines: the end of a log, where
    the cause is not known.
    """

    name: str
    certainty: str
    on: tuple[str, ...]
    cause: str
    evidence: tuple[str, ...]
    remedy: str
    lines: tuple[str, ...] = ()


def known(name: str, certainty: str, on: str, *evidence: str) -> Finding:
    """A finding with the catalogue's words."""
    entry = causes.entry(name)
    return Finding(name, certainty, (on,), entry.cause, evidence, entry.remedy)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Equal causes as one, the most certain first; within one certainty as they came."""
    found: dict[tuple[str, str], Finding] = {}
    for one in findings:
        key = (one.name, one.name if one.name != "unknown" else " ".join(one.on))
        before = found.get(key)
        if before is None:
            found[key] = one
            continue
        surer = min(before.certainty, one.certainty, key=_ORDER.index)
        found[key] = replace(
            before,
            certainty=surer,
            on=tuple(dict.fromkeys([*before.on, *one.on])),
            evidence=tuple(dict.fromkeys([*before.evidence, *one.evidence])),
            remedy="; ".join(dict.fromkeys(f"{before.remedy}; {one.remedy}".split("; "))),
        )
    return sorted(found.values(), key=lambda one: _ORDER.index(one.certainty))


def as_text(
    environment: str, findings: Sequence[Finding], notes: Sequence[str], seen: Mapping[str, int]
) -> str:
    """For people. seen: how many hosts, servers … were looked at."""
    looked = ", ".join(_number(count, what[:-1]) for what, count in seen.items())
    said = _number(len(findings), "finding") if findings else "nothing wrong was found"
    parts = [f"{environment}: {said}" + (f" ({looked})" if looked else "")]
    parts += [_one(number, finding) for number, finding in enumerate(findings, 1)]
    parts += [f"note: {note}" for note in notes]
    return "\n\n".join(parts)


def _one(number: int, one: Finding) -> str:
    lines = [f"{number}. {one.certainty}: {one.cause}", f"   on: {_listed(one.on)}"]
    for text in one.evidence[:_SHOWN]:
        lines.append(f"   evidence: {text}")
    if len(one.evidence) > _SHOWN:
        lines.append(f"   and {len(one.evidence) - _SHOWN} more of that kind")
    if one.lines:
        lines.append("   the last lines:")
        lines += [f"     {line}" for line in one.lines]
    lines.append(f"   what to do: {one.remedy}")
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN + 2:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def as_data(
    environment: str, findings: Sequence[Finding], notes: Sequence[str], seen: Mapping[str, int]
) -> dict[str, Any]:
    """For programs."""
    return {
        "environment": environment,
        "ok": not findings,
        "findings": [asdict(one) for one in findings],
        "notes": list(notes),
        "seen": dict(seen),
    }


# What the end of a server's log says about why it died or does not get ready. Pure.

_LAST = 15  # lines of a log that are shown where nothing is known
_WIDTH = 300
# Entries that say that something further up is the cause.
_FOLLOWS = ("engine-died", "engine-ended", "npu-timeout", "kv-link")


def explain(on: str, server: Mapping[str, Any], how: str, certainty: str = LIKELY) -> list[Finding]:
    """Findings for a server with a log end: known failures, else what can be said without one.

    how: how it ended, or what it does.
    """
    lines, first, path = _log(server)
    source = causes.source_of(path)
    found = causes.matches([*lines, how], source)
    roots = [match for match in found if match.cause.name not in _FOLLOWS] or found
    if not roots:
        return [_unknown(on, server, how)]
    findings = []
    for number, match in enumerate(roots[:3]):
        evidence = [f"{path}:{first + match.index}: {_short(match.line)}"]
        if match.index >= len(lines):
            evidence = []
        findings.append(
            known(match.cause.name, certainty if number == 0 else POSSIBLE, on, *evidence, how)
        )
    return findings


def mentions(on: str, server: Mapping[str, Any], certainty: str = POSSIBLE) -> list[Finding]:
    """Known failures in the log of a server that runs; nothing when there are none."""
    lines, first, path = _log(server)
    return [
        known(m.cause.name, certainty, on, f"{path}:{first + m.index}: {_short(m.line)}")
        for m in causes.matches(lines, causes.source_of(path))
        if m.cause.name not in ("engine-ended",)
    ][:3]


def last_error(server: Mapping[str, Any]) -> Optional[str]:
    """The last line that is an error, with its place."""
    lines, first, path = _log(server)
    for number in range(len(lines) - 1, -1, -1):
        if causes.unknown(lines[number]):
            return f"{path}:{first + number}: {_short(lines[number])}"
    return None


def _log(server: Mapping[str, Any]) -> tuple[Sequence[str], int, str]:
    end = server.get("log_end") or {}
    return end.get("lines", []), end.get("first_line", 1), str(server["log"])


def _unknown(on: str, server: Mapping[str, Any], how: str) -> Finding:
    lines, _, path = _log(server)
    evidence = [how]
    missing = (server.get("log_end") or {}).get("missing")
    if missing:
        evidence.append(f"{path} cannot be read: {missing}")
    last = last_error(server)
    if last:
        evidence.append(last)
    instance = str(server["name"]).partition(".")[0]
    return Finding(
        "unknown",
        UNKNOWN,
        (on,),
        "The cause is not known: no known failure is in its log.",
        tuple(evidence),
        f"read its log: invoke logs --instance {instance} --lines 200; keep all: invoke fetch-logs",
        tuple(_short(line) for line in lines[-_LAST:]),
    )


def _short(line: str) -> str:
    line = line.strip().replace("\r", " ")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


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
        if disk.get("read_only"):
            found.append(known("disk-read-only", CERTAIN, on, f"{place} is mounted read-only"))
        elif disk["no_inodes"]:
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
            found += _again(on, node) + _failed(on, node, look)
            found += _slow(on, node, look, limits)
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


def _again(on: str, node: Look) -> list[Finding]:
    """A node that its supervisor starts again, or does not any more."""
    if node["state"] not in ("starting", "failed"):
        return []
    reason = node["reason"] or ""
    cause = causes.of_line(reason, "status")
    if cause is None or cause.name not in ("crash-loop", "restarting"):
        return []
    return [known(cause.name, CERTAIN, on, f"{node['node']}: {reason}")]


def _failed(on: str, node: Look, look: Look) -> list[Finding]:
    """Why a node failed: the server that ended first tells; the others were ended because of it."""
    dead = [server for server in node["servers"] if server["state"] == "failed"]
    for name, said in [(node["node"], node), *((server["name"], server) for server in dead)]:
        told = causes.of_line(said.get("reason") or "", "status")
        if told is not None and told.name in _OBSERVED:
            return [known(told.name, CERTAIN, on, f"{name}: {said['reason']}")]
    if not dead:
        return []
    of_itself = [server for server in dead if server["exit"] not in _SIGTERM] or dead
    first = min(of_itself, key=_order)
    how = node["reason"] or first.get("reason") or _end(first)
    killed = _killed(first, node, look)
    if killed:
        return [known("killed-for-memory", CERTAIN, f"{first['name']}, {on}", killed, how)]
    return explain(on if first["name"] == node["node"] else f"{first['name']}, {on}", first, how)


def pool(
    looks: Mapping[str, Look], services: Mapping[str, str], answers: Mapping[str, str]
) -> list[Finding]:
    """Servers that look well and that the proxy does without, or that do not answer.

    services: their names by HOST:PORT. answers: what each, asked by itself, did wrong.
    """
    where = {
        server["name"]: (f"{server['name']} on {host}", server["state"])
        for host, look in looks.items()
        for node in look["nodes"]
        for server in node["servers"]
    }
    found: dict[str, Finding] = {}
    for name, what in answers.items():
        text = f"{name} answers /health and no request: {what}"
        found[name] = known("lying-health", CERTAIN, where[name][0], text)
    for look in looks.values():
        for node in look["nodes"]:
            lines = (node.get("said") or {}).get("lines", [])
            for place in node.get("out_of_pool") or ():
                name = services.get(place, "")
                if name in found or where.get(name, ("", ""))[1] != "ready":
                    continue  # why that is, is told already
                text = f"{name} gets no requests: the proxy took it out of its pool"
                left = [one for one in lines if f"server {place} leaves the pool: " in one][-1:]
                cause = causes.likely_cause(left or [text], "status")
                kind = cause.name if cause and cause.name in _POOL else "out-of-pool"
                found[name] = known(kind, LIKELY, where[name][0], text, *map(_short, left))
    return list(found.values())


_POOL = ("lying-health", "proxy-way")
# What a state is, rather than what a log says of it.
_OBSERVED = ("supervisor-killed", "record-damaged", "process-stopped", "server-hangs", "unhealthy")


def slow(taken: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Servers that are much slower than others of their role. taken: seconds by role and name."""
    found = []
    for seconds in taken.values():
        usual = median(seconds.values()) if len(seconds) > 2 else min(seconds.values(), default=0)
        for name, took in seconds.items():
            if took > max(0.5, 5 * usual):
                text = f"{name} answered after {took:.1f} s, the others within {usual:.2f} s"
                found.append(known("server-slow", POSSIBLE, name, text))
    return found


def checked(host: str, entries: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """What the checks of a host's devices, and of its ways to others, found. Only what is certain
    to matter to servers that run.
    """
    found = []
    for one in entries:
        line = f"FAILED {one['title']}: {one['found']}"
        cause = causes.of_line(line, "check")
        if one["state"] == "failed" and one["required"] and cause is not None:
            text = f"{one['title']}: {one['found']}"
            made = known(cause.name, CERTAIN, f"host {host}", text)
            found.append(replace(made, remedy=one["todo"] or made.remedy))
    return found


def _order(server: Look) -> tuple[float, bool]:
    """By the time of death. Of those found dead at once one that was ended by a signal was the
    first: the others noticed and ended themselves.
    """
    end = server["exit"]
    return server.get("ended_at") or float("inf"), end is None or 0 <= end < 128


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
        told = mentions(on, server, LIKELY)
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
    """Notes about what is on its way, which is nothing wrong yet, or was and is not any more."""
    found = [
        f"{node['node']} on {host} is starting for {look['time'] - node['started_at']:.0f} s"
        for node in look["nodes"]
        if node["state"] == "starting" and node["started_at"]
    ]
    for node in look["nodes"]:
        if node["state"] == "ready" and node.get("restarts"):
            memory = [line for line in look["machine"]["killed"] or [] if "Killed process" in line]
            why = f"; the kernel says: {memory[-1].strip()}" if memory else ""
            found.append(f"on {host}, {status.again(node)}{why}; all that happened: invoke history")
    return found


def suspicious(look: Look, limits: Limits) -> set[str]:
    """Servers whose load needs a second look."""
    return {
        server["name"]
        for node in look["nodes"]
        for server in node["servers"]
        if status.keeps_kv(server, limits.kv_high) or _hangs(server)
    }


def _hangs(server: Look) -> bool:
    return server.get("running") == 0 and (server.get("waiting") or 0) > 0


_PARTNER = {"prefill": "decode", "decode": "prefill"}


def load(
    host: str,
    first: Look,
    second: Look,
    limits: Limits,
    others: Sequence[Look] = (),
    lets_go: Mapping[str, str] = MappingProxyType({}),
) -> list[Finding]:
    """KV that nobody fetches, and requests that nobody computes, in both looks.

    others: looks at all hosts. lets_go: by node, when its connector gives KV up by itself.
    """
    before = {s["name"]: s for node in first["nodes"] for s in node["servers"]}
    found = []
    for node in second["nodes"]:
        for now in node["servers"]:
            then = before.get(now["name"], {})
            on = f"{now['name']} on {host}"
            over = f"in two looks {limits.look_again_s:g} s apart"
            if all(status.keeps_kv(server, limits.kv_high) for server in (now, then)):
                text = f"its KV cache is {now['kv_usage']:.1%} used with nothing running, {over}"
                found.append(_kept(on, node, text, others, lets_go.get(node["node"])))
                found += mentions(on, now)
            elif _hangs(now) and _hangs(then):
                many = f"{now['waiting']:g} requests wait and none runs"
                usage = now.get("kv_usage")
                if usage is not None:
                    many += f", KV cache {usage:.1%} used"
                found.append(known("requests-hang", LIKELY, on, f"{many}, {over}"))
                found += mentions(on, now)
    return found


def _kept(on: str, node: Look, text: str, others: Sequence[Look], limit: Optional[str]) -> Finding:
    """Why a server keeps KV: its partner is gone or does not come for it; else the client left."""
    role, instance = node.get("role"), str(node["node"]).partition(".")[0]
    partner = _PARTNER.get(str(role))
    why = [
        f"at the other end: {line}"
        for look in others
        for other in look["nodes"]
        if other.get("role") == partner
        for line in _absent(other, node.get("started_at") or 0.0)
    ]
    name = "kv-stuck" if partner is None else "kv-partner" if why else "kv-client"
    again = f"invoke {'roll-prefill' if role == 'prefill' else 'restart'} --instance {instance}"
    found = known(name, LIKELY, on, text, *why)
    if partner is None:
        return replace(found, remedy=f"restart it: {again}")
    if role == "prefill" and limit is not None:
        return replace(found, remedy=f"{found.remedy}; {limit}; if it is kept for longer: {again}")
    return replace(found, remedy=f"{found.remedy}; then: {again}")


def _absent(node: Look, since: float) -> Iterator[str]:
    """Why a node may not have come for KV that another keeps, which was started at this time."""
    if node["state"] != "ready":
        yield f"{node['node']} is {node['state']}: {node.get('reason') or 'invoke logs says why'}"
    elif node.get("restarts") and node["restarts"]["at"] >= since:
        yield status.again(node)
    for server in node["servers"]:
        if server.get("waiting"):
            yield f"{server['name']} has {server['waiting']:g} requests that wait"
