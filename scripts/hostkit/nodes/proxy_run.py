"""The proxy where it runs: its program, and how a running nginx takes other files over.

Which program it is, is looked for on the machine or in the container that runs it. A running nginx
takes files over without losing a connection.

Its files are copies in its run directory of those in seed_dir; what is written there is what runs.
An instance is taken out by leaving its servers out of the upstream prefill_servers or
decode_servers, which omni-infer's module wants to be called prefill_endpoints, decode_endpoints.
A proxy that was launched by itself (launch_proxy.py) has a record in its run directory, which says
what runs and is ended by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Mapping, Optional, Sequence

from hostkit.access import service
from hostkit.access.service import Service
from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from hostkit.base.records import (
    Record,
    alive,
    pid_here,
    session_here,
    survivors,
)
from hostkit.base.records import (
    read_record as read_node_record,
)
from hostkit.base.writing import write_atomically
from hostkit.containers import containers
from hostkit.nodes import history

CONF = "nginx.conf"
Node = dict[str, Any]

_POOL = re.compile(
    r"(?<=upstream )((?:prefill|decode)_(?:servers|endpoints) \{\n)(.*?)(?=^ {4}\})",
    re.DOTALL | re.MULTILINE,
)
_MODULE = re.compile(r'^load_module "(.+)";$', re.MULTILINE)
_AFFINITY = re.compile(r"^worker_cpu_affinity ([01 ]+);$", re.MULTILINE)
_SERVER = re.compile(r"^\s*server (\S+?)[ ;]")
_IN_POOL = re.compile(
    r"^( +server ([^\s;]+:[0-9]+)(?: [^;#\n]*)?;)(?: +# version (\S+))?$", re.MULTILINE
)


def with_program(node: Node) -> Node:
    """The node with the program that this machine, or this container, has for it in its command.

    The last one where none is found: the environment that its command loads may have it in PATH.
    """
    found = program(node["programs"]) or node["programs"][-1]
    [server] = node["servers"]
    argv = [found if word == node["programs"][0] else word for word in server["argv"]]
    return {**node, "servers": [{**server, "argv": argv, "program": found}]}


def program(places: Sequence[str]) -> Optional[str]:
    """The first of some programs (paths, or names in PATH) that this machine has."""
    return next((found for name in places if (found := shutil.which(name))), None)


def modules(conf: str) -> list[str]:
    """The modules that nginx.conf loads."""
    return _MODULE.findall(conf)


def lacking(place: str, programs: Sequence[str], modules: Sequence[str]) -> Optional[InputError]:
    """What of a proxy's program and modules is not on this machine; place: what it is called."""
    lacks = [name for name in modules if not Path(name).is_file()]
    return refusal(place, programs, program(programs) is not None, lacks)


def refusal(
    place: str, programs: Sequence[str], found: bool, lacks: Sequence[str]
) -> Optional[InputError]:
    """The error for a place without any of the programs, or without modules; None: all is there."""
    if not found:
        shown = [name if "/" in name else f"{name} in PATH" for name in programs]
        return InputError(
            f"{place} has no program for the proxy: looked for {', then '.join(shown)}.",
            where="proxy.nginx",
            todo="take an image that has it (container.image), or name the program's place there:"
            " proxy.nginx",
        )
    if lacks:
        return InputError(
            f"{place} lacks modules that the proxy loads: {', '.join(lacks)}.",
            where="proxy.modules_dir",
            todo="take an image that has them (container.image), name their folder there"
            " (proxy.modules_dir), or choose other balancers (proxy.prefill_balance,"
            " proxy.decode_balance)",
        )
    return None


def closed(run_dir: Path) -> str:
    """What is to be said of a folder that nginx's workers, who are not root, cannot enter; "" else.

    They keep requests there that are larger than client_body_buffer_size.
    """
    folders = [run_dir, *run_dir.parents] if os.geteuid() == 0 else []
    shut = [one for one in folders if one.is_dir() and not one.stat().st_mode & 0o001]
    if not shut:
        return ""
    return (
        f"nginx's workers cannot enter {shut[-1]}: requests above client_body_buffer_size, which"
        f" they keep in {run_dir}, fail."
        f" What to do: chmod o+x {shut[-1]}, or give another --run-dir"
    )


def cores(conf: str) -> int:
    """The cores that nginx.conf binds workers to, counted with those below; 0: it binds none."""
    found = _AFFINITY.search(conf)
    return max(map(len, found[1].split())) if found else 0


def unbound(cores: int) -> str:
    """What is to be said when this host has fewer cores than nginx is bound to; "": nothing."""
    there = os.cpu_count() or cores
    if cores <= there:
        return ""
    return (
        f"the proxy's workers are to be bound to cores up to {cores - 1}, this host has 0 to"
        f" {there - 1}: nginx leaves a worker unbound whose core is not there."
        " What to do: set proxy.start_core to a lower one, or to null (not bound)"
    )


