"""This machine's key on the hosts: made if there is none, added to each host, and proven."""

from __future__ import annotations

import re
import shlex
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Optional

from omnikit import run, ssh_askpass, ssh_host_keys, ssh_options
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.schema import Host, Settings

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
    words = ["ssh", *ssh_options.words(host, settings)]
    key = str(key_path(host, settings))
    if key not in words:
        words += ["-i", key]
    words += ["-o", f"ConnectTimeout={round(settings.fleet.connect_timeout_s)}"]
    for option in options:
        words += ["-o", option]
    return [*words, "--", ssh_options.target(host)]


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
    text = public.with_name(public.name + ".pub").read_text(encoding="utf-8").strip()
    options = ["NumberOfPasswordPrompts=1"]
    options += ["BatchMode=yes"] if password is None else ["BatchMode=no"]
    remote = f"sh -c {shlex.quote(_ADD)} omnikit {shlex.quote(text)}"
    with ssh_askpass.answering(password) as variables:
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
) -> tuple[list[ssh_host_keys.Seen], dict[str, str]]:
    """Every host's keys, side by side; those that do not answer by name with the reason."""

    def one(name: str) -> tuple[Optional[ssh_host_keys.Seen], str]:
        try:
            return ssh_host_keys.look(name, hosts[name], settings), ""
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
