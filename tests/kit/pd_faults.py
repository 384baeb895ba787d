"""Faults and changes of a running PD deployment, one after the other under a steady load, and what
they cost: who was asked meanwhile, and what became of it.

The deployment is on this machine, its engines are real or not, its commands are the toolkit's own.
What is right is known beforehand, from a server that does all itself.
"""

from __future__ import annotations

import collections
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

import steady_load
from docker_host import wait_for
from steady_load import ENDED, RIGHT, Shape

from hostkit.base import records

ROOT = Path(__file__).resolve().parents[2]
BACK_S = 600.0  # within which all serve again; a busy machine starts a server in minutes
_MOVED = re.compile(r"server (\S+) (leaves the pool: (.*?), context|is back in the pool)")


@dataclass
class Site:
    """A deployment. environment: its file; words: options of every command; url: of its proxy."""

    environment: str
    work_dir: Path
    words: list[str]
    url: str
    key: str = ""
    ca: Optional[str] = None
    settings: dict[str, str] = field(default_factory=dict)  # changed since it was deployed
    moves: list[tuple[float, str, str]] = field(default_factory=list)  # in and out of the pool
    _seen: int = 0

    def argv(self, name: str, *more: str) -> list[str]:
        """A command of the toolkit, with the settings of now."""
        set_ = [word for one in self.settings.items() for word in ("--set", "=".join(one))]
        script = str(ROOT / "scripts" / f"{name}.py")
        return [sys.executable, script, "-e", self.environment, *self.words, *set_, *more]

    def start(self, name: str, *more: str) -> subprocess.Popen[str]:
        """Start it; all that it starts is of its session."""
        return subprocess.Popen(
            self.argv(name, *more), cwd=ROOT, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, name: str, *more: str) -> str:
        """Run it, which has to succeed; what it said."""
        said, _ = (made := self.start(name, *more)).communicate(timeout=1200)
        assert made.returncode == 0, f"{name} {' '.join(more)}: {made.returncode}\n{said}"
        return said

    def record(self, node: str) -> dict[str, Any]:
        """What the host has written down of a node."""
        return records.read_record(self.work_dir / "state", node) or {}

    def nodes(self, role: str = "") -> list[str]:
        """The nodes of a role."""
        found = json.loads((self.work_dir / "bundle" / "host.json").read_text())["nodes"]
        return [one["name"] for one in found if role in ("", one["role"])]

    def processes(self, node: str, engine: bool = False) -> list[int]:
        """The server of a node, or those of its processes that compute."""
        [server] = self.record(node)["servers"]
        pid = server["process"]["pid"]
        if not engine:
            return [pid]
        lines = {one: Path(f"/proc/{one}/cmdline") for one in records.session_members(pid)}
        return [one for one, path in lines.items() if b"EngineCore" in path.read_bytes()]

    def log(self, name: str) -> Path:
        """A log of the proxy."""
        [proxy] = self.nodes("proxy")
        return self.work_dir / "logs" / proxy / name

    def look(self) -> None:
        """Note who left the pool and came back since the last look."""
        text = self.log("error.log").read_bytes()
        new, self._seen = text[min(self._seen, len(text)) :], len(text)
        for found in _MOVED.finditer(new.decode("utf-8", "replace")):
            self.moves.append((time.time(), found[1], found[3] or ""))

    def out(self) -> set[str]:
        """The servers that are out of the pool now."""
        self.look()
        last = {name: why for _, name, why in self.moves}
        return {name for name, why in last.items() if why}

    def whole(self) -> bool:
        """Whether all nodes are ready, and all servers in the pool."""
        phases = {self.record(one).get("phase") for one in self.nodes()}
        return not self.out() and phases == {"ready"}


@dataclass
class Done:
    """A fault that was caused, and when (seconds of the epoch). out_s: until the first server had
    left the pool; back_s: until all served again."""

    name: str
    began: float
    ended: float = 0.0
    out_s: Optional[float] = None
    back_s: float = 0.0
    verdicts: dict[str, int] = field(default_factory=dict)


Act = Callable[[Site, random.Random], str]  # gives whom it met


def pause(site: Site, seconds: float) -> None:
    """Let it go on for a while: the moment is what is random, and no condition stands for it."""
    end = time.monotonic() + seconds

    def over() -> bool:
        site.look()
        return time.monotonic() > end

    wait_for(over, "the moment", seconds + 60)


def again(site: Site, node: str, since: float) -> bool:
    """Whether a node was started since then."""
    site.look()
    return bool(site.record(node)["started_at"] != since)


def signalled(
    number: signal.Signals, role: str, engine: bool = False, seconds: Sequence[float] = (1, 4, 12)
) -> Act:
    """A server, or the process of it that computes, gets a signal; a stopped one goes on later."""

    def act(site: Site, chance: random.Random) -> str:
        node = chance.choice(site.nodes(role))
        pids, since = site.processes(node, engine), site.record(node)["started_at"]
        hold_s = chance.choice(seconds) if number == signal.SIGSTOP else 0.0
        for pid in pids:
            os.kill(pid, number)
        if hold_s:
            pause(site, hold_s)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        else:
            wait_for(lambda: again(site, node, since), f"{node} is started again", 120)
        return node + (f" for {hold_s:g} s" if hold_s else "")

    return act