def differs(node: Node) -> bool:
    """Whether a running proxy has other files than those planned; False where it cannot reload."""
    run_dir = Path(node["temp_dir"])
    if any(_check_sum(run_dir / name) != sum_ for name, sum_ in node.get("files", {}).items()):
        return True
    tls = node.get("tls") or {}
    return any(
        _check_sum(run_dir / service.NAMES[kind]) != _check_sum(Path(path))
        for kind, path in tls.items()
    )


def place_certificate(node: Node) -> None:
    """Copies of certificate and key in the run directory, which a container has too."""
    if node.get("tls"):
        run_dir = Path(node["temp_dir"])
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in _certificate(node).items():
            write_atomically(run_dir / name, text, 0o600)


def _certificate(node: Node) -> dict[str, str]:
    """Certificate and key by the names that nginx has for them. Raises InputError."""
    if not node.get("tls"):
        return {}
    fault = service.problem(node["tls"])
    if fault:
        raise InputError(fault, where=node["name"])
    return service.texts(node["tls"])


def _check_sum(path: Path) -> Optional[str]:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def without(text: str, out: Sequence[str]) -> str:
    """nginx.conf without some servers (HOST:PORT) of the pools of prefill and decode. Pure.

    Raises InputError when one is not there, or none would be left to a pool.
    """
    missing, emptied = dict.fromkeys(out), []

    def kept(pool: re.Match[str]) -> str:
        lines = pool[2].splitlines(keepends=True)
        names = [m[1] if (m := _SERVER.match(line)) else "" for line in lines]
        gone = set(names) & set(out)
        for name in gone:
            missing.pop(name, None)
        if gone and not set(names) - gone - {""}:
            emptied.append(pool[1].partition("_")[0])
        return pool[1] + "".join(one for one, name in zip(lines, names) if name not in gone)

    made = _POOL.sub(kept, text)
    if missing:
        raise InputError(
            f"the proxy's configuration has no server {', '.join(missing)}.",
            where=CONF,
            todo="deploy first, so that the proxy knows them: invoke deploy",
        )
    if emptied:
        raise InputError(
            f"no {emptied[0]} server would be left to the proxy.",
            where=CONF,
            todo="leave at least one in",
        )
    return made


def with_versions(text: str, versions: Mapping[str, str]) -> str:
    """nginx.conf with these words as the versions of some servers (HOST:PORT). Pure.

    A prefill and a decode server of two words are never paired: who restarts servers one by one
    gives those that still are to be restarted the word that they had.
    """

    def renewed(line: re.Match[str]) -> str:
        word = versions.get(line[2])
        return line[0] if word is None else f"{line[1]}  # version {word}"

    return _IN_POOL.sub(renewed, text)


def versions(text: str) -> dict[str, str]:
    """The version of each server (HOST:PORT) of nginx.conf that has one."""
    return {line[2]: line[3] for line in _IN_POOL.finditer(text) if line[3]}


def left_out(node: Node) -> list[str]:
    """Servers (HOST:PORT) that are planned but that the running proxy does without."""
    if "files" not in node:
        return []
    running = _servers(_text(node, "temp_dir"))
    return [name for name in planned(node) if running and name not in running]


def planned(node: Node) -> list[str]:
    """The servers (HOST:PORT) of the proxy's planned configuration."""
    return _servers(_text(node, "seed_dir"))


def running_versions(node: Node) -> dict[str, str]:
    """The version of each server (HOST:PORT) that the running proxy has one of."""
    return versions(_text(node, "temp_dir")) if "files" in node else {}


def _text(node: Node, folder: str) -> str:
    try:
        return (Path(node[folder]) / CONF).read_text(encoding="utf-8")
    except OSError:
        return ""


def _servers(text: str) -> list[str]:
    lines = [line for pool in _POOL.finditer(text) for line in pool[2].splitlines()]
    return [m[1] for line in lines if (m := _SERVER.match(line))]


