#!/usr/bin/env python3
"""Start, reload or stop one PD proxy (nginx) by hand, known by its record in --run-dir.

Runs on the proxy's host or in its container. A second run with the same options changes nothing;
with other lists, nginx takes them over without losing requests. It stops only what it started and
changes no file outside --run-dir and the log's folder: no system settings. Rendering needs the
toolkit's Python; with --config-file (as --dry-run prints it) any Python 3.9 will do.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options
from omnikit.errors import InputError

if TYPE_CHECKING:
    from omnikit.proxy_files import Wanted

KINDS = ("omni-nginx", "nginx-njs")
RUN_DIR = Path(__file__).resolve().parents[1] / "build" / "proxy"
GRACE_S = 30.0
DEADLINE_S = 15.0
EXAMPLE = (
    "scripts/launch_proxy.py --listen-port 7000 --core-num 4 --start-core-index 16"
    " --prefill-servers-list 192.0.2.11:9000 --decode-servers-list 192.0.2.12:9100,192.0.2.12:9101"
)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example=EXAMPLE)
    verb = made.add_mutually_exclusive_group()
    verb.add_argument("--stop", action="store_true", help="finish the requests in flight, then end")
    verb.add_argument(
        "--reload", action="store_true", help="change a running proxy; without lists: as it is"
    )
    verb.add_argument(
        "--status", action="store_true", help="say what runs (exit status 1: nothing)"
    )
    verb.add_argument("--dry-run", action="store_true", help="print nginx.conf, change nothing")
    made.add_argument("--listen-port", type=int, metavar="PORT", help="where clients connect")
    for role in ("prefill", "decode"):
        made.add_argument(
            f"--{role}-servers-list",
            metavar="LIST",
            help="host:port,host:port" + ("; empty: a plain balancer" if role == "prefill" else ""),
        )
        made.add_argument(f"--{role}-lb-sdk", metavar="NAME", help=f"balancer of {role} servers")
    made.add_argument("--core-num", type=int, metavar="N", help="nginx workers")
    made.add_argument("--start-core-index", type=int, metavar="N", help="bind them from this core")
    made.add_argument("--log-file", type=Path, metavar="FILE", help="default: below --run-dir")
    made.add_argument("--log-level", metavar="LEVEL", help="debug, info, notice, warn or error")
    made.add_argument("--config-file", type=Path, metavar="FILE", help="a rendered nginx.conf")
    made.add_argument("--kind", choices=KINDS, help=f"default: {KINDS[0]}, or what runs")
    made.add_argument("--run-dir", type=Path, default=RUN_DIR, help="default: %(default)s")
    made.add_argument("--nginx", metavar="PATH", help="the nginx binary")
    made.add_argument("--modules-dir", metavar="DIR", help="where its modules lie")
    made.add_argument("--grace", type=float, default=GRACE_S, help="--stop: seconds for requests")
    made.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds for nginx to act")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    add_config_options(made)
    return cli.run_main(body, made, argv)


def body(options: argparse.Namespace) -> int:
    """Choose the verb."""
    from omnikit import proxy_launch, proxy_record
    from omnikit.host_records import locked

    options.run_dir = options.run_dir.absolute()
    if options.status:
        found = proxy_record.status(options.run_dir, options.deadline)
        _show(options, found, "\n".join(f"{key}: {value}" for key, value in found.items()))
        return 0 if found["state"] == "running" else 1
    if options.stop:
        if not options.run_dir.is_dir():
            return _report(options, "unchanged")
        with locked(options.run_dir / proxy_record.LOCK, "stopping the proxy", options.deadline):
            return _report(
                options, proxy_record.stop(options.run_dir, options.grace, options.deadline)
            )
    wanted = _wanted(options)
    if options.dry_run:
        action = proxy_launch.look(wanted, options.run_dir)
        return _show_files(options, wanted, action)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    with locked(options.run_dir / proxy_record.LOCK, "starting the proxy", options.deadline):
        done = proxy_launch.up(wanted, options.run_dir, options.deadline, reload=options.reload)
    return _report(options, done)


def _wanted(options: argparse.Namespace) -> Wanted:
    from omnikit import proxy_files, proxy_record

    record = proxy_record.read_record(options.run_dir) or {}
    kind = options.kind or record.get("kind") or KINDS[0]
    file, decode = options.config_file, options.decode_servers_list
    if decode is None and file is None and options.reload and record:
        file = options.run_dir / proxy_files.NGINX_CONF
        options.nginx = options.nginx or record["command"][0]
    if file is not None:
        _refuse_beside_file(options)
        return proxy_files.from_file(kind, file, {"nginx": options.nginx})
    lists = {"prefill": options.prefill_servers_list, "decode": decode}
    for role, text in lists.items():
        if text is None:
            raise InputError(
                "the list is missing.",
                where=f"--{role}-servers-list",
                todo="give the servers, or a rendered file as --config-file",
            )
    asked = {
        **{
            role: proxy_files.parse_servers(f"--{role}-servers-list", text)
            for role, text in lists.items()
        },
        "listen_port": options.listen_port,
        "prefill_balance": options.prefill_lb_sdk,
        "decode_balance": options.decode_lb_sdk,
        "worker_processes": options.core_num,
        "start_core": options.start_core_index,
        "log_file": str(options.log_file.absolute()) if options.log_file else None,
        "log_level": options.log_level,
        "nginx": options.nginx,
        "modules_dir": options.modules_dir,
    }
    return proxy_files.rendered(
        asked,
        kind,
        options.run_dir,
        environment=options.environment,
        files=tuple(options.config),
        assignments=tuple(options.set),
    )


def _refuse_beside_file(options: argparse.Namespace) -> None:
    """A rendered file says everything: an option that would be ignored is a mistake."""
    names = ["listen_port", "prefill_servers_list", "decode_servers_list", "prefill_lb_sdk"]
    names += ["decode_lb_sdk", "core_num", "start_core_index", "log_file", "log_level"]
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    if given:
        raise InputError(
            "a rendered file is taken as it is.",
            where=", ".join(given),
            todo="give either the server lists and their options, or --config-file",
        )


def _show(options: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    print(json.dumps(data, indent=1) if options.json else text)


def _show_files(options: argparse.Namespace, wanted: Wanted, action: str) -> int:
    files = dict(wanted.files)
    one = len(files) == 1
    text = "\n".join(text if one else f"==> {name} <==\n{text}" for name, text in files.items())
    _show(options, {"action": action, "dry_run": True, "files": files}, text.rstrip("\n"))
    if not options.json:
        print(f"a start would: {action}", file=sys.stderr)
    return 0


def _report(options: argparse.Namespace, done: str) -> int:
    from omnikit.proxy_record import read_record

    record = read_record(options.run_dir) or {}
    data = {"action": done, "run_dir": str(options.run_dir)}
    text = done
    if record:
        data.update(pid=record["process"]["pid"], listen=f"{record['host']}:{record['port']}")
        data["error_log"] = record["error_log"]
        text += f": nginx pid {data['pid']} on {data['listen']}, log {record['error_log']}"
    _show(options, data, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
