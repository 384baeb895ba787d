"""The standing fleet to which faults are done (faults.py), with requests flowing all the time.

Hosts behind real SSH (ssh_fleet), stand-ins for engines and NPU tools, a real nginx with Lua:
as many prefill as decode hosts, and one for the proxy alone. Needs root.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import faults
from faults import AGAIN, Fault
from ssh_fleet import STAND_INS, Fleet, ssh_fleet

from hostkit.base.health import request, wait_until
from omnikit.config.layers import control_folder

ROOT = Path(__file__).resolve().parents[2]
NAME = f"faults{os.getpid()}"
_APART_S = 1  # from one fault to the next
_SETTINGS = """\
profile: {{engine: vllm-ascend, omni_version: vllm-ascend-v0.23.0, hardware: a3, model: any}}
runtime: process
{hosts}
topology: {{prefill: [{prefill}], decode: [{decode}], proxy: x0}}
devices: '7'
model: {{path: /data/model, served_name: tiny}}
server:
  command: [python3, {stand_ins}/fleet_server.py]
  env: {{STAND_IN_FAULTS: {faults}, STAND_IN_REQUEST_S: '0.05'}}
ranktable: {{hccn_tool: hccn_tool}}
checks: {{timeout_s: 5}}
proxy: {{kind: nginx-lua, kv_params: mooncake, worker_processes: 2, worker_connections: 1024,
  metrics_from: [{network}.0/24]}}