def files(
    node: Node, out: Sequence[str] = (), had: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The planned files by name, in nginx.conf without some servers.

    had: the versions of servers (HOST:PORT) that do not run what is planned yet.
    """
    seed = Path(node["seed_dir"])
    made = {name: (seed / name).read_text(encoding="utf-8") for name in node["files"]}
    made.update(_certificate(node))
    if had:
        made[CONF] = with_versions(made[CONF], had)
    return {**made, CONF: without(made[CONF], out)} if out else made


def mend_folder(node: Node) -> bool:
    """Make a node's run folder again where somebody removed it; True when it was."""
    run_dir = Path(node["temp_dir"])
    if run_dir.is_dir():
        return False
    run_dir.mkdir(parents=True, mode=0o700)
    if node.get("seed_dir"):
        shutil.copytree(node["seed_dir"], run_dir, dirs_exist_ok=True)
        run_dir.chmod(0o711)
    return True


def reload(host: Mapping[str, Any], node: Node, record: Record, wanted: Mapping[str, str]) -> bool:
    """Have these files taken over by the running nginx; False when it has them already.

    Raises InputError when nginx does not accept them, ActionError when it does not take them over;
    it then goes on with those it had.
    """
    run_dir, process = Path(node["temp_dir"]), record["servers"][0]["process"]
    master = pid_here(process)
    if master is None or not alive(process):
        raise InputError(f"the proxy {node['name']} does not run.", todo="start it: invoke deploy")
    lost = mend_folder(node)  # nginx makes what it keeps there anew
    old = {
        name: (run_dir / name).read_text(encoding="utf-8")
        for name in wanted
        if (run_dir / name).is_file()
    }
    if old == dict(wanted) and not lost:
        return False
    _accepted(host, node, record, wanted)
    before = set(session_here(process)) - {master}
    for name, text in wanted.items():
        write_atomically(run_dir / name, text, 0o600)
    os.kill(master, signal.SIGHUP)

    def taken_over() -> bool:
        now = set(session_here(process)) - {master}
        return bool(now - before) and all(is_leaving(pid) for pid in now & before)

    # An old worker that still answers a request is called "shutting down": it takes no new one.
    done = wait_until(lambda: taken_over() or not alive(process), host["grace_s"], INTERVAL_S)
    if not done or not alive(process):
        for name, text in old.items():
            write_atomically(run_dir / name, text, 0o600)
        state = "goes on with the old one" if alive(process) else "has ended"
        raise ActionError(
            f"the proxy {node['name']} did not take its new configuration over and {state}.",
            where=node["log_dir"],
            todo="see the end of nginx's error log there",
        )
    out = left_out(node)
    without_them = f"without {', '.join(out)}" if out else None
    history.Teller(host, node).tell("reloaded", without_them)
    return True


def replace(host: Mapping[str, Any], node: Node, record: Record, wanted: Mapping[str, str]) -> bool:
    """Have the supervisor start another nginx with these files on the port that the running one
    has, which then finishes its requests and ends. Raises InputError where nginx does not accept
    the files, ActionError where it is not replaced.
    """
    if not record.get("hands_over") or not alive(record["supervisor"]):
        raise InputError(f"the proxy {node['name']} cannot hand its port over.")
    # What is in its container is not to be seen from here.
    program = None if node.get("container") else with_program(node)["servers"][0]["program"]
    _accepted(host, node, record, wanted, program)
    write_next(Path(node["temp_dir"]), wanted)
    state_dir, before = Path(host["work_dir"]) / "state", record.get("replaced")
    supervisor = pid_here(record["supervisor"])
    if supervisor is not None:
        os.kill(supervisor, signal.SIGUSR2)
    now: dict[str, Any] = {}

    def ended() -> bool:
        now.update(read_node_record(state_dir, node["name"]) or {})
        return now.get("replaced") != before or not alive(record["supervisor"])

    wait_until(ended, 2 * host["deadline_s"], INTERVAL_S)
    told = now.get("replaced")
    if told == before or told is None or told["why"]:
        why = told["why"] if told and told != before else "its supervisor does not say why"
        raise ActionError(
            f"the proxy {node['name']} was not replaced: {why}.",
            where=node["log_dir"],
            todo="see the end of nginx's error log there",
        )
    return True


_NEXT = "next"  # in the run folder: files that the one which takes over gets


def write_next(run_dir: Path, wanted: Mapping[str, str]) -> None:
    """Lay files ready for a process that takes over."""
    shutil.rmtree(run_dir / _NEXT, ignore_errors=True)
    (run_dir / _NEXT).mkdir(mode=0o700)
    for name, text in wanted.items():
        write_atomically(run_dir / _NEXT / name, text, 0o600)


def take_next(run_dir: Path) -> dict[str, str]:
    """Put these files in place; those that were there."""
    old = {}
    for path in sorted((run_dir / _NEXT).iterdir()):
        there = run_dir / path.name
        if there.is_file():
            old[path.name] = there.read_text(encoding="utf-8")
        write_atomically(there, path.read_text(encoding="utf-8"), 0o600)
    shutil.rmtree(run_dir / _NEXT)
    return old


def listening(pid: int, ports: Sequence[Sequence[Any]]) -> list[int]:
    """Copies of the sockets on which a process listens at these ports. Raises OSError."""
    there = os.pidfd_open(pid)
    found = []
    try:
        paths = [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists()]
        sockets = {str(path.readlink()): int(path.name) for path in paths if path.is_socket()}
        for number in sockets.values():
            copy = get_descriptor(there, number)
            with socket.socket(fileno=os.dup(copy)) as one:
                inet = one.family in (socket.AF_INET, socket.AF_INET6)
                listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                ours = inet and listens and one.getsockname()[1] in [port for _, port in ports]
            found.append(copy) if ours else os.close(copy)
    finally:
        os.close(there)
    return found


_PIDFD_GETFD = 438  # on every architecture, since Linux 5.6


def get_descriptor(pidfd: int, number: int) -> int:
    """A copy of another process's descriptor (pidfd_getfd(2)). Raises OSError."""
    import ctypes

    copy = int(ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0))
    if copy < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return copy


