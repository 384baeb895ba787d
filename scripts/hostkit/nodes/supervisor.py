"""Runs the API servers of one node (or a proxy) and tells the truth about them in a record.

One process group, log file and record per server. While the node starts for the first time, the
death of one ends all. Afterwards a death is recorded, and either that is all, or, where the host
file has a rule for it (restart), it ends the node's other servers, which are parts of one instance,
and all are started again after a delay that grows; too often is a crash loop, and a failure. A
server that is silent for too long counts as dead, and so does a node when a part of its instance on
another host has gone. With a server ends all that it started. SIGTERM and SIGINT end all, at any
moment; if this process is killed, the kernel ends its servers, and the process that writes their
logs starts another one, which goes on by the same rule (take_over).
A start that cannot be recorded is none; later, a full or broken disk harms no server: the record
is written when that is possible again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.access import service
from hostkit.base import folders, lock, run
from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.health import metric, wait_until
from hostkit.base.log import say
from hostkit.base.records import (
    Record,
    alive,
    boot_id,
    identity,
    locked,
    read_record,
    session_members,
    started,
    write_record,
)
from hostkit.base.writing import read_back, write_atomically
from hostkit.copy import record
from hostkit.nodes import family, history, proxy_run
from hostkit.nodes.partners import LOOK_S, Partners
from hostkit.nodes.server_logs import ServerLogs, end_writer

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
_STARTS_S, _ANSWERS_S = 30, 10  # a proxy that takes over, or it is given up
_INHERITED = "NGINX"  # tells nginx which of its descriptors are sockets that it listens on
_TEND_S = 10  # between two looks at logs, helpers, silent servers and what could not be written
_ANSWER_S = 2  # for one look at a server that was ready
_TAKE_OVER_S = 3600  # a command that is under way on this host may start the node itself
_DOUBLINGS = 40  # of a delay: more than any limit of it needs
_STARTING, _READY, _FAILED, _STOPPED = "starting", "ready", "failed", "stopped"


class Supervisor:
    """node: one entry of host.json's nodes; host: the whole file's data."""

    def __init__(self, host: dict[str, Any], node: dict[str, Any]) -> None:
        self.host = host
        self.node = node
        self.state_dir = Path(host["work_dir"]) / "state"
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.record: Record = {}
        self.unwritten = False
        self.stopping = False
        self.ending = False
        self.tended = 0.0
        self.deadline = 0.0
        self.refused = ""  # why it will never be ready
        self.was_ready = False
        self.ready_since = 0.0
        self.deaths = 0  # in a row
        self.heard: dict[str, float] = {}  # when each server was well last
        self.steps: dict[str, Optional[float]] = {}  # that each had made then
        self.again_at: Optional[float] = None  # when all is started again
        self.partners = Partners(Path(host["work_dir"]))
        self.places = node.get("restart", {}).get("partners", [])  # theirs
        self.logs = ServerLogs(host, node)
        self.teller = history.Teller(host, node)

    def run(
        self, before: Optional[Record] = None, recorded: Callable[[], None] = lambda: None
    ) -> int:
        """Start, watch, stop. Returns 0 after an ordered stop, 1 when a server died.

        before: the record of a supervisor that was killed: this one goes on after that as after a
        death. recorded: called once this one has its record.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that goes ends no server
        run.adopt_orphans()
        temp_dir = self._run_folder(again=before is not None)
        self.record = {
            "node": self.node["name"],
            "role": self.node["role"],
            "digest": self.node["digest"],
            "secrets": self.node.get("secrets"),
            "source": record.digest(self.node.get("source_dir")),
            "temp_dir": self.node["temp_dir"],
            "container": self._container(),
            "phase": _STARTING,
            "supervisor": identity(os.getpid()),
            "started_at": time.time(),
            "ready_at": None,
            "servers": [],
        }
        if self.node.get("seed_dir"):
            place = {key: self.node[key] for key in ("ports", "temp_dir", "log_dir")}
            self.record.update(place=place, hands_over=proxy_run.hands_over(), beside=[])
        if before:
            self._goes_on(before)
        write_record(self.state_dir, self.record)
        recorded()
        try:
            if before:
                return self._watch("its supervisor was killed")
            self._start_all()
            self.teller.tell("started")
            self.deadline = time.monotonic() + self.host["deadline_s"]
            return self._watch()
        finally:
            self._stop_all()  # nothing is left, whatever happened
            if self.record["container"]:
                # It may end as soon as this process has: who is to be told of that is told before.
                wait_until(self._told, self.host["grace_s"], 0.05)
            shutil.rmtree(temp_dir, ignore_errors=True)

    def _goes_on(self, before: Record) -> None:
        self.was_ready = True
        if before["ready_at"] is not None:
            self.ready_since = time.monotonic() - max(0.0, time.time() - before["ready_at"])
        if "restarts" in before:
            self.record["restarts"] = before["restarts"]
            self.deaths = before["restarts"]["in_a_row"]
            self.teller.restarts = before["restarts"]["count"]

    def _told(self) -> bool:
        self._reap()
        return not self.teller.hooks

    def _run_folder(self, again: bool = False) -> Path:
        """Make the node's run folder, a proxy's with what it runs on, unless that ran already: it
        has what it took over since. Raises InputError.
        """
        path, seed = self.node["temp_dir"], self.node.get("seed_dir")
        kept = again and Path(path).is_dir()
        # nginx's workers are not root, and keep large requests in a folder of theirs in there.
        apart = folders.apart(path, self.host["work_dir"])
        fault = folders.make(path, 0o711 if seed else 0o700, apart)
        if fault:
            raise InputError(f"no run folder for {self.node['name']}: {fault}.")
        if seed and not kept:
            # A proxy writes beside its configuration: it gets a copy to do so.
            shutil.copytree(seed, path, dirs_exist_ok=True)
        # Left behind where a supervisor was killed: this start prepares anew.
        (Path(path) / "prepared").unlink(missing_ok=True)
        return Path(path)

    def _container(self) -> Optional[dict[str, Any]]:
        """What it takes to find and end the container that this runs in."""
        spec = self.host.get("containers", {}).get(self.node.get("container"))
        return {key: spec[key] for key in ("name", "engine", "owner", "grace_s")} if spec else None

    def _write(self) -> None:
        """Write the record; where that fails, say so once and go on: _tend tries again."""
        try:
            write_record(self.state_dir, self.record)
        except OSError as error:
            if not self.unwritten:
                say(f"the record cannot be written, all goes on without: {error.strerror}")
            self.unwritten = True
        else:
            self.unwritten = False

    def _start_all(self) -> None:
        self.record["log_writer"] = self.logs.open()
        for server in self.node["servers"]:
            self.record["servers"].append(self._start(server, self.logs.begin))
            self._write()
        self.logs.begun()

    def _start(
        self,
        server: dict[str, Any],
        log: Callable[[dict[str, Any], str], int],
        sockets: Sequence[int] = (),
    ) -> Record:
        """Start one; its part of the record. sockets: on which it listens from the beginning."""
        token = family.token(self.host["work_dir"], self.node["name"])
        group = family.make_group(token)
        inherited = {_INHERITED: "".join(f"{one};" for one in sockets)} if sockets else {}
        child = run.start(
            server["argv"],
            output=log(server, token),
            env={family.MARK: token, **inherited},
            tied=True,
            keep=sockets,
            group=group / "cgroup.procs" if group else None,
        )
        self.children[child.pid] = child
        return {
            "name": server["name"],
            "program": server.get("program", server["argv"][0]),
            "process": identity(child.pid),
            "token": token,
            "group": str(group) if group else None,
            "helpers": [],
            "log": server["log"],
            "state": _STARTING,
            "started_at": time.time(),
            "healthy_at": None,
            "exit": None,
        }

    def _replace(self) -> None:
        """A proxy's: another process takes over, as the host file says now. How that ended stands
        in the record.
        """
        why = "it is not ready"
        if self.record["phase"] == _READY and self.record.get("hands_over"):
            try:
                why = self._taken_over()
            except (ToolkitError, OSError, ValueError, KeyError) as error:
                why = str(error)
        if not why:  # before the record, which ends the wait of who asked for it
            self.teller.tell("replaced", "the process before finishes its requests")
        self.record["replaced"] = {"at": time.time(), "why": why}
        self._write()

    def _taken_over(self) -> str:
        """Start another process with the sockets of the one that runs, then have that finish its
        requests and end. Why not, "" where it was done: then the one before goes on, or where it
        had to be told already, is started again on the same sockets, on which clients wait.
        """
        found = read_back(Path(self.host["work_dir"]) / "bundle" / "host.json")
        node = find_node(found, self.node["name"]) if "nodes" in found else None
        if node is None:
            return "it is not planned any more"
        node = proxy_run.with_program(node)
        [old], [spec_before], [spec] = self.record["servers"], self.node["servers"], node["servers"]
        run_dir = Path(node["temp_dir"])
        sockets = proxy_run.listening(old["process"]["pid"], node["ports"])
        try:
            if not sockets:
                return "the process that runs does not listen where it should"
            files = proxy_run.take_next(run_dir)
            new = self._beside(spec, sockets)
            if not self._until(lambda: len(session_members(new["process"]["pid"])) > 1, new):
                self._give_up(new, run_dir, files)
                return "the new process did not start"
            # Both take requests until the one before is told: only then answers are the new one's.
            self.record.update(servers=[new], beside=[*self._others(new), old])
            self._write()
            master = old["process"]["pid"]
            workers = [pid for pid in session_members(master) if pid != master]
            with suppress(ProcessLookupError):
                os.kill(master, signal.SIGQUIT)
            self._until(lambda: all(map(proxy_run.is_leaving, workers)), new)
            if not self._until(lambda: self._healthy(spec), new, _ANSWERS_S):
                self._give_up(new, run_dir, files)
                again = self._beside(spec_before, sockets)
                self.record.update(servers=[again], beside=self._others(again))
                again.update(state=_READY, healthy_at=time.time())
                return "the new process does not answer; the one before was started again"
        finally:
            for one in sockets:
                os.close(one)
        new.update(state=_READY, healthy_at=time.time())
        self.node, self.host = node, found
        self.logs.node = node
        self.record.update(digest=node["digest"], secrets=node.get("secrets"))
        return ""

    def _beside(self, spec: dict[str, Any], sockets: Sequence[int]) -> Record:
        """Start a process that takes over; recorded before all else, so that it is ended."""
        new = self._start(spec, self.logs.begin_again, sockets)
        self.logs.begun()
        self.record["beside"].append(new)
        self._write()
        return new

    def _others(self, but: Record) -> list[Record]:
        return [one for one in self.record["beside"] if one is not but]

    def _until(
        self, condition: Callable[[], bool], new: Record, seconds: float = _STARTS_S
    ) -> bool:
        """Wait for a condition while a process lives."""

        def over() -> bool:
            self._reap()
            return new["process"]["pid"] not in self.children or condition()

        wait_until(over, seconds, 0.02)
        return new["process"]["pid"] in self.children and condition()

    def _give_up(self, new: Record, run_dir: Path, files: Mapping[str, str]) -> None:
        """End a process that did not take over; the files before are in place again."""
        family.end_all([new], signal.SIGKILL)
        self._reap()
        self.record["beside"] = self._others(new)
        for name, text in files.items():
            write_atomically(run_dir / name, text, 0o600)

    def _tend(self) -> None:
        """What is due from time to time while all is well."""
        self.tended = time.monotonic()
        if self.logs.tend([server["process"]["pid"] for server in started(self.record)]):
            self.record["log_writer"] = self.logs.writer
            self.unwritten = True
        for server, seen in zip(self.record["servers"], family.helpers(self.record["servers"])):
            if server["exit"] is None and server["helpers"] != seen:
                server["helpers"] = seen
                self.unwritten = True
        rule, other = self._rule()
        self.places = rule.get("partners", []) if rule and not other else []
        self.teller.flush()
        if self.unwritten:
            self._write()

    def _watch(self, lost: str = "") -> int:
        """lost: why what ran before has ended."""
        while True:
            starting = self.record["phase"] == _STARTING
            info = signal.sigtimedwait(_SIGNALS, 0 if lost else self._patience())
            if info and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True
                self._stop_all()
                self.record["phase"] = _STOPPED
                self._write()
                self.teller.tell("stopped")
                return 0
            replaced = bool(info and info.si_signo == signal.SIGUSR2)
            if replaced:
                self._replace()
            dead = self._reap()
            if replaced:  # one that died meanwhile was heard of there
                dead = [one for one in self.record["servers"] if one["exit"] is not None]
            why, lost = lost, ""
            if dead:
                why = f"{dead[0]['name']} ended with exit status {dead[0]['exit']}"
            if self.again_at is not None:
                if self.unwritten:
                    self._write()
                if time.monotonic() < self.again_at:
                    continue
                why = self._start_again()
            if starting and not why:
                why = self._becomes_ready()
            tend = time.monotonic() - self.tended > _TEND_S
            if tend and not why:
                why = self._hangs()
            if self.record["phase"] != _READY:
                self.partners.forget()
            elif not why:
                why = self.partners.gone(self.places)
            if why:
                rule = self._rule_for(why) if self.was_ready else None
                if starting or rule:
                    self._stop_all()
                if rule and self._waits(why, rule):
                    continue
                self.record["phase"] = _FAILED
                self._write()
                given_up = self.record.get("reason", why)
                loops = given_up.startswith("crash loop")
                self.teller.tell("crash-loop" if loops else "failed", given_up)
                if not self.children:
                    return 1
            if tend:
                self._tend()

    def _patience(self) -> float:
        """Seconds until there is something to do though no signal comes."""
        if self.again_at is not None:
            return min(_TEND_S, max(0.0, self.again_at - time.monotonic()))
        if self.record["phase"] == _STARTING:
            return float(self.host["poll_interval_s"])
        return LOOK_S if self.places else _TEND_S

    def _becomes_ready(self) -> str:
        """One look at a node that starts; why it has failed, "" where it has not."""
        if self._all_healthy():
            self.was_ready, self.ready_since = True, time.monotonic()
            self.record["phase"] = _READY
            self.record["ready_at"] = time.time()
            self.record.pop("reason", None)
            self._write()
            took_s = round(time.time() - self.record["started_at"], 1)
            self.teller.tell("ready", f"after {took_s:g} s")
        elif self.refused or time.monotonic() > self.deadline:
            why = self.refused or f"not ready within {self.host['deadline_s']:g} s"
            self.record["reason"] = why
            return why
        return ""

    def _hangs(self) -> str:
        """Which server that was ready is silent for longer than its rule allows; "": none."""
        rule, other = self._rule()
        limit_s = rule.get("watchdog_s") if rule and not other else None
        if self.record["phase"] != _READY or rule is None or not limit_s:
            self.heard.clear()
            return ""
        for spec in self.node["servers"]:
            name, now, path = spec["name"], time.monotonic(), spec["health"]
            heard = self.heard.setdefault(name, now)
            silent = path is not None and self._silent(spec, rule.get("steps"))
            if not silent:
                self.heard[name] = now
            elif now - heard >= limit_s:
                return f"{name} {silent} for {now - heard:.0f} s"
        return ""

    def _silent(self, spec: dict[str, Any], steps: Optional[str]) -> str:
        """What a server fails to do now; "": it is well. steps: a metric that counts its steps."""
        asked = service.of_spec(spec)
        timeout_s = min(_ANSWER_S, self.host["request_timeout_s"])
        if asked.request(spec["health"], timeout_s=timeout_s).status != 200:
            return f"has not answered {spec['health']}"
        if steps is None or spec.get("model") is None:
            return ""
        text = asked.request("/metrics", timeout_s=timeout_s).text
        made, before = metric(text, steps), self.steps.get(spec["name"])
        self.steps[spec["name"]] = made
        works = metric(text, self.host["metrics"].get("running"))
        stands = works and made is not None and made == before
        return "has requests and has computed nothing" if stands else ""

    def _rule(self) -> tuple[Optional[dict[str, Any]], bool]:
        """How this node is started again, as the host file says now (None: it is not); whether its
        files are those of another deployment by now, which nobody has tried.
        """
        found = read_back(Path(self.host["work_dir"]) / "bundle" / "host.json")
        node = find_node(found, self.node["name"]) if "nodes" in found else self.node
        if node is None:
            return None, True
        now = (node["digest"], node.get("secrets"), record.digest(node.get("source_dir")))
        return node.get("restart"), now != tuple(
            self.record[key] for key in ("digest", "secrets", "source")
        )

    def _rule_for(self, why: str) -> Optional[dict[str, Any]]:
        """The rule, if it holds for what has happened; else the record says why not."""
        rule, other = self._rule()
        if rule and other:
            self.record["reason"] = (
                f"{why}, and nothing is started again by itself: what was deployed since differs"
                " from what ran"
            )
        return None if other else rule

    def _waits(self, why: str, rule: dict[str, Any]) -> bool:
        """All have ended: have them started again later; False when that was too often."""
        if self.ready_since and time.monotonic() - self.ready_since >= rule["settled_s"]:
            self.deaths = 0
        self.ready_since = 0.0
        self.deaths += 1
        if self.deaths > rule["limit"]:
            self.record["reason"] = (
                f"crash loop: {why}, after {rule['limit']} restarts in a row; there is no other"
            )
            return False
        delay_s = rule["delay_s"] * 2 ** min(self.deaths - 1, _DOUBLINGS)
        delay_s = min(delay_s, rule["delay_max_s"])
        self.again_at = time.monotonic() + delay_s
        self.record["phase"] = _STARTING
        self.record["reason"] = (
            f"{why}; restart {self.deaths} of at most {rule['limit']} in a row, after {delay_s:g} s"
        )
        before = self.record.get("restarts", {"count": 0})
        self.record["restarts"] = {
            **{"count": before["count"] + 1, "in_a_row": self.deaths},
            **{"at": time.time(), "why": why},
        }
        self._write()
        self.teller.tell("died", self.record["reason"])
        return True

    def _start_again(self) -> str:
        """Start all anew; why that cannot be, "" where it can."""
        self.again_at = None
        self.ending = False
        self.heard.clear()
        self.refused = ""
        self.deadline = time.monotonic() + self.host["deadline_s"]
        self.record.update(servers=[], started_at=time.time(), ready_at=None)
        try:
            self._run_folder(again=True)
            self._start_all()
        except (ToolkitError, OSError) as error:
            return f"it could not be started: {error}"
        self.teller.tell("restarted", f"restart {self.deaths} in a row")
        return ""

    def _reap(self) -> list[Record]:
        """Collect ended children; those of them that are servers, as they ended.

        Which of several that are found at once ended first nobody knows: they have one time.
        """
        died: list[Record] = []
        now = time.time()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self.logs.ended(pid, status)
            if self.children.pop(pid, None) is None:
                self.teller.hooks.pop(pid, None)
                continue  # an orphan from below a server, or one who told of an event
            for server in started(self.record):
                if server["process"]["pid"] == pid:
                    died.append(server)
                    server["exit"] = os.waitstatus_to_exitcode(status)
                    server["ended_at"] = now
                    server["state"] = _STOPPED if self.stopping else _FAILED
        if died and not self.ending:
            self._write()  # what is left of them may take seconds to end, and who asks is told now
            # Orphans without a mark may be those of servers that live.
            also = tuple if self.children else self._adopted
            for server in died:
                family.end_all([server], signal.SIGKILL, also)
                self.logs.drained(server["name"])
        if self.record.get("beside"):  # those that went have no part in it any more
            gone = [one for one in self.record["beside"] if one["exit"] is not None]
            self.record["beside"] = [one for one in self.record["beside"] if one not in gone]
            died = [one for one in died if one not in gone]
            self.unwritten = self.unwritten or bool(gone)
        return died

    def _adopted(self) -> list[int]:
        own = (self.logs.pid, *self.teller.hooks)
        return [pid for pid in family.children() if pid not in own]

    def _all_healthy(self) -> bool:
        changed = False
        for server, spec in zip(self.record["servers"], self.node["servers"]):
            if server["healthy_at"] is None and self._healthy(spec):
                server["healthy_at"] = time.time()
                server["state"] = _READY
                changed = True
        healthy = all(server["healthy_at"] for server in self.record["servers"])
        if changed and not healthy:
            self._write()
        return healthy

    def _healthy(self, spec: dict[str, Any]) -> bool:
        if spec["health"] is None:
            return True  # it serves nothing itself: that it runs is all there is to see
        timeout = self.host["request_timeout_s"]
        asked = service.of_spec(spec)
        if asked.request(spec["health"], timeout_s=timeout).status != 200:
            return False
        if spec.get("model") is None:
            return True
        answer = asked.request("/v1/models", timeout_s=timeout)
        if answer.status in service.REFUSED:
            said = answer.text[:200].strip()
            self.refused = f"runs, and refuses us: status {answer.status}: {said}"
        return spec["model"] in [entry.get("id") for entry in answer.listed("data")]

    def _stop_all(self) -> None:
        """SIGTERM, wait for the grace period, then SIGKILL, also for all that they started."""
        self.ending = True
        for pid in list(self.children):
            run.end_group(pid, self._stop_signal(pid))

        def gone() -> bool:
            self._reap()
            return not self.children

        if not wait_until(gone, self.host["grace_s"], 0.05):
            for pid in list(self.children):
                run.end_group(pid, signal.SIGKILL)
            wait_until(gone, self.host["grace_s"], 0.05)
        family.end_all(started(self.record), signal.SIGKILL, self._adopted)
        self.logs.close(self.host["grace_s"])
        self._reap()

    def _stop_signal(self, pid: int) -> int:
        for server, spec in zip(self.record["servers"], self.node["servers"]):
            if server["process"]["pid"] == pid:
                return int(signal.Signals[spec.get("stop_signal", "SIGTERM")])
        return signal.SIGTERM


