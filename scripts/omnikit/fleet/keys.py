"""SSH keys: this machine's, made and added to each host, and the hosts' own, recorded here."""

from __future__ import annotations

import os
import re
import shlex
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.files import regular
from omnikit.config.schema import Host, Settings
from omnikit.fleet import direct_ssh

# The hosts' own SSH keys: asked for, compared with what is recorded, recorded once confirmed.

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
    return Path(direct_ssh.known_hosts(settings) or Path("~/.ssh/known_hosts").expanduser())


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
        text = regular.text(path)
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


# On the host: $1 is the public key. Only what is missing is written; other lines stay.
_ADD = """\
set -eu
umask 077
mkdir -p "$HOME/.ssh"
keys=$HOME/.ssh/authorized_keys
[ -e "$keys" ] || : >"$keys"
if grep -qxF -- "$1" "$keys"; then said=unchanged; else
  if [ -s "$keys" ] && [ -n "$(tail -c 1 "$keys")" ]; then echo >>"$keys"; fi
  printf '%s\\n' "$1" >>"$keys"
  said=added
fi
chmod 700 "$HOME/.ssh"
chmod 600 "$keys"
if command -v restorecon >/dev/null 2>&1; then restorecon -R "$HOME/.ssh" || :; fi
echo "omnikit: $said"
"""
_MODES = {"": 0o600, ".pub": 0o644}
# What ssh says, what it means, what to do about it.
_FAULTS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        "its host key is not the recorded one",
        "invoke setup-keys, which compares them",
    ),
    (
        r"Permission denied \((?!.*(password|keyboard))",
        "it takes keys only, and none of yours is allowed there",
        "add the public key by hand as its administrator: {public}",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "wrong user or password, or the user may not log in with a password",
        "check hosts.{name}.user and the password; on the host: PermitRootLogin, AllowUsers",
    ),
    (
        r"Connection refused|timed out|No route to host|Could not resolve|Connection closed|reset",
        "it cannot be reached",
        "check address, port and network: hosts.{name}",
    ),
)


@dataclass
class Access:
    """What became of one host: key, host_key, authorized, proof in words; error if it failed."""

    name: str
    key: str = "-"
    host_key: str = "-"
    authorized: str = "-"
    proof: str = "-"
    error: Optional[str] = None


def ensure_pair(path: Path, comment: str, *, dry_run: bool = False) -> str:
    """An ed25519 key pair with right modes: made, mended or unchanged. Raises InputError."""
    public = path.with_name(path.name + ".pub")
    if not path.exists():
        if dry_run:
            return "would be made"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
        return "made"
    mended = False
    if not public.exists():
        if dry_run:
            return "would be mended"
        made = run.run(["ssh-keygen", "-y", "-P", "", "-f", str(path)], check=False)
        if made.code != 0:
            raise InputError(
                f"there is no public key {public}, and it cannot be told from the private one"
                f" (has it a passphrase?): {made.tail}",
                todo=f"ssh-keygen -y -f {path} > {public}",
            )
        public.write_text(made.out, encoding="utf-8")
        mended = True
    for ending, mode in _MODES.items():
        file = path.with_name(path.name + ending)
        if stat.S_IMODE(file.stat().st_mode) & ~mode:
            mended = True
            if not dry_run:
                file.chmod(mode)
    if not mended:
        return "unchanged"
    return "would be mended" if dry_run else "mended"


def key_path(host: Host, settings: Settings) -> Path:
    """The key that a host is to take."""
    return Path(host.private_key or settings.keys.private_key).expanduser()


def _words(host: Host, settings: Settings, *options: str) -> list[str]:
    words = ["ssh", *direct_ssh.words(host, settings)]
    key = str(key_path(host, settings))
    if key not in words:
        words += ["-i", key]
    words += ["-o", f"ConnectTimeout={round(settings.fleet.connect_timeout_s)}"]
    for option in options:
        words += ["-o", option]
    return [*words, "--", direct_ssh.target(host)]


def prove(host: Host, settings: Settings) -> run.Result:
    """Log in with the key alone, as every task will."""
    options = ("BatchMode=yes", "PasswordAuthentication=no", "IdentitiesOnly=yes")
    return run.run(
        [*_words(host, settings, *options), "true"],
        check=False,
        timeout=3 * settings.fleet.connect_timeout_s,
    )


def authorize(host: Host, settings: Settings, password: Optional[str]) -> str:
    """Add the public key to a host: added or unchanged. password None: by an agent or other key.

    Raises ActionError that says what ssh said.
    """
    public = key_path(host, settings)
    text = regular.text(public.with_name(public.name + ".pub")).strip()
    options = ["NumberOfPasswordPrompts=1"]
    options += ["BatchMode=yes"] if password is None else ["BatchMode=no"]
    remote = f"sh -c {shlex.quote(_ADD)} omnikit {shlex.quote(text)}"
    known = dict.fromkeys(direct_ssh.names(host), password) if password is not None else {}
    with direct_ssh.answering(known) as variables:
        done = run.run(
            [*_words(host, settings, *options), remote],
            env=variables,
            check=False,
            timeout=6 * settings.fleet.connect_timeout_s,
        )
    match = re.search(r"^omnikit: (\w+)$", done.out, re.MULTILINE)
    if done.code != 0 or not match:
        raise ActionError(done.tail or f"exit status {done.code}")
    return match[1]


def explain(name: str, said: str, public: Path) -> str:
    """What ssh's words mean for a host, with what to do."""
    for pattern, meaning, todo in _FAULTS:
        if re.search(pattern, said):
            return f"{meaning}.\n  ssh said: {said.splitlines()[-1]}\n  What to do: " + todo.format(
                name=name, public=public
            )
    return f"ssh failed: {said}"


Password = Callable[[str], Optional[str]]


def set_up(
    hosts: Mapping[str, Host],
    settings: Settings,
    password_of: Password,
    tell: Callable[[Access], None],
) -> list[Access]:
    """Authorize and prove on all hosts side by side; tell is called as each is done.

    Their host keys are recorded. Never raises for a host: its error is in its result.
    """

    def one(name: str) -> Access:
        host, found = hosts[name], Access(name, host_key="recorded")
        public = key_path(host, settings)
        public = public.with_name(public.name + ".pub")
        try:
            before = prove(host, settings)
            if before.code == 0:
                found.authorized = "unchanged"
                found.proof = "ok"
                return found
            found.authorized = authorize(host, settings, password_of(name))
            after = prove(host, settings)
            found.proof = "ok" if after.code == 0 else "failed"
            if after.code != 0:
                found.error = explain(name, after.tail, public)
        except ToolkitError as error:
            found.authorized = "failed"
            found.error = explain(name, error.what, public)
        return found

    results = []
    with ThreadPoolExecutor(max_workers=min(settings.fleet.forks, max(1, len(hosts)))) as pool:
        for found in pool.map(one, hosts):
            results.append(found)
            tell(found)
    return results


def look_at_host_keys(
    hosts: Mapping[str, Host], settings: Settings
) -> tuple[list[Seen], dict[str, str]]:
    """Every host's keys, side by side; those that do not answer by name with the reason."""

    def one(name: str) -> tuple[Optional[Seen], str]:
        try:
            return look(name, hosts[name], settings), ""
        except ToolkitError as error:
            return None, str(error)

    seen, missing = [], {}
    with ThreadPoolExecutor(max_workers=min(settings.fleet.forks, max(1, len(hosts)))) as pool:
        for name, (found, why) in zip(hosts, pool.map(one, hosts)):
            if found is None:
                missing[name] = why
            else:
                seen.append(found)
    return seen, missing