def supervisor(site: Site, chance: random.Random) -> str:
    """Its servers end with it, and another one starts them again."""
    node = chance.choice([*site.nodes("prefill"), *site.nodes("decode")])
    before = site.record(node)
    os.kill(before["supervisor"]["pid"], signal.SIGKILL)
    wait_for(lambda: again(site, node, before["started_at"]), f"{node} is started again", 120)
    return node


def leaves_and_joins(site: Site, chance: random.Random) -> str:
    """An instance is taken out for good, and comes back later."""
    node = chance.choice([*site.nodes("prefill"), *site.nodes("decode")])
    site.run("remove_host", "--instance", node, "--yes")
    pause(site, chance.random() * 4)
    site.run("add_host", "--instance", node, "--yes")
    return node


def roll_proxy(site: Site, chance: random.Random) -> str:
    """Another process of the proxy takes over."""
    site.run("roll", "--role", "proxy")
    return "c0"


def reload(site: Site, chance: random.Random) -> str:
    """The proxy takes a setting of its own over."""
    site.settings["proxy.fail_timeout"] = f"{chance.randrange(5, 10)}s"
    site.settings["proxy.client_timeout"] = f"{chance.randrange(50, 90)}s"
    site.run("reload_proxy")
    return "c0"


def _other(site: Site) -> None:
    """Another layout of the KV cache: servers with the old and the new one are no pair."""
    now = site.settings.get("server.args.block-size", "128")
    site.settings["server.args.block-size"] = "64" if now == "128" else "128"


def roll(site: Site, chance: random.Random) -> str:
    """All servers get another version, one after the other."""
    _other(site)
    site.run("roll")
    return "all"


def _cut_off(site: Site, chance: random.Random) -> str:
    rolling = site.start("roll")
    assert rolling.stdout is not None
    at, seen = chance.randrange(1, 4), 0  # the instance in whose turn it is killed
    for line in rolling.stdout:
        seen += ": out of the proxy" in line
        if seen == at:
            break
    pause(site, chance.random() * 8)
    if rolling.poll() is None:
        os.killpg(rolling.pid, signal.SIGKILL)
    rolling.wait()
    rolling.stdout.close()
    return f"in turn {at}"


def roll_killed(site: Site, chance: random.Random) -> str:
    """The controller is killed in mid roll, and a second roll goes on."""
    _other(site)
    told = _cut_off(site, chance)
    site.run("roll")
    return told


def roll_turned_back(site: Site, chance: random.Random) -> str:
    """The same, but it is turned back to what was proved before."""
    _other(site)
    told = _cut_off(site, chance)
    _other(site)
    site.run("rollback", "--yes")
    return told


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
FAULTS: dict[str, Act] = {
    "kill -9 of a prefill server": signalled(KILL, "prefill"),
    "kill -9 of a decode server": signalled(KILL, "decode"),
    "kill -9 of a prefill engine": signalled(KILL, "prefill", engine=True),
    "kill -9 of a decode engine": signalled(KILL, "decode", engine=True),
    "kill -9 of a supervisor": supervisor,
    "hang of a prefill server": signalled(STOP, "prefill"),
    "hang of a decode server": signalled(STOP, "decode"),
    "hang of a prefill engine": signalled(STOP, "prefill", engine=True),
    "hang of a decode engine": signalled(STOP, "decode", engine=True),
    "long hang of a decode engine": signalled(STOP, "decode", engine=True, seconds=(40,)),
    "reload of the proxy": reload,
    "another process for the proxy": roll_proxy,
    "an instance leaves and joins": leaves_and_joins,
    "full roll to another version": roll,
    "controller killed in mid roll, rolled on": roll_killed,
    "controller killed in mid roll, rolled back": roll_turned_back,
}
SHORT = (
    "hang of a decode server",
    "kill -9 of a decode server",
    "reload of the proxy",
    "kill -9 of a prefill engine",
)


def right_answers(url: str, folder: Path, shapes: Sequence[Shape]) -> list[dict[str, str]]:
    """What one server alone answers to each shape."""
    task = {"url": url, "rate": 4, "shapes": shapes, "requests": list(range(len(shapes)))}
    found = _asked(task, folder, "right").wait(timeout=600)
    assert found == 0
    by_shape = {one["shape"]: one for one in steady_load.records(folder / "right.jsonl")}
    assert all(one["status"] == 200 and not one["error"] for one in by_shape.values()), by_shape
    whole = [by_shape[at] for at in range(len(shapes))]
    return [steady_load.said(one["stream"], one["text"]) or {} for one in whole]


def _asked(task: Mapping[str, Any], folder: Path, name: str) -> subprocess.Popen[bytes]:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(task))
    program = str(ROOT / "tests" / "kit" / "steady_load.py")
    return subprocess.Popen([sys.executable, program, str(file), str(folder / f"{name}.jsonl")])


