"""A running nginx of ours takes other files over without losing a connection.

Its files are copies in its run directory of those in seed_dir; what is written there is what runs.
An instance is taken out by leaving its servers out of the upstream prefill_servers.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from omnikit import host_container, run
from omnikit.errors import ActionError, InputError
from omnikit.health import wait_until
from omnikit.host_pids import pid_here, session_here
from omnikit.host_records import Record, alive, write_atomically
from omnikit.proxy_record import INTERVAL_S, is_leaving

CONF = "nginx.conf"
Node = dict[str, Any]

_UPSTREAM = re.compile(
    r"(?<=upstream prefill_servers \{\n)(.*?)(?=^ {4}\})", re.DOTALL | re.MULTILINE
)
_SERVER = re.compile(r"^\s*server (\S+?)[ ;]")


def differs(node: Node) -> bool:
    """Whether a running proxy has other files than those planned; False where it cannot reload."""
    run_dir = Path(node["temp_dir"])
    return any(_check_sum(run_dir / name) != sum_ for name, sum_ in node.get("files", {}).items())


def _check_sum(path: Path) -> Optional[str]:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def without(text: str, out: Sequence[str]) -> str:
    """nginx.conf without some servers (HOST:PORT) of the upstream of prefill. Pure.

    Raises InputError when one is not there, or none would be left.
    """
    found = _UPSTREAM.search(text)
    lines = found[1].splitlines(keepends=True) if found else []
    servers = {m[1]: line for line in lines if (m := _SERVER.match(line))}
    missing = [name for name in out if name not in servers]
    if found is None or missing:
        raise InputError(
            f"the proxy's configuration has no prefill server {', '.join(missing) or 'at all'}.",
            where=CONF,
            todo="deploy first, so that the proxy knows them: invoke deploy",
        )
    if len(set(out)) == len(servers):
        raise InputError(
            "no prefill server would be left to the proxy.",
            where=CONF,
            todo="leave at least one in",
        )
    gone = {servers[name] for name in out}
    kept = "".join(line for line in lines if line not in gone)
    return text[: found.start()] + kept + text[found.end() :]


def left_out(node: Node) -> list[str]:
    """Prefill servers (HOST:PORT) that are planned but that the running proxy does without."""
    if "files" not in node:
        return []
    planned, running = (_servers(Path(node[key]) / CONF) for key in ("seed_dir", "temp_dir"))
    return [name for name in planned if running and name not in running]


def _servers(path: Path) -> list[str]:
    try:
        found = _UPSTREAM.search(path.read_text(encoding="utf-8"))
    except OSError:
        return []
    return [m[1] for line in (found[1].splitlines() if found else ()) if (m := _SERVER.match(line))]


def files(node: Node, out: Sequence[str] = ()) -> dict[str, str]:
    """The planned files by name, in nginx.conf without some prefill servers."""
    seed = Path(node["seed_dir"])
    made = {name: (seed / name).read_text(encoding="utf-8") for name in node["files"]}
    return {**made, CONF: without(made[CONF], out)} if out else made


def reload(host: Mapping[str, Any], node: Node, record: Record, wanted: Mapping[str, str]) -> bool:
    """Have these files taken over by the running nginx; False when it has them already.

    Raises InputError when nginx does not accept them, ActionError when it does not take them over;
    it then goes on with those it had.
    """
    run_dir, process = Path(node["temp_dir"]), record["servers"][0]["process"]
    master = pid_here(process)
    if master is None or not alive(process):
        raise InputError(f"the proxy {node['name']} does not run.", todo="start it: invoke deploy")
    old = {
        name: (run_dir / name).read_text(encoding="utf-8")
        for name in wanted
        if (run_dir / name).is_file()
    }
    if old == dict(wanted):
        return False
    _accepted(host, node, wanted)
    before = set(session_here(process)) - {master}
    for name, text in wanted.items():
        write_atomically(run_dir / name, text)
    os.kill(master, signal.SIGHUP)

    def taken_over() -> bool:
        now = set(session_here(process)) - {master}
        return bool(now - before) and all(is_leaving(pid) for pid in now & before)

    # An old worker that still answers a request is called "shutting down": it takes no new one.
    done = wait_until(lambda: taken_over() or not alive(process), host["grace_s"], INTERVAL_S)
    if not done or not alive(process):
        for name, text in old.items():
            write_atomically(run_dir / name, text)
        state = "goes on with the old one" if alive(process) else "has ended"
        raise ActionError(
            f"the proxy {node['name']} did not take its new configuration over and {state}.",
            where=f"{node['log_dir']}/error.log",
            todo="see the end of that file",
        )
    return True


def _accepted(host: Mapping[str, Any], node: Node, wanted: Mapping[str, str]) -> None:
    """nginx's own look at files, aside of those in use. Raises InputError with its words."""
    aside = tempfile.mkdtemp(prefix="check.", dir=node["temp_dir"])
    try:
        for name, text in wanted.items():
            write_atomically(Path(aside) / name, text)
        words = [word.replace(node["temp_dir"], aside) for word in node["check"]]
        if node.get("container"):
            words = host_container.exec_words(host["containers"][node["container"]], words)
        done = run.run(words, check=False, timeout=host["grace_s"])
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if done.code != 0:
        raise InputError(
            f"nginx does not accept the configuration:\n{done.tail}",
            where=node["name"],
            todo="mend what it names; nothing was changed",
        )
