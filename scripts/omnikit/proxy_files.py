"""What launch_proxy.py is asked to run: the proxy's files and command, from lists or as rendered.

Standard library only, so that it runs on the hosts; only to render, the toolkit's packages are
imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from omnikit import proxy
from omnikit.errors import InputError
from omnikit.proxy import values

NGINX_CONF = "nginx.conf"
# A shipped environment of each kind, whose section "proxy" is what the options leave open.
ENVIRONMENTS = {"omni-nginx": "1p1d", "nginx-njs": "local"}

_LISTEN = re.compile(r"^\s*listen\s+(?:(\[[^\]\s]+\]|[^\s:;]+):)?([0-9]+)\s*;", re.MULTILINE)
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
        return f"http://{local}:{self.port}{proxy.health_path(self.spec(Path('/')))}"


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
    """What a rendered nginx.conf says about itself. Raises InputError when it cannot be held."""
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
    return Wanted(kind, files, host, port, Path(error_log[1]), settings)


def from_file(kind: str, path: Path, settings: Mapping[str, Any]) -> Wanted:
    """A rendered nginx.conf, with the scripts (*.js) that lie beside it."""
    try:
        files = {NGINX_CONF: path.read_text(encoding="utf-8")}
        for script in sorted(path.parent.glob("*.js")):
            files[script.name] = script.read_text(encoding="utf-8")
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

    spec_of: prefill and decode (addresses), listen_port, log_file, and settings of the section
    "proxy"; what is None there comes from the configuration.
    """
    import os

    try:
        from omnikit import config  # late: needs packages, which a host need not have

        chosen = environment or os.environ.get("OMNIKIT_ENVIRONMENT") or ENVIRONMENTS[kind]
        settings = config.load(chosen, files, assignments).settings
        import jinja2  # noqa: F401 (to fail here, where the reason can be told)
    except ImportError as error:
        raise InputError(
            f"this Python cannot render the proxy's files: {error}.",
            where="--config-file",
            todo="use the toolkit's Python (scripts/setup_toolkit.sh), or render with --dry-run on"
            " a machine that has it and give the result as --config-file",
        ) from error
    given = {key: value for key, value in spec_of.items() if value is not None}
    own = {**settings.proxy.model_dump(), **given}
    log_file = Path(own.get("log_file") or run_dir / "logs" / "error.log").absolute()
    if kind != "omni-nginx":
        _only_omni(kind, own, log_file)
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
    )
    made = proxy.files(spec, "scripts/launch_proxy.py")
    return from_text(kind, made, NGINX_CONF, {"nginx": own["nginx"]})


def _only_omni(kind: str, own: Mapping[str, Any], log_file: Path) -> None:
    """Refuse what a kind would silently ignore."""
    if own["start_core"] is not None:
        raise InputError(
            f"{kind} does not bind its workers to cores.",
            where="proxy.start_core",
            todo="leave --start-core-index out",
        )
    if log_file.name != "error.log":
        raise InputError(
            f"found {log_file.name}, but the error log of {kind} is always called error.log.",
            where="--log-file",
            todo=f"give {log_file.parent / 'error.log'}",
        )