@dataclass
class Run:
    """What a run came to."""

    faults: list[Done]
    verdicts: dict[str, int]
    odd: list[str]  # requests that were not answered right, each with what became of it
    mixed: list[str]  # lines of the proxy's log with servers of several versions
    requests: int
    streams: int
    seconds: float

    def table(self) -> Iterator[str]:
        """For people."""
        yield f"{'at':>7}  {'out of pool':>11}  {'all serve':>9}  {'asked':>5}  not right  fault"
        first = self.faults[0].began if self.faults else 0.0
        for one in self.faults:
            odd = {name: count for name, count in one.verdicts.items() if name != RIGHT}
            said = ", ".join(f"{count} {name}" for name, count in odd.items()) or "0"
            out = "-" if one.out_s is None else f"{one.out_s:.1f} s"
            yield (
                f"{one.began - first:>5.0f} s  {out:>11}  {one.back_s:>7.1f} s"
                f"  {sum(one.verdicts.values()):>5}  {said:>9}  {one.name}"
            )
        yield f"{self.requests} requests, {self.streams} of them streams, in {self.seconds:.0f} s"
        yield ", ".join(f"{count} {name}" for name, count in sorted(self.verdicts.items()))
        yield f"{len(self.mixed)} requests whose pairs were of two versions"


def _mixed(text: str) -> Iterator[str]:
    """Lines of an access log with a pair of two versions. Of a request that was done again each
    pair has one of its own."""
    for line in text.splitlines():
        words = json.loads(line).get("versions", "").split(", ")
        if len(set(words)) == 1:
            continue
        data = json.loads(line)
        tried = [len(data[name].split(", ")) if data[name] else 0 for name in ("prefill", "server")]
        pairs = list(zip(words[::2], words[1::2]))
        if tried[0] != tried[1] or len(words) % 2 or any(a != b for a, b in pairs):
            yield line


def run(
    site: Site, folder: Path, right: Sequence[dict[str, str]], shapes: Sequence[Shape],
    faults: Sequence[str], requests: int, rate: float, seed: int, say: Callable[[str], None],
) -> Run:  # fmt: skip
    """Load, and faults meanwhile: these in random order again and again, until all are asked; with
    requests 0 once, and the load ends with the last."""
    chance = random.Random(seed)
    asked = [chance.randrange(len(shapes)) for _ in range(requests or 100000)]
    task = {"url": site.url, "key": site.key, "ca": site.ca, "rate": rate}
    before = site.log("access.log").stat().st_size
    site.look()
    began = time.time()
    out = folder / "load.jsonl"
    load = _asked({**task, "shapes": shapes, "requests": asked}, folder, "load")
    done: list[Done] = []
    try:
        wait_for(lambda: len(steady_load.records(out)) > 2 * rate, "the load begins", 60)
        todo: list[str] = []
        while load.poll() is None and not (requests == 0 and len(done) == len(faults)):
            todo = todo or chance.sample(list(faults), len(faults))
            one = Done(todo.pop(), time.time())
            moved = len(site.moves)
            whom = FAULTS[one.name](site, chance)
            wait_for(site.whole, f"all serve after: {one.name} ({whom})", BACK_S)
            one.name += f" ({whom})"
            one.ended = time.time()
            one.back_s = one.ended - one.began
            left = [at for at, _, why in site.moves[moved:] if why]
            one.out_s = left[0] - one.began if left else None
            done.append(one)
            say(f"{one.began - began:.0f} s: {one.name}, {one.back_s:.1f} s")
            pause(site, chance.random() * 4)
        if requests == 0:
            load.terminate()
        load.wait(timeout=600)
    finally:
        load.kill()
        load.wait()
    found = steady_load.records(out)
    return judged(found, right, done, site.log("access.log").read_bytes()[before:].decode())


def judged(
    found: Sequence[dict[str, Any]], right: Sequence[dict[str, str]], done: list[Done], log: str
) -> Run:
    """What the requests came to, and during which fault."""
    verdicts = [steady_load.verdict(one, right[one["shape"]]) for one in found]
    odd = []
    for one, verdict in zip(found, verdicts):
        begun, ended = one["sent_at"], one["ended_at"]
        during = [fault for fault in done if begun < fault.ended and ended > fault.began]
        for fault in during:
            fault.verdicts[verdict] = fault.verdicts.get(verdict, 0) + 1
        if verdict != RIGHT:
            when = "; ".join(
                f"{begun - fault.began:.2f} to {ended - fault.began:.2f} s after {fault.name}"
                for fault in during
            )
            said = one["error"] or one["text"][-300:].strip()
            what = f"{one['id']}, shape {one['shape']}, {one['status']}"
            odd.append(f"{verdict}: {what}, {when or 'no fault'}: {said}")
    seconds = max(one["ended_at"] for one in found) - min(one["sent_at"] for one in found)
    streams = sum(one["stream"] for one in found)
    counts = dict(collections.Counter(verdicts))
    return Run(done, counts, odd, list(_mixed(log)), len(found), streams, seconds)


ALLOWED = (RIGHT, ENDED)
