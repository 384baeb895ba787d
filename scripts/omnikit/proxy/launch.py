"""Start and reload one nginx proxy of our own, known by its record and by nothing else.

The master runs in a session of its own; RUN_DIR/launch.json says which process it is.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping, Optional

from hostkit.access import service
from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from hostkit.base.records import Record, alive, identity, session_members, survivors
from hostkit.base.redact import Hidden
from hostkit.base.writing import write_atomically
from hostkit.files import regular
from hostkit.nodes import proxy_run, taken_ports
from hostkit.nodes.proxy_run import INTERVAL_S, RECORD, answers, end, is_leaving, read_record
from omnikit import proxy
from omnikit.proxy import values

# What launch_proxy.py is asked to run: the proxy's files and command, from lists or as rendered.
#
# Standard library only, so that it runs on the hosts; only to render, the toolkit's packages are
# imported.

NGINX_CONF = "nginx.conf"
# A shipped environment of each kind, whose section "proxy" is what the options leave open.
ENVIRONMENTS = {"omni-nginx": "1p1d", "nginx-lua": "local"}

_NJS_LOG = "error.log"
# What only omni-nginx can: by what it is called here, the option and what other kinds do instead.
_OMNI_ALONE = {
    "start_core": ("--start-core-index", "does not bind its workers to cores"),
    "metrics": ("--metrics-servers-list", "answers /metrics itself"),
    "client_body_buffer_size": ("--client-body-buffer-size", "has room for the largest request"),
    "stream_ops": ("--stream-ops", "does not change what is asked of the servers"),
    "max_num_seqs": ("--{prefill,decode}-max-num-seqs", "does not count the requests of a server"),
}

_LISTEN = re.compile(
    r"^\s*listen\s+(?:(\[[^\]\s]+\]|[^\s:;]+):)?([0-9]+)(\s+ssl)?\s*;", re.MULTILINE
)
_ERROR_LOG = re.compile(r'^error_log\s+"([^"]+)"', re.MULTILINE)
_FOREGROUND = re.compile(r"^daemon\s+off\s*;", re.MULTILINE)
_PID = re.compile(r"^pid\s+[^/\s;][^;]*;", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """A proxy as it shall run. files: name below run_dir -> text; settings: the nginx binary."""

    kind: str
    files: Mapping[str, str]
    host: str
    port: int
    error_log: Path
    settings: Mapping[str, Any]
    tls: bool = False

    @property
    def texts(self) -> dict[str, str]:
        """What is written: the files, those too that nobody is shown."""
        return {
            name: text.reveal() if isinstance(text, Hidden) else text
            for name, text in self.files.items()
        }

    def spec(self, run_dir: Path) -> proxy.ProxySpec:
        """What proxy.command and proxy.check_command need; the files are rendered already."""
        log_dir = str(self.error_log.parent)
        return proxy.ProxySpec(
            self.kind, self.host, self.port, (), (), str(run_dir), log_dir, self.settings
        )

    @property
    def health_url(self) -> str:
        """Where the proxy itself answers on this machine."""
        local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(self.host, self.host)
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{local}:{self.port}{proxy.health_path(self.spec(Path('/')))}"


def parse_servers(where: str, text: str) -> tuple[tuple[str, int], ...]:
    """(host, port) of each server in "host:port,host:port"; an IPv6 address stands in brackets."""
    found: list[tuple[str, int]] = []
    for part in text.split(",") if text.strip() else []:
        host, _, port = part.strip().rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not re.fullmatch("[0-9]{1,5}", port) or (":" in bare and bare == host):
            raise InputError(
                f"found {part!r}, expected host:port (IPv6: [address]:port).",
                where=where,
                todo=f"for example: {where} 192.0.2.1:9000,192.0.2.2:9001",
            )
        server = (bare, int(port))
        values.address(where, server)
        if server in found:
            raise InputError(f"{part.strip()} stands twice.", where=where, todo="remove one")
        found.append(server)
    return tuple(found)


def from_text(
    kind: str, files: Mapping[str, str], where: str, settings: Mapping[str, Any]
) -> Wanted:
    """What a rendered nginx.conf says about itself. Raises InputError when it cannot be held.

    Without a program in the settings, it is the one that this machine has.
    """
    text = files[NGINX_CONF]
    listen, error_log = _LISTEN.search(text), _ERROR_LOG.search(text)
    lacks = [
        what
        for what, there in (
            ("daemon off;", _FOREGROUND.search(text)),
            ("pid FILE; with a relative name", _PID.search(text)),
            ('error_log "FILE"', error_log),
            ("listen ADDRESS:PORT;", listen),
        )
        if not there
    ]
    if lacks or listen is None or error_log is None:
        raise InputError(
            f"the file lacks: {', '.join(lacks)}.",
            where=where,
            todo="render it with this script: --dry-run prints it",
        )
    host, port = (listen[1] or "*").replace("*", "0.0.0.0"), int(listen[2])
    made = Wanted(kind, files, host, port, Path(error_log[1]), settings, bool(listen[3]))
    found = proxy_run.program(proxy.programs(made.spec(Path("/"))))
    return replace(made, settings={**settings, "nginx": found}) if found else made


def from_file(kind: str, path: Path, settings: Mapping[str, Any]) -> Wanted:
    """A rendered nginx.conf, with the scripts (*.lua), certificate and key beside it."""
    try:
        files = {NGINX_CONF: regular.text(path)}
        beside = [
            *sorted(path.parent.glob("*.lua")),
            *map(path.with_name, service.NAMES.values()),
        ]
        for file in filter(Path.is_file, beside):
            files[file.name] = regular.text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read it: {error}.", where=str(path)) from error
    return from_text(kind, files, str(path), settings)


def rendered(
    spec_of: Mapping[str, Any],
    kind: str,
    run_dir: Path,
    *,
    environment: Optional[str] = None,
    files: tuple[str, ...] = (),
    assignments: tuple[str, ...] = (),
) -> Wanted:
    """The files for given servers. Raises InputError where a value does not fit.

    spec_of: prefill, decode and metrics (addresses), listen_port, log_file, max_num_seqs (by role)
    and settings of the section "proxy"; what is None there comes from the configuration.
    """

    try:
        from omnikit.config import config  # late: needs packages, which a host need not have
        from omnikit.topology.topology import make_plan

        chosen = environment or os.environ.get("OMNIKIT_ENVIRONMENT") or ENVIRONMENTS[kind]
        loaded = config.load(chosen, files, assignments)
        import jinja2  # noqa: F401 (to fail here, where the reason can be told)
    except ImportError as error:
        raise InputError(
            f"this Python cannot render the proxy's files: {error}.",
            where="--config-file",
            todo="use the toolkit's Python (scripts/setup_toolkit.sh), or render with --dry-run on"
            " a machine that has it and give the result as --config-file",
        ) from error
    settings = loaded.settings
    given = {key: value for key, value in spec_of.items() if value is not None}
    own = {**settings.proxy.model_dump(), **given}
    if kind != "omni-nginx":
        _only_omni(kind, given)
        own["log_file"] = given.get("log_file", _NJS_LOG)
    if "max_num_seqs" in given:  # which its nginx then knows
        own["pd_score_limit"] = "max_num_seqs"
    if kind == "omni-nginx" and own["pd_score_limit"] == "max_num_seqs":
        plan = make_plan(loaded).proxy
        planned = plan.max_num_seqs if plan else {}
        own["max_num_seqs"] = {**planned, **given.get("max_num_seqs", {})}
    # A mere name lies below run_dir.
    log_file = (run_dir / "logs" / own["log_file"]).absolute()
    own["log_file"] = str(log_file)
    spec = proxy.ProxySpec(
        kind,
        own["listen_host"],
        given.get("listen_port", settings.ports.proxy),
        given["prefill"],
        given["decode"],
        str(run_dir),
        str(log_file.parent),
        own,
        given.get("metrics", ()),
    )
    made = proxy.files(spec, "scripts/launch_proxy.py")
    made.update(_secret_files(settings))
    return from_text(kind, made, NGINX_CONF, {"nginx": own["nginx"]})


def _secret_files(settings: Any) -> dict[str, str]:
    """Keys, certificate and its private key, which only the launched proxy gets to see."""
    from omnikit.access import targets

    text = targets.proxy_file(settings)
    made: dict[str, str] = {}
    if text is not None:
        made[targets.PROXY_FILE] = text
    tls = settings.proxy.tls.model_dump(include={"certificate", "key"})
    if tls["certificate"] is not None:
        fault = service.problem(tls)
        if fault:
            raise InputError(fault, where="proxy.tls", todo="nothing was changed")
        made.update({n: Hidden(text) for n, text in service.texts(tls).items()})
    return made


def _only_omni(kind: str, given: Mapping[str, Any]) -> None:
    """Refuse what was asked for and a kind would silently ignore."""
    for key, (option, why) in _OMNI_ALONE.items():
        if key in given:
            raise InputError(f"{kind} {why}.", where=option, todo="leave it out")
    log_file = Path(given.get("log_file", _NJS_LOG))
    if log_file.name != _NJS_LOG:
        raise InputError(
            f"found {log_file.name}, but the error log of {kind} is always called {_NJS_LOG}.",
            where="--log-file",
            todo=f"give {log_file.parent / _NJS_LOG}",
        )


_OUTPUT = "nginx.out"


def digest(wanted: Wanted, run_dir: Path) -> str:
    """Changes with the proxy's files and its command."""
    words = proxy.command(wanted.spec(run_dir))
    text = json.dumps([wanted.kind, words, sorted(wanted.texts.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def look(wanted: Wanted, run_dir: Path) -> str:
    """What up would do: start, reload or unchanged. Changes nothing.

    Raises InputError when the port is taken or the running proxy cannot become the wanted one.
    """
    record = read_record(run_dir)
    running = record if record and alive(record["process"]) else None
    if running and running["command"] != proxy.command(wanted.spec(run_dir)):
        raise InputError(
            f"the proxy that runs (pid {running['process']['pid']}) is {running['command'][0]}.",
            where="--nginx",
            todo=f"stop it first: launch_proxy.py --stop --run-dir {run_dir}",
        )
    if running and running["digest"] == digest(wanted, run_dir):
        return "unchanged"
    if running is None or (running["host"], running["port"]) != (wanted.host, wanted.port):
        _refuse_taken_port(wanted, survivors(record["process"]) if record else [])
    return "reload" if running else "start"


def _refuse_taken_port(wanted: Wanted, ours: list[int]) -> None:
    if taken_ports.is_taken(wanted.host.strip("[]"), wanted.port):
        owner = taken_ports.owner(wanted.port)
        if not any(f"pid {pid} " in owner for pid in ours):
            raise InputError(
                f"port {wanted.port} is taken by {owner}.",
                where="--listen-port",
                todo="end that process, or give another port",
            )


def up(wanted: Wanted, run_dir: Path, deadline_s: float, *, reload: bool = False) -> str:
    """Bring the proxy to what is wanted: started, reloaded or unchanged.

    reload: only change a running proxy, and reload it even if nothing changed.
    """
    action = look(wanted, run_dir)
    if reload and action == "start":
        raise InputError(
            "there is no running proxy to reload.",
            where=str(run_dir),
            todo="leave --reload out to start it",
        )
    if action == "unchanged" and not reload:
        return action
    _refuse_missing(wanted, run_dir)
    for folder in (run_dir, wanted.error_log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    check(wanted, run_dir, deadline_s)
    if action == "start":
        _start(wanted, run_dir, deadline_s)
        return "started"
    _reload(wanted, run_dir, deadline_s)
    return "reloaded"


def _refuse_missing(wanted: Wanted, run_dir: Path) -> None:
    """Raise InputError for a program or module that is not here; say what will not be as wanted."""
    text = wanted.files[NGINX_CONF]
    programs = proxy.programs(wanted.spec(Path("/")))
    lacks = proxy_run.lacking("this machine or container", programs, proxy_run.modules(text))
    if lacks:
        raise lacks
    notes = [proxy_run.unbound(proxy_run.cores(text))]
    notes += [proxy_run.closed(run_dir)] if wanted.kind == "omni-nginx" else []
    for note in filter(None, notes):
        say(f"note: {note}")


def check(wanted: Wanted, run_dir: Path, timeout_s: float) -> None:
    """nginx's own look at the files, aside of those in use. Raises InputError with its words."""
    aside = Path(tempfile.mkdtemp(prefix="check.", dir=run_dir))
    try:
        _write(wanted, aside)
        words = proxy.check_command(wanted.spec(aside)) or []
        done = run.run(words, check=False, timeout=timeout_s)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if done.code != 0:
        raise InputError(
            f"nginx does not accept the configuration:\n{done.tail}",
            where=words[0],
            todo="mend what it names; nothing was changed",
        )


def _write(wanted: Wanted, folder: Path) -> None:
    for name, text in wanted.texts.items():
        write_atomically(folder / name, text, 0o600)


def _save(wanted: Wanted, run_dir: Path, process: Record) -> None:
    record = {
        "process": process,
        "kind": wanted.kind,
        "command": proxy.command(wanted.spec(run_dir)),
        "digest": digest(wanted, run_dir),
        "host": wanted.host,
        "port": wanted.port,
        "error_log": str(wanted.error_log),
        "health_url": wanted.health_url,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    write_atomically(run_dir / RECORD, json.dumps(record, indent=1) + "\n")


def _start(wanted: Wanted, run_dir: Path, deadline_s: float) -> None:
    left = read_record(run_dir)
    if left is not None and survivors(left["process"]):
        say("ending workers that a dead master left")
        end(left, deadline_s, deadline_s)
    _write(wanted, run_dir)
    output = run_dir / _OUTPUT
    logs = {path: _size(path) for path in (output, wanted.error_log)}
    with output.open("ab") as file:
        child = run.start(proxy.command(wanted.spec(run_dir)), output=file, cwd=run_dir)
    ready = False
    try:
        _save(wanted, run_dir, identity(child.pid))
        done = wait_until(
            lambda: child.poll() is not None or answers(wanted.health_url, deadline_s),
            deadline_s,
            INTERVAL_S,
        )
        ready = done and child.poll() is None
    finally:
        if not ready:  # also on Ctrl-C: nothing half started stays
            run.end_group(child.pid, signal.SIGKILL)
            child.wait()
            (run_dir / RECORD).unlink(missing_ok=True)
    if not ready:
        said = next(filter(None, (_tail(*log) for log in logs.items())), "it said nothing")
        raise ActionError(f"nginx did not start:\n{said}", where=str(wanted.error_log))


def _reload(wanted: Wanted, run_dir: Path, deadline_s: float) -> None:
    record = read_record(run_dir)
    assert record is not None  # look() saw it, and we hold the lock
    master = int(record["process"]["pid"])
    before = set(session_members(master)) - {master}
    old = {name: (run_dir / name).read_text(encoding="utf-8") for name in _present(wanted, run_dir)}
    logs = {path: _size(path) for path in (Path(record["error_log"]), run_dir / _OUTPUT)}
    _write(wanted, run_dir)
    os.kill(master, signal.SIGHUP)

    def refused() -> str:
        new = "\n".join(_tail(path, start) for path, start in logs.items())
        return "\n".join(line for line in new.splitlines() if "[emerg]" in line)

    def taken_over() -> bool:
        now = set(session_members(master)) - {master}
        return bool(now - before) and all(is_leaving(pid) for pid in now & before)

    def failed() -> bool:
        return bool(refused()) or not alive(record["process"])

    done = wait_until(lambda: failed() or taken_over(), deadline_s, INTERVAL_S)
    if failed() or not done:
        for name, text in old.items():
            write_atomically(run_dir / name, text, 0o600)
        goes_on = "goes on with the old one" if alive(record["process"]) else "has ended"
        raise ActionError(
            f"nginx did not take the new configuration over and {goes_on}:\n"
            + (refused() or f"not all workers changed within {deadline_s:g} s"),
            where=record["error_log"],
        )
    _save(wanted, run_dir, record["process"])


def _present(wanted: Wanted, run_dir: Path) -> list[str]:
    return [name for name in wanted.files if (run_dir / name).is_file()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(path: Path, start: int) -> str:
    """The last lines of a log from a place on; all of one that was shortened meanwhile."""
    try:
        text = path.read_bytes()[start if _size(path) >= start else 0 :].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-8:])
