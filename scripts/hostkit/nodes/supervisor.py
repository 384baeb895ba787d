"""Runs the API servers of one node (or a proxy) and tells the truth about them in a record.

One process group, log file and record per server. While the node starts for the first time, the
death of one ends all. Afterwards a death is recorded, and either that is all, or, where the host
file has a rule for it (restart), it ends the node's other servers, which are parts of one instance,
and all are started again after a delay that grows; too often is a crash loop, and a failure. With
a server ends all that it started. SIGTERM and SIGINT end all, at any moment; if this process is
killed, the kernel ends its servers.
A start that cannot be recorded is none; later, a full or broken disk harms no server: the record
is written when that is possible again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

from hostkit.access import service
from hostkit.base import folders, run
from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from hostkit.base.records import Record, identity, write_record
from hostkit.base.writing import read_back
from hostkit.copy import record
from hostkit.nodes import family, history
from hostkit.nodes.server_logs import ServerLogs

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_TEND_S = 10  # between two looks at logs, helpers and what could not be written
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
        self.again_at: Optional[float] = None  # when all is started again
        self.logs = ServerLogs(host, node)
        self.teller = history.Teller(host, node)

    def run(self) -> int:
        """Start, watch, stop. Returns 0 after an ordered stop, 1 when a server died."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that goes ends no server
        run.adopt_orphans()
        temp_dir = self._run_folder()
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
        write_record(self.state_dir, self.record)
        try:
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
            token = family.token(self.host["work_dir"], self.node["name"])
            group = family.make_group(token)
            child = run.start(
                server["argv"],
                output=self.logs.begin(server, token),
                env={family.MARK: token},
                tied=True,
                group=group / "cgroup.procs" if group else None,
            )
            self.children[child.pid] = child
            self.record["servers"].append(
                {
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
            )
            self._write()
        self.logs.begun()

    def _tend(self) -> None:
        """What is due from time to time while all is well."""
        self.tended = time.monotonic()
        if self.logs.tend([server["process"]["pid"] for server in self.record["servers"]]):
            self.record["log_writer"] = self.logs.writer
            self.unwritten = True
        for server, seen in zip(self.record["servers"], family.helpers(self.record["servers"])):
            if server["exit"] is None and server["helpers"] != seen:
                server["helpers"] = seen
                self.unwritten = True
        self.teller.flush()
        if self.unwritten:
            self._write()

    def _watch(self) -> int:
        while True:
            starting = self.record["phase"] == _STARTING
            info = signal.sigtimedwait(_SIGNALS, self._patience())
            if info and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True
                self._stop_all()
                self.record["phase"] = _STOPPED
                self._write()
                self.teller.tell("stopped")
                return 0
            dead = self._reap()
            why = f"{dead[0]['name']} ended with exit status {dead[0]['exit']}" if dead else ""
            if self.again_at is not None:
                if self.unwritten:
                    self._write()
                if time.monotonic() < self.again_at:
                    continue
                why = self._start_again()
            if starting and not why:
                why = self._becomes_ready()
            if why:
                rule = self._rule() if self.was_ready else None
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
            if time.monotonic() - self.tended > _TEND_S:
                self._tend()

    def _patience(self) -> float:
        """Seconds until there is something to do though no signal comes."""
        if self.again_at is not None:
            return min(_TEND_S, max(0.0, self.again_at - time.monotonic()))
        starting = self.record["phase"] == _STARTING
        return float(self.host["poll_interval_s"]) if starting else _TEND_S

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

    def _rule(self) -> Optional[dict[str, Any]]:
        """How this node is started again, as the host file says now; None: it is not."""
        found = read_back(Path(self.host["work_dir"]) / "bundle" / "host.json")
        node = find_node(found, self.node["name"]) if "nodes" in found else self.node
        rule: Optional[dict[str, Any]] = node.get("restart") if node else None
        if node is None or rule is None:
            return None
        now = (node["digest"], node.get("secrets"), record.digest(node.get("source_dir")))
        if now != tuple(self.record[key] for key in ("digest", "secrets", "source")):
            # Its files are those of another deployment by now, which nobody has tried.
            self.record["reason"] = (
                "a server ended, and nothing is started again by itself: what was deployed since"
                " differs from what ran"
            )
            return None
        return rule

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
        self.record["restarts"] = {"count": before["count"] + 1, "at": time.time(), "why": why}
        self._write()
        self.teller.tell("died", self.record["reason"])
        return True

    def _start_again(self) -> str:
        """Start all anew; why that cannot be, "" where it can."""
        self.again_at = None
        self.ending = False
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
            for server in self.record["servers"]:
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
        family.end_all(self.record["servers"], signal.SIGKILL, self._adopted)
        self.logs.close(self.host["grace_s"])
        self._reap()

    def _stop_signal(self, pid: int) -> int:
        for server, spec in zip(self.record["servers"], self.node["servers"]):
            if server["process"]["pid"] == pid:
                return int(signal.Signals[spec.get("stop_signal", "SIGTERM")])
        return signal.SIGTERM


def find_node(host: dict[str, Any], name: str) -> Optional[dict[str, Any]]:
    """A node of a host file by its name."""
    return next((node for node in host["nodes"] if node["name"] == name), None)
