#!/usr/bin/env python3
"""Start, reload or stop one PD proxy (nginx) by hand, known by its record in --run-dir.

Runs on the proxy's host or in its container. A second run with the same options changes nothing;
with other lists, nginx takes them over without losing requests. It stops only what it started and
changes no file outside --run-dir and the log's folder: no system settings. It takes the options of
omni-infer's global_proxy.sh, or says which it does not and why. Rendering needs the toolkit's
Python; with --config-file (as --dry-run prints it) any Python 3.9 will do.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostkit.base.errors import InputError
from hostkit.base.log import say
from omnikit.front.options import add, add_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.proxy.launch import Wanted

KINDS = ("omni-nginx", "nginx-lua", "nginx-njs")  # the last is an old name of the second
RUN_DIR = Path(__file__).resolve().parents[1] / "build" / "proxy"
GRACE_S = 30.0
DEADLINE_S = 15.0
_LAST_ALONE = (
    "it only shortens the list of decode servers to its last ones",
    "give those alone as --decode-servers-list",
)
# Options of global_proxy.sh that are not taken, with their other names: why, what to do instead.
NOT_TAKEN = {
    ("--bootstrap-port",): (
        "only SGLang's servers have a bootstrap port; vLLM's prefill servers say themselves where"
        " their KV is",
        "leave it out",
    ),
    ("--nginx-conf-file", "-f"): (
        "nginx.conf is written into a folder of this proxy's own, no other file is touched",
        "name that folder: --run-dir DIR; or a finished file: --config-file FILE",
    ),
    ("--access-log-file",): (
        "access.log lies beside the error log",
        "name the error log in the folder that you want: --log-file DIR/nginx_error.log",
    ),
    ("--enable-internal-metrics",): (
        "the times that this module counts are in the servers' own /metrics",
        "have Prometheus read those: invoke metrics; or pass them on: --metrics-servers-list",
    ),
    ("--enable-attention-ffn-disaggregation",): _LAST_ALONE,
    ("--attention-num",): _LAST_ALONE,
}
EXAMPLE = (
    "scripts/launch_proxy.py --listen-port 7000 --core-num 4 --start-core-index 16"
    " --prefill-servers-list 192.0.2.11:9000 --decode-servers-list 192.0.2.12:9100,192.0.2.12:9101"
)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    verb = made.add_mutually_exclusive_group()
    verb.add_argument(
        "--stop", "-S", action="store_true", help="finish the requests in flight, then end"
    )
    verb.add_argument(
        "--reload", action="store_true", help="change a running proxy; without lists: as it is"
    )
    verb.add_argument(
        "--status", action="store_true", help="say what runs (exit status 1: nothing)"
    )
    verb.add_argument(
        "--dry-run", "-d", action="store_true", help="print nginx.conf, change nothing"
    )
    made.add_argument(
        "--rollback", "-R", action="store_true", help="with --stop; there is nothing to roll back"
    )
    made.add_argument("--listen-port", "-p", type=int, metavar="PORT", help="where clients connect")
    for role in ("prefill", "decode"):
        made.add_argument(
            f"--{role}-servers-list",
            metavar="LIST",
            help="host:port,host:port" + ("; empty: a plain balancer" if role == "prefill" else ""),
        )
        made.add_argument(f"--{role}-lb-sdk", metavar="NAME", help=f"balancer of {role} servers")
        made.add_argument(
            f"--{role}-max-num-seqs",
            type=int,
            metavar="N",
            help=f"what a {role} server takes at once (pd_score_balance of v0.5.0)",
        )
    made.add_argument(
        "--metrics-servers-list", metavar="LIST", help="servers that answer /metrics; default: none"
    )
    made.add_argument("--core-num", "-c", type=int, metavar="N", help="nginx workers")
    made.add_argument(
        "--start-core-index", "-s", type=int, metavar="N", help="bind them from this core"
    )
    made.add_argument(
        "--client-body-buffer-size", metavar="SIZE", help="larger requests go through a file"
    )
    made.add_argument("--stream-ops", metavar="WHAT", help="off, add or set_opt (v0.4.2)")
    made.add_argument("--engine-type", metavar="NAME", help="vllm; no other is taken")
    made.add_argument(
        "--log-file", "-l", type=Path, metavar="FILE", help="default: below --run-dir"
    )
    made.add_argument("--log-level", metavar="LEVEL", help="debug, info, notice, warn or error")
    made.add_argument("--config-file", type=Path, metavar="FILE", help="a rendered nginx.conf")
    made.add_argument("--kind", choices=KINDS, help=f"default: {KINDS[0]}, or what runs")
    made.add_argument("--run-dir", type=Path, default=RUN_DIR, help="default: %(default)s")
    made.add_argument("--nginx", metavar="PATH", help="the nginx binary")
    made.add_argument("--modules-dir", metavar="DIR", help="where its modules lie")
    made.add_argument("--grace", type=float, default=GRACE_S, help="--stop: seconds for requests")
    made.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds for nginx to act")
    add(made, "json")
    add_config(made)
    refused = made.add_argument_group("options of global_proxy.sh that are not taken")
    for names, (why, _) in NOT_TAKEN.items():
        refused.add_argument(*names, nargs="?", const="given", metavar="VALUE", help=why)


def body(options: argparse.Namespace) -> int:
    """Choose the verb."""
    from hostkit.base import folders
    from hostkit.base.records import locked
    from hostkit.nodes import proxy_run
    from omnikit.proxy import launch

    _refuse_not_taken(options)
    options.run_dir = options.run_dir.absolute()
    if options.status:
        found = proxy_run.status(options.run_dir, options.deadline)
        _show(options, found, "\n".join(f"{key}: {value}" for key, value in found.items()))
        return 0 if found["state"] == "running" else 1
    if options.stop:
        if options.rollback:
            say("nothing to roll back: this launcher changes no settings of the system")
        if not options.run_dir.is_dir():
            return _report(options, "unchanged")
        with locked(options.run_dir / proxy_run.LOCK, "stopping the proxy", options.deadline):
            return _report(
                options, proxy_run.stop(options.run_dir, options.grace, options.deadline)
            )
    wanted = _wanted(options)
    action = launch.look(wanted, options.run_dir)  # refuses before there is a folder
    if options.dry_run:
        return _show_files(options, wanted, action)
    fault = folders.make(str(options.run_dir), None, ours=False)
    if fault:
        raise InputError(f"{fault}.", where="--run-dir")
    with locked(options.run_dir / proxy_run.LOCK, "starting the proxy", options.deadline):
        done = launch.up(wanted, options.run_dir, options.deadline, reload=options.reload)
    return _report(options, done)


def _refuse_not_taken(options: argparse.Namespace) -> None:
    for (name, *_), (why, todo) in NOT_TAKEN.items():
        if getattr(
            options, _dest(name)
        ):  # an empty value, of a script's empty variable, asks nothing
            raise InputError(f"it is not taken: {why}.", where=name, todo=todo)
    if options.engine_type not in (None, "vllm"):
        raise InputError(
            f"found {options.engine_type!r}, expected vllm: SGLang wants prefill and decode asked"
            " at the same time, which another module of nginx does.",
            where="--engine-type",
            todo="leave it out for vLLM; for SGLang use its own router",
        )
    if options.rollback and not options.stop:
        raise InputError("it belongs to --stop.", where="--rollback", todo="add --stop")


def _dest(name: str) -> str:
    return name.strip("-").replace("-", "_")


def _wanted(options: argparse.Namespace) -> Wanted:
    from hostkit.nodes import proxy_run
    from omnikit import proxy
    from omnikit.proxy import launch

    record = proxy_run.read_record(options.run_dir) or {}
    kind = options.kind or record.get("kind") or KINDS[0]
    kind = proxy.OLD_NAMES.get(kind, kind)
    file, decode = options.config_file, options.decode_servers_list
    if decode is None and file is None and options.reload and record:
        file = options.run_dir / launch.NGINX_CONF
        options.nginx = options.nginx or record["command"][0]
    if file is not None:
        _refuse_beside_file(options)
        return launch.from_file(kind, file, {"nginx": options.nginx})
    lists = {"prefill": options.prefill_servers_list, "decode": decode}
    seqs = {role: getattr(options, f"{role}_max_num_seqs") for role in lists}
    seqs = {role: number for role, number in seqs.items() if number is not None}
    for role, text in lists.items():
        if text is None:
            raise InputError(
                "the list is missing.",
                where=f"--{role}-servers-list",
                todo="give the servers, or a rendered file as --config-file",
            )
    if options.metrics_servers_list:
        lists["metrics"] = options.metrics_servers_list
    asked = {
        **{
            role: launch.parse_servers(f"--{role}-servers-list", text)
            for role, text in lists.items()
        },
        "max_num_seqs": seqs or None,
        "client_body_buffer_size": options.client_body_buffer_size,
        "stream_ops": options.stream_ops,
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
    return launch.rendered(
        asked,
        kind,
        options.run_dir,
        environment=options.environment,
        files=tuple(options.config),
        assignments=tuple(options.set),
    )


def _refuse_beside_file(options: argparse.Namespace) -> None:
    """A rendered file says everything: an option that would be ignored is a mistake."""
    names = ["--listen-port", "--prefill-servers-list", "--decode-servers-list", "--prefill-lb-sdk"]
    names += ["--decode-lb-sdk", "--prefill-max-num-seqs", "--decode-max-num-seqs", "--core-num"]
    names += ["--start-core-index", "--metrics-servers-list", "--client-body-buffer-size"]
    names += ["--stream-ops", "--log-file", "--log-level"]
    given = [name for name in names if getattr(options, _dest(name)) is not None]
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
    from hostkit.nodes.proxy_run import read_record

    record = read_record(options.run_dir) or {}
    data = {"action": done, "run_dir": str(options.run_dir)}
    text = done
    if record:
        data.update(pid=record["process"]["pid"], listen=f"{record['host']}:{record['port']}")
        data["error_log"] = record["error_log"]
        text += f": nginx pid {data['pid']} on {data['listen']}, log {record['error_log']}"
    _show(options, data, text)
    return 0


def renders_nothing(given: argparse.Namespace) -> bool:
    """Whether it needs no package: only a host with a rendered file, or a running proxy."""
    rendered = given.decode_servers_list is None or given.config_file is not None
    return bool(rendered or given.status or given.stop)


main = Script(__doc__, body, arguments, example=EXAMPLE, bare=renders_nothing)


if __name__ == "__main__":
    sys.exit(main())