readiness: {{poll_interval_s: 0.1, deadline_s: 60, request_timeout_s: 2}}
restart: {{policy: on-failure, delay_s: 1, limit: 2, settled_s: 3}}
doctor: {{quiet_s: 3, look_again_s: 1}}
smoke_test: {{timeout_s: 15}}
stop: {{grace_s: 3}}
fleet: {{connect_timeout_s: 4}}
"""


@dataclass
class Outcome:
    """What came of a fault. seconds: from the fault, or from when somebody began to mend it, until
    all servers were served by again; None: serving never stopped.
    """

    name: str
    state: str
    causes: list[str]
    seconds: Optional[float]
    requests: int
    lost: int
    slowest_s: float
    problems: list[str] = field(default_factory=list)


@dataclass
class Sent:
    """A request. why: it was lost, "" otherwise."""

    begun: float
    ended: float
    why: str


class Traffic:
    """Clients who ask all the time, each one request after the other; every second one a stream."""

    def __init__(self, address: str, clients: int = 4, pause_s: float = 0.5) -> None:
        self.address, self.pause_s = address, pause_s
        self.sent: list[Sent] = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self.ending.wait(self.pause_s):
            number += 1
            begun = time.time()
            try:
                why = self._one(number % 2 == 0)
            except (OSError, ValueError, http.client.HTTPException) as error:
                why = f"{type(error).__name__}: {error}"
            self.sent.append(Sent(begun, time.time(), why))

    def _one(self, stream: bool) -> str:
        body = {"model": "tiny", "prompt": "What is lost?", "max_tokens": 8, "stream": stream}
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            return f"{answer.status}: {text[:200]}"
        if not stream:
            return "" if json.loads(text)["choices"][0]["text"] == "x" * 8 else f"wrong: {text}"
        whole = text.count('"text": "x"') == 8 and "data: [DONE]" in text
        return "" if whole else f"stream: {text[-200:]}"


class Stage:
    """The fleet, its environment, and what can be done to a host."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.fleet, self.file = fleet, folder / f"{NAME}.yaml"
        names = list(fleet.hosts)
        self.roles = {
            "proxy": ["x0"],
            "prefill": [n for n in names if n[0] == "p" and n != "p0"],
            "decode": [n for n in names if n[0] == "d"],
            "disk": ["p0"],
        }
        self.turn = dict.fromkeys(self.roles, 0)
        self.places: dict[str, tuple[str, int]] = {}
        made = {r: ", ".join(f"{{hosts: [{n}]}}" for n in names if n[0] == r) for r in "pd"}
        self.file.write_text(
            _SETTINGS.format(
                hosts=fleet.settings(),
                prefill=made["p"],
                decode=made["d"],
                stand_ins=STAND_INS,
                faults=faults.FAULTS,
                network=fleet.network,
            )
        )
        for host in names:
            self._furnish(host)

    def _furnish(self, host: str) -> None:
        for name, text in {
            "config.json": "{}",
            "model.safetensors": "the weights",
            "tokenizer.json": "{}",
            "tokenizer_config.json": '{"chat_template": "{{ messages }}"}',
        }.items():
            self.write(host, f"/data/model/{name}", text)
        if host == "p0":
            self.disk(host, faults.WORK, "size=48m,mode=755")
        if host == "x0":
            self.disk(host, "/var/lib/omnikit", "size=8m,mode=711")

    def disk(self, host: str, place: str, options: str) -> None:
        """A small disk of its own."""
        self.sh(host, f"mkdir -p {place}; mount -t tmpfs -o {options} small {place}")

    @property
    def proxy(self) -> str:
        return f"{self.fleet.hosts['x0'].address}:7000"

    def name(self, role: str, host: str) -> str:
        return self.roles[role][0] if role else host

    def fill(self, text: str, host: str) -> str:
        """Names and addresses for the holes of a rule. other: a partner of the other role."""
        hosts = self.fleet.hosts
        return text.format(
            address=hosts[host].address,
            proxy=hosts["x0"].address,
            other=hosts["p0" if host[0] == "d" else "d0"].address,
            control=f"{self.fleet.network}.254",
            host=host,
        )

    def sh(self, host: str, command: str) -> str:
        """As root on the host, as at its console: also where its network is down."""
        pid = str(self.fleet.hosts[host].pid)
        words = ["nsenter", "--target", pid, "--all", f"--root=/proc/{pid}/root", "--wd=/"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        command = command.replace("{host}", host)
        done = subprocess.run(
            [*words, "env", "-i", path, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{host}: {command}: {done.stderr}"
        return done.stdout

    def write(self, host: str, place: str, text: str) -> None:
        path = self.fleet.hosts[host].path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def record(self, host: str) -> dict[str, Any]:
        node = "c0" if host == "x0" else host
        path = self.fleet.hosts[host].path(f"{faults.WORK}/state/{node}.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def signal(self, host: str, name: str, of: str) -> None:
        record = self.record(host)
        server = [one["process"]["pid"] for one in record["servers"]]
        keeper = [record["supervisor"]["pid"]]
        if of == "worker":
            self.sh(host, f"pkill -{name} {'' if name == 'STOP' else '-n'} -P {server[0]}")
            return
        writer = [record["log_writer"]["pid"]]  # first: it would start another supervisor
        every = [*writer, *keeper, *server]
        pids = {"server": server, "supervisor": keeper, "all": every}[of]
        self.sh(host, f"kill -{name} {' '.join(map(str, pids))} || true")

    def link_up(self, host: str) -> None:
        self.fleet.link(host, up=True)

    def servers(self) -> dict[str, tuple[str, int]]:
        """Where each host's server is, as status has it."""
        if not self.places:
            self.places = {
                node["host"]: (node["servers"][0]["address"], node["servers"][0]["port"])
                for node in self.shown()
            }
        return self.places

    def run(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, f"scripts/{script}", "-e", str(self.file), *words]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def deploy(self) -> None:
        done = self.run("deploy.py", "--yes")
        assert done.returncode == 0, done.stderr

    def pool(self) -> dict[str, str]:
        """Whether each server is in the proxy's pool ("1"), by HOST:PORT; nothing: no answer."""
        told = request(f"http://{self.proxy}/metrics", timeout_s=2).text
        return dict(re.findall(r'in_pool\{.*server="(.+)"\} (\d)', told))

    def whole(self) -> bool:
        """Whether all servers serve, by what a client could ask."""
        pool = self.pool()
        if len(pool) != len(self.fleet.hosts) - 1 or "0" in pool.values():
            return False
        return request(f"http://{self.proxy}/ready", timeout_s=2).status == 200

    def restarts(self, host: str) -> int:
        return int((self.record(host).get("restarts") or {"count": 0})["count"])

    def shown(self) -> list[dict[str, Any]]:
        """The instances, as status has them."""
        done = self.run("status.py", "--json")
        return list(json.loads(done.stdout)["nodes"]) if done.stdout else []

    def state(self, shown: list[dict[str, Any]], case: Case) -> str:
        """The state of an instance."""
        node = next((n for n in shown if n["host"] == case.host), {"state": "?", "servers": []})
        state = str(node["state"])
        if state == "ready" and node["servers"]:
            server = node["servers"][0]
            state = server["state"]
            if state == "ready" and not server["in_pool"]:
                return faults.OUT
        again = (node.get("restarts") or {"count": 0})["count"] > case.before
        return AGAIN if state == "ready" and again else state

    def doctor(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("doctor.py", "--json").stdout)
        return found

    def pick(self, role: str) -> str:
        """The next host of a role: each fault has one that is rested."""
        hosts = self.roles[role]
        self.turn[role] += 1
        return hosts[self.turn[role] % len(hosts)]

    def batches(self, chosen: list[Fault]) -> Iterator[list[Fault]]:
        """Faults that can be at the same time, each on a host of its own, so that others serve on.

        Where all are ready, doctor looks at more; the proxy's have nothing beside them.
        """
        rest = sorted(chosen, key=lambda one: one.state not in faults.SERVING)  # stable
        while rest:
            first, batch = rest[0], []
            room = {role: max(1, len(hosts) * 3 // 4) for role, hosts in self.roles.items()}
            room["prefill"] = max(1, len(self.roles["prefill"]) * 7 // 8)  # there is another one
            lies = False
            for one in list(rest):
                alike = (one.state in faults.SERVING) == (first.state in faults.SERVING)
                if one.alone or first.alone:
                    alike = one is first
                if one.cause == "lying-health" and lies:
                    continue  # a request that meets two in a row is not done a third time
                if alike and room[one.on]:
                    room[one.on] -= 1
                    lies = lies or one.cause == "lying-health"
                    batch.append(one)
                    rest.remove(one)
            yield batch


class Watch:
    """When the proxy was last without a server, by HOST:PORT, and when it did not answer ("")."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.last = stage, dict[str, float]()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def end(self) -> None:
        self.ending.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.ending.wait(0.1):
            pool = self.stage.pool()
            for name, within in pool.items() if pool else [("", "0")]:
                if within == "0":
                    self.last[name] = time.time()


@dataclass
class Case:
    """A fault on its host."""

    fault: Fault
    host: str
    before: int
    began: float = 0.0
    mended: float = 0.0
    state: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def node(self) -> str:
        return "c0" if self.host == "x0" else self.host


def perform(
    stage: Stage, batch: list[Fault], traffic: Traffic, say: Callable[[str], None]
) -> list[Outcome]:
    """Do them, see what an operator sees, have them mended as they are to be, and measure."""
    cases = [Case(one, host, stage.restarts(host)) for one in batch if (host := stage.pick(one.on))]
    began, quiet = time.time(), len(traffic.sent)
    watch = Watch(stage)
    try:
        for case in cases:
            case.began = time.time()
            case.fault.do(stage, case.host)
            wait_until(lambda: False, _APART_S, _APART_S)

        def expected() -> bool:
            shown = stage.shown()
            for case in cases:
                case.state = stage.state(shown, case)
            return all(case.state == case.fault.state for case in cases)

        wait_until(expected, 45, 0.2)
        told = stage.doctor()
        if not all(_named(told, case) for case in cases):  # some are seen after a moment only
            wait_until(lambda: False, 3, 3)
            told = stage.doctor()
        for case in cases:
            if case.state != case.fault.state:
                case.problems.append(f"state {case.state!r} instead of {case.fault.state!r}")
            if not _named(told, case):
                names = [(one["name"], one["on"]) for one in told["findings"]]
                wanted = case.fault.cause or case.fault.note
                case.problems.append(
                    f"not named {wanted!r} on {case.host}: {names} {told['notes']}"
                )
        _mend(stage, cases)
        if not wait_until(stage.whole, 60, 0.1):
            cases[0].problems.append(f"it is not whole again after 60 s: {stage.pool()}")
    finally:
        watch.end()
    if not wait_until(lambda: stage.run("status.py").returncode == 0, 30, 0.5):
        cases[0].problems.append("status afterwards: " + stage.run("status.py").stdout[-600:])
    sent = traffic.sent[quiet:]
    lost = [one for one in sent if one.why]
    if lost and all(case.fault.lossless for case in cases):
        cases[0].problems.append(f"{len(lost)} requests lost, the first: {lost[0].why}")
    made = []
    for case in cases:
        seconds = _recovery(stage, case, watch.last)
        slowest = max((one.ended - one.begun for one in sent), default=0.0)
        causes = [case.fault.cause] if case.fault.cause and not case.problems else []
        figures = (seconds, len(sent), len(lost), round(slowest, 2))
        made.append(Outcome(case.fault.name, case.state, causes, *figures, case.problems))
        say(f"  {case.host:4} {json.dumps(asdict(made[-1]), ensure_ascii=False)}")
    say(f"{time.time() - began:.1f} s for {len(cases)} faults")
    return made


def _named(told: dict[str, Any], case: Case) -> bool:
    """Whether doctor names the cause, and on whom."""
    fault, who = case.fault, rf"\b({case.node}|{case.host})\b"
    if not fault.cause:
        notes = [n for n in told["notes"] if re.search(who, n)]
        return not fault.note or any(fault.note in note for note in notes)
    wanted = (fault.cause, faults.OR.get(fault.cause))
    own = [one for one in told["findings"] if one["name"] in wanted]
    return any(re.search(who, " ".join([*one["on"], *one["evidence"]])) for one in own)


def _recovery(stage: Stage, case: Case, last: dict[str, float]) -> Optional[float]:
    """Seconds until it served again; None: the proxy was never without it."""
    if case.fault.back == faults.SUPERVISOR:
        return round(stage.record(case.host)["ready_at"] - case.began, 1)
    names = [""]
    if case.host != "x0":
        address, port = stage.servers()[case.host]
        names = [f"{address}:{port}"]
    out = max(last.get(name, 0.0) for name in names)
    by_itself = not case.fault.mend and case.fault.back in (faults.ITSELF, faults.SUPERVISOR)
    since = case.began if by_itself else case.mended
    return round(max(0.0, out - since), 1) if out >= case.began else None


def _mend(stage: Stage, cases: list[Case]) -> None:
    """What somebody does outside of the toolkit, then the commands, each once."""
    for case in cases:
        case.mended = time.time()
        if case.fault.mend:
            case.fault.mend(stage, case.host)
    for case in cases:  # all hosts can be reached again
        if case.fault.back == faults.STOP_DEPLOY:
            done = stage.run("stop.py", "--instance", case.node)
            if done.returncode:
                case.problems.append(f"stop: {done.stderr[-400:]}")
        elif case.fault.back == "invoke unlock":
            done = stage.run("unlock.py")
            if done.returncode:
                case.problems.append(f"unlock: {done.stderr[-400:]}")
    begun = time.time()
    if again := [case for case in cases if case.fault.back == faults.RESTART]:
        names = [word for case in again for word in ("--instance", case.node)]
        done = stage.run("restart.py", *names, "--yes")
        for case in again:
            case.mended = begun
            if done.returncode:
                case.problems.append(f"restart: {done.stderr[-400:]}")
    if any(faults.DEPLOY in case.fault.back for case in cases):
        done = stage.run("deploy.py", "--yes")
        for case in cases:
            if faults.DEPLOY in case.fault.back:
                case.mended = begun if case.fault.back == faults.DEPLOY else case.mended
                if done.returncode:
                    case.problems.append(f"deploy: {done.stderr[-600:]}")


@contextmanager
def stage(hosts: int) -> Iterator[Stage]:
    """A deployed fleet of so many hosts."""
    pairs = (hosts - 1) // 2
    names = ["x0", *(f"p{n}" for n in range(hosts - 1 - pairs)), *(f"d{n}" for n in range(pairs))]
    variables = {name: {"FAKE_HCCN_HOST": str(n)} for n, name in enumerate(names)}
    kept = os.environ.get("HOME", "/")
    with tempfile.TemporaryDirectory(prefix="of-") as text:
        folder = Path(text)
        os.environ["HOME"] = text  # kept SSH connections are below it
        try:
            with ssh_fleet(folder / "fleet", names, npu=True, variables=variables) as fleet:
                made = Stage(folder, fleet)
                made.deploy()
                made.servers()
                yield made
        finally:
            os.environ["HOME"] = kept
            shutil.rmtree(control_folder(NAME), ignore_errors=True)