def hands_over() -> bool:
    """Whether this kernel, or this container, lets a process be asked for its sockets."""
    try:
        own = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return False
    try:
        os.close(get_descriptor(own, own))
    except OSError:
        return False
    finally:
        os.close(own)
    return True


def _accepted(
    host: Mapping[str, Any],
    node: Node,
    record: Record,
    wanted: Mapping[str, str],
    program: Optional[str] = None,
) -> None:
    """nginx's own look at files, aside of those in use. Raises InputError with its words.

    program: None is the one that runs.
    """
    aside = tempfile.mkdtemp(prefix="check.", dir=node["temp_dir"])
    try:
        for name, text in wanted.items():
            write_atomically(Path(aside) / name, text, 0o600)
        words = [word.replace(node["temp_dir"], aside) for word in node["check"]]
        words[0] = program or record["servers"][0].get("program", words[0])
        if node.get("container"):
            words = containers.exec_words(host["containers"][node["container"]], words)
        done = run.run(words, check=False, timeout=host["grace_s"])
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if done.code != 0:
        raise InputError(
            f"nginx does not accept the configuration:\n{done.tail}",
            where=node["name"],
            todo="mend what it names; nothing was changed",
        )


RECORD = "launch.json"
LOCK = "launch.lock"
INTERVAL_S = 0.02


def read_record(run_dir: Path) -> Optional[Record]:
    """What was started from run_dir, or None."""
    path = run_dir / RECORD
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ActionError(
            f"the record of the proxy cannot be read: {error}.",
            where=str(path),
            todo="see what runs (ps -ef | grep nginx), end it, then remove the file",
        ) from error
    return record


def answers(url: str, timeout_s: float) -> bool:
    own = Service(url, own=url.startswith("https:"))
    return own.request("", timeout_s=timeout_s).status == 200


def is_leaving(worker: int) -> bool:
    """Whether an old worker takes no new connections: nginx says so in its title."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return True
    return not title or b"shutting down" in title  # no title: it just ended


def stop(run_dir: Path, grace_s: float, deadline_s: float) -> str:
    """End the recorded nginx after its requests: stopped, forgotten (a mere record), unchanged."""
    record = read_record(run_dir)
    if record is None:
        return "unchanged"
    ran = bool(survivors(record["process"]))
    end(record, grace_s, deadline_s)
    (run_dir / RECORD).unlink(missing_ok=True)
    return "stopped" if ran else "forgotten"


def end(record: Record, grace_s: float, deadline_s: float) -> None:
    """SIGQUIT: finish the requests in flight; then SIGTERM, SIGKILL. Only the record's session."""
    process = record["process"]
    steps = [(signal.SIGQUIT, grace_s), (signal.SIGTERM, deadline_s), (signal.SIGKILL, deadline_s)]
    for number, wait_s in steps:
        # The master hands SIGQUIT and SIGTERM on; without one, each worker is told.
        told = [int(process["pid"])] if alive(process) else survivors(process)
        if number == signal.SIGKILL:
            told = survivors(process)
        if number == signal.SIGTERM and told:
            say(f"requests were still in flight after {grace_s:g} s: they are cut off")
        for pid in told:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if wait_until(lambda: not survivors(process), wait_s, INTERVAL_S):
            return
    raise ActionError(
        f"nginx (pid {process['pid']}) does not react to SIGKILL.",
        todo=f"see what it waits for: ps -o pid,stat,wchan:30,args -g {process['pid']}",
    )


def status(run_dir: Path, timeout_s: float) -> dict[str, Any]:
    """What runs: state is running, silent (it does not answer), died or stopped."""
    record = read_record(run_dir)
    if record is None:
        return {"state": "stopped", "run_dir": str(run_dir)}
    members = survivors(record["process"])
    leaving = [pid for pid in members if is_leaving(pid)]
    state = "died"
    if alive(record["process"]):
        state = "running" if answers(record["health_url"], timeout_s) else "silent"
    return {
        "state": state,
        "run_dir": str(run_dir),
        "pid": record["process"]["pid"],
        "kind": record["kind"],
        "listen": f"{record['host']}:{record['port']}",
        "workers": len(members) - len(leaving) - (state != "died"),
        "finishing": len(leaving),
        "error_log": record["error_log"],
        "since": record["since"],
    }
