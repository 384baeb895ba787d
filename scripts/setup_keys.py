#!/usr/bin/env python3
"""Log in to every host of an environment by key: make the key, record host keys, spread, prove.

Runs on the control host. The hosts' password is asked for once, or read from a file, or from the
hosts' settings; with --agent a key that they already take is used instead. New host keys are shown
and have to be confirmed (or checked with --fingerprints); a changed one is refused. Between the
hosts themselves this toolkit needs no log-in. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.config.config import Config
    from omnikit.config.schema import Host


def body(options: argparse.Namespace) -> int:
    """Look at everything first, then act."""
    from hostkit.base import cli
    from hostkit.base.log import say, table
    from omnikit.fleet import keys as fleet_keys

    config = load_config(options, going=True)
    settings = config.settings
    hosts = _chosen(config, options.host)
    if not hosts:
        print("no host of this environment is behind SSH: nothing to do")
        return 0
    keys = {
        path: fleet_keys.ensure_pair(path, settings.keys.comment, dry_run=options.dry_run)
        for path in dict.fromkeys(fleet_keys.key_path(host, settings) for host in hosts.values())
    }
    for path, state in keys.items():
        say(f"key {path}: {state}")
    file = fleet_keys.file_of(settings)
    seen, missing = fleet_keys.look_at_host_keys(hosts, settings)
    fleet_keys.refuse_changed(seen, file)
    new = [one for one in seen if one.state == "new"]
    if options.fingerprints:
        wanted = fleet_keys.expected(options.fingerprints)
        for one in new:
            fleet_keys.check_expected(one, wanted)
    for one in new:
        for kind, key in one.shown.items():
            say(f"host {one.name} ({one.spec}): {kind} {fleet_keys.fingerprint(kind, key)}")
    if options.dry_run:
        for one in seen:
            print(
                f"host {one.name}: host key {one.state}; the public key would be added if missing"
            )
        for name, why in missing.items():
            print(f"host {name}: {why}")
        return 0
    if new and not options.fingerprints:
        cli.confirm(f"These host keys of {len(new)} hosts are new here.", options.yes)
    fleet_keys.record(new, file)
    reached = {name: host for name, host in hosts.items() if name not in missing}
    passwords = _Passwords(config, options)
    passwords.ready(reached)
    found = fleet_keys.set_up(
        reached, settings, passwords.of, lambda a: say(f"{a.name}: {a.proof}")
    )
    fresh = {one.name for one in new}
    for access in found:
        access.key = keys[fleet_keys.key_path(hosts[access.name], settings)]
        access.host_key = "added" if access.name in fresh else "unchanged"
    found += [fleet_keys.Access(name, proof="failed", error=why) for name, why in missing.items()]
    if options.json:
        print(json.dumps([vars(access) for access in found], indent=1))
    else:
        rows = [[a.name, a.key, a.host_key, a.authorized, a.proof] for a in found]
        print(table(rows, ["host", "key", "host key", "authorized", "log-in by key"]))
    for access in found:
        if access.error:
            say(f"host {access.name}: {access.error}")
    return 1 if any(access.proof != "ok" for access in found) else 0


def _chosen(config: Config, names: Sequence[str]) -> dict[str, Host]:
    """The hosts behind SSH that are meant. Raises InputError for an unknown one."""
    known = config.settings.hosts
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no host {name!r}, found: {', '.join(known)}.", where="--host"
            )
    return {
        name: host
        for name, host in known.items()
        if not host.local and (not names or name in names)
    }


class _Passwords:
    """Where each host's password comes from; the terminal is asked once, and only if needed."""

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.config = config
        self.options = options
        self.general: Optional[str] = None

    def ready(self, hosts: dict[str, Host]) -> None:
        """Have a password before the hosts are worked on side by side."""
        from omnikit.fleet import keys as fleet_keys

        settings = self.config.settings
        if self.options.agent:
            return
        if self.options.password_file:
            self.general = _read_password(self.options.password_file)
            return
        open_ones = [
            name
            for name, host in hosts.items()
            if not host.password and fleet_keys.prove(host, settings).code != 0
        ]
        if open_ones:
            import getpass

            try:
                with Path("/dev/tty").open("r+b", buffering=0):
                    pass
            except OSError:
                raise InputError(
                    f"a password is needed for {', '.join(open_ones)}, nobody can be asked here.",
                    todo="give --password-file FILE, or --agent where a key already works",
                ) from None
            self.general = getpass.getpass(f"password of {', '.join(open_ones)}: ")

    def of(self, name: str) -> Optional[str]:
        """A host's password; None where an agent or another key is to do."""
        from omnikit.config.config import read_secret

        own = self.config.settings.hosts[name].password
        if own is not None and not self.options.agent:
            return read_secret(own, f"hosts.{name}.password")
        return self.general


def _read_password(path: Path) -> str:
    """The first line of a file that nobody else may read. Raises InputError."""
    try:
        if path.stat().st_mode & 0o077:
            raise InputError(
                "this file holds a password, and others may read it.",
                where=str(path),
                todo=f"chmod 600 {path}",
            )
        return path.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"no password can be read: {error}.", where=str(path)) from error


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host")
    made.add_argument(
        "--password-file", type=Path, metavar="FILE", help="its first line is the password (0600)"
    )
    made.add_argument("--agent", action="store_true", help="ask for no password")
    made.add_argument(
        "--fingerprints", type=Path, metavar="FILE", help='expected host keys: "HOST SHA256:…" each'
    )
    add(made, "json", yes="take new host keys without asking", dry_run="show what would be done")


main = Script(
    __doc__, body, arguments, example="scripts/setup_keys.py -e 2p1d --password-file ~/.pw"
)


if __name__ == "__main__":
    sys.exit(main())
