"""The hosts' own SSH keys: asked for, compared with what is recorded, recorded once confirmed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from omnikit import run, ssh_options
from omnikit.errors import ActionError, InputError
from omnikit.schema import Host, Settings

_SSH_PORT = 22


@dataclass(frozen=True)
class Seen:
    """What a host shows and what is recorded of it: {type: key in base64} each."""

    name: str
    spec: str
    shown: Mapping[str, str]
    recorded: Mapping[str, str]

    @property
    def state(self) -> str:
        """recorded, new, or changed: a key of a recorded type is another one now."""
        if not self.recorded:
            return "new"
        common = set(self.shown) & set(self.recorded)
        same = all(self.shown[kind] == self.recorded[kind] for kind in common)
        return "recorded" if common and same else "changed"

    def lines(self) -> list[str]:
        """As they stand in a known_hosts file."""
        return [f"{self.spec} {kind} {key}" for kind, key in self.shown.items()]


def spec(host: Host) -> str:
    """How known_hosts names a host: its address, with a port that is not 22 in brackets."""
    port = host.port or _SSH_PORT
    return host.address if port == _SSH_PORT else f"[{host.address}]:{port}"


def file_of(settings: Settings) -> Path:
    """Where host keys are recorded."""
    return Path(ssh_options.known_hosts(settings) or Path("~/.ssh/known_hosts").expanduser())


def scan_words(host: Host, timeout_s: float) -> list[str]:
    """The command that asks a host for its keys, through the jump host if there is one."""
    words = ["ssh-keyscan", "-T", str(round(timeout_s)), "-p", str(host.port or _SSH_PORT)]
    words += ["-t", "ed25519,ecdsa,rsa", host.address]
    if not host.jump:
        return words
    *others, last = host.jump.split(",")
    user, _, place = last.rpartition("@")
    address, _, port = place.partition(":")
    jump = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    jump += ["-J", ",".join(others)] if others else []
    jump += ["-p", port] if port else []
    return [*jump, "--", f"{user}@{address}" if user else address, run.show(words)]


def look(name: str, host: Host, settings: Settings) -> Seen:
    """Ask a host for its keys. Raises ActionError when it does not answer."""
    timeout_s = settings.fleet.connect_timeout_s
    done = run.run(scan_words(host, timeout_s), check=False, timeout=3 * timeout_s)
    shown = _keys(done.out)
    if not shown:
        how = f" through {host.jump} (which needs ssh-keyscan)" if host.jump else ""
        said = done.tail or "no answer"
        raise ActionError(
            f"the SSH server of {host.address}, port {host.port or _SSH_PORT}, shows no key"
            f"{how}: {said}",
            todo="check that the host is up and that the address and port are right",
        )
    return Seen(name, spec(host), shown, _recorded(spec(host), file_of(settings)))


def _keys(text: str) -> dict[str, str]:
    """Keys by type, of lines like those of known_hosts; comments and marked lines are left out."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3 and not line.startswith(("#", "@")):
            found[fields[1]] = fields[2]
    return found


def _recorded(wanted: str, file: Path) -> dict[str, str]:
    """What a known_hosts file has of a host, hashed names included."""
    if not file.is_file():
        return {}
    return _keys(run.run(["ssh-keygen", "-F", wanted, "-f", str(file)], check=False).out)


def fingerprint(kind: str, key: str) -> str:
    """SHA256:… of a key, as ssh shows it."""
    done = run.run(["ssh-keygen", "-l", "-f", "-"], stdin=f"{kind} {key}\n")
    return done.out.split()[1]


def refuse_changed(seen: Sequence[Seen], file: Path) -> None:
    """Raise InputError that names every host whose key is not the recorded one."""
    said = []
    for one in seen:
        if one.state != "changed":
            continue
        before = ", ".join(fingerprint(k, v) for k, v in one.recorded.items())
        now = ", ".join(fingerprint(k, v) for k, v in one.shown.items())
        said.append(
            f"host {one.name}: its host key changed: recorded {before}, now {now}.\n"
            "  What to do: find out why (was it installed anew?); if that is right:"
            f" ssh-keygen -R {run.show([one.spec])} -f {run.show([str(file)])}"
        )
    if said:
        raise InputError("nothing was done.\n" + "\n".join(said), where=str(file))


def expected(path: Path) -> dict[str, set[str]]:
    """Fingerprints by host, of a file with lines "HOST SHA256:…". Raises InputError."""
    found: dict[str, set[str]] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}.", where=str(path)) from error
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 2 or not fields[1].startswith("SHA256:"):
            raise InputError('expected "HOST SHA256:…".', where=f"{path}:{number}")
        found.setdefault(fields[0], set()).add(fields[1])
    return found


def check_expected(one: Seen, wanted: Mapping[str, set[str]]) -> None:
    """Raise InputError when a host shows no key that was expected of it."""
    own = wanted.get(one.name) or wanted.get(one.spec) or set()
    shown = {fingerprint(kind, key) for kind, key in one.shown.items()}
    if not own & shown:
        raise InputError(
            f"host {one.name} shows {', '.join(sorted(shown))},"
            f" expected {', '.join(sorted(own)) or 'nothing: it is not in the file'}.",
            where="--fingerprints",
            todo="do not go on before you know why",
        )


def record(seen: Sequence[Seen], file: Path) -> None:
    """Append new hosts' keys; the file's other lines stay as they are."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    start = "\n" if before and not before.endswith("\n") else ""
    lines = "".join(f"{line}\n" for one in seen for line in one.lines())
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(opened, "w", encoding="utf-8") as out:
        out.write(start + lines)
