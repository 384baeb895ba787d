"""Runs the API servers of one node (or a proxy) and tells the truth about them in a record.

One process group, log file and record per server. While the node starts, the death of one ends
all; afterwards a death is recorded and nothing is restarted silently. SIGTERM and SIGINT end all;
if this process is killed, the kernel ends its servers.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

from omnikit import host_source_used, run
from omnikit.health import request, wait_until
from omnikit.host_pids import session_members
from omnikit.host_records import Record, identity, write_record

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_STARTING, _READY, _FAILED, _STOPPED = "starting", "ready", "failed", "stopped"


class Supervisor:
    """node: one entry of host.json's nodes; host: the whole file's data."""

    def __init__(self, host: dict[str, Any], node: dict[str, Any]) -> None:
        self.host = host
        self.node = node
        self.state_dir = Path(host["work_dir"]) / "state"
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.record: Record = {}
        self.stopping = False

    def run(self) -> int:
        """Start, watch, stop. Returns 0 after an ordered stop, 1 when a server died."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        run.adopt_orphans()
        self.record = {
            "node": self.node["name"],
            "role": self.node["role"],
            "digest": self.node["digest"],
            "source": host_source_used.digest(self.node.get("source_dir")),
            "temp_dir": self.node["temp_dir"],
            "container": self._container(),
            "phase": _STARTING,
            "supervisor": identity(os.getpid()),
            "started_at": time.time(),
            "ready_at": None,
            "servers": [],
        }
        self._write()
        temp_dir = Path(self.node["temp_dir"])
        temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.node.get("seed_dir"):
            # A proxy writes beside its configuration: it gets a copy to do so.
            shutil.copytree(self.node["seed_dir"], temp_dir, dirs_exist_ok=True)
        try:
            self._start_all()
            return self._watch()
        finally:
            shutil.rmtree(temp_dir, ignore_errors=True)

    def _container(self) -> Optional[dict[str, Any]]:
        """What it takes to find and end the container that this runs in."""
        spec = self.host.get("containers", {}).get(self.node.get("container"))
        return {key: spec[key] for key in ("name", "engine", "owner", "grace_s")} if spec else None

    def _write(self) -> None:
        write_record(self.state_dir, self.record)

    def _start_all(self) -> None:
        for server in self.node["servers"]:
            log = Path(server["log"])
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                child = run.start(server["argv"], output=output, tied=True)
            self.children[child.pid] = child
            self.record["servers"].append(
                {
                    "name": server["name"],
                    "process": identity(child.pid),
                    "log": server["log"],
                    "state": _STARTING,
                    "started_at": time.time(),
                    "healthy_at": None,
                    "exit": None,
                }
            )
            self._write()

    def _watch(self) -> int:
        interval = self.host["poll_interval_s"]
        deadline = time.monotonic() + self.host["deadline_s"]
        while True:
            starting = self.record["phase"] == _STARTING
            # Nothing to look at once all is ready: sleep until a signal comes.
            info = signal.sigtimedwait(_SIGNALS, interval if starting else 3600)
            if info and info.si_signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self.stopping = True
                self._stop_all()
                self.record["phase"] = _STOPPED
                self._write()
                return 0
            died = self._reap()
            if died and starting:
                self._stop_all()
                self.record["phase"] = _FAILED
                self._write()
                return 1
            if died:
                self.record["phase"] = _FAILED
                self._write()
            if not self.children:
                return 1
            if starting and self._all_healthy():
                self.record["phase"] = _READY
                self.record["ready_at"] = time.time()
                self._write()
            elif starting and time.monotonic() > deadline:
                self.record["reason"] = f"not ready within {self.host['deadline_s']:g} s"
                self._stop_all()
                self.record["phase"] = _FAILED
                self._write()
                return 1

    def _reap(self) -> bool:
        """Collect ended children; True when one of the servers was among them."""
        died = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return died
            if pid == 0:
                return died
            if self.children.pop(pid, None) is None:
                continue  # an orphan from below a server
            died = True
            for server in self.record["servers"]:
                if server["process"]["pid"] == pid:
                    server["exit"] = os.waitstatus_to_exitcode(status)
                    server["ended_at"] = time.time()
                    server["state"] = _STOPPED if self.stopping else _FAILED
                    self._end_session(pid, signal.SIGKILL)

    def _end_session(self, session: int, number: int) -> None:
        """Signal every process of a server's session: workers may have groups of their own."""
        for pid in session_members(session):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

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
        if request(spec["url"] + spec["health"], timeout_s=timeout).status != 200:
            return False
        if spec.get("model") is None:
            return True
        listed = request(spec["url"] + "/v1/models", timeout_s=timeout).json()
        names = [entry.get("id") for entry in (listed or {}).get("data", [])]
        return spec["model"] in names

    def _stop_all(self) -> None:
        """SIGTERM, wait for the grace period, then SIGKILL; sessions are emptied as well."""
        sessions = [server["process"]["pid"] for server in self.record["servers"]]
        for pid in list(self.children):
            run.end_group(pid, self._stop_signal(pid))

        def gone() -> bool:
            self._reap()
            return not self.children

        if not wait_until(gone, self.host["grace_s"], 0.05):
            for pid in list(self.children):
                run.end_group(pid, signal.SIGKILL)
            wait_until(gone, self.host["grace_s"], 0.05)
        for session in sessions:
            self._end_session(session, signal.SIGKILL)

    def _stop_signal(self, pid: int) -> int:
        for server, spec in zip(self.record["servers"], self.node["servers"]):
            if server["process"]["pid"] == pid:
                return int(signal.Signals[spec.get("stop_signal", "SIGTERM")])
        return signal.SIGTERM


def find_node(host: dict[str, Any], name: str) -> Optional[dict[str, Any]]:
    """A node of a host file by its name."""
    return next((node for node in host["nodes"] if node["name"] == name), None)