def take_over(host: dict[str, Any], node: dict[str, Any]) -> int:
    """Go on with a node whose supervisor was killed, where its rule says so; else do nothing.

    Returns what Supervisor.run does; 0 where there is nothing to go on with.
    """
    work_dir, name = Path(host["work_dir"]), node["name"]
    with ExitStack() as held:
        what = f"restart of {name}, whose supervisor was killed"
        held.enter_context(locked(work_dir / lock.FLOCK, what, wait_s=_TAKE_OVER_S))
        before = read_record(work_dir / "state", name)
        if (
            before is None
            or before["phase"] not in (_STARTING, _READY)
            or alive(before["supervisor"])
            or before["supervisor"]["boot_id"] != boot_id()
            or not (before["ready_at"] or "restarts" in before)
        ):
            return 0
        made = Supervisor(host, node)
        made.record = before
        if not made._rule_for("its supervisor was killed"):
            if "reason" in before:
                write_record(work_dir / "state", {**before, "phase": _FAILED})
            return 0
        family.end_all(started(before), signal.SIGKILL)
        end_writer(before.get("log_writer"), host["grace_s"])
        return made.run(before, held.close)


def find_node(host: dict[str, Any], name: str) -> Optional[dict[str, Any]]:
    """A node of a host file by its name."""
    return next((node for node in host["nodes"] if node["name"] == name), None)
