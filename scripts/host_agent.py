#!/usr/bin/env python3
"""What a deployment does on one host: look, start, wait, observe, stop, jobs. JSON on stdout.

Runs on the host that serves, with its own Python and nothing else. The control host ships it, with
the host's files, as one archive; by hand: run it from scripts/ below the work directory.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import InputError

NOT_YET = 3
_ENDS_S = 60  # besides the time that servers have to end
VERBS = (
    *("look", "lock", "containers", "up", "wait", "status", "stop"),
    *("finish", "facts", "clean", "job", "boot"),
)


def body(options: argparse.Namespace) -> int:
    """One verb."""
    if options.verb == "job":
        return _job(options.job)
    from hostkit.agent import unpack
    from hostkit.base import lock, records
    from hostkit.nodes import boot, needed, observe, start_stop

    source = options.host_file or _own_source()
    host = unpack.read_host(source)
    kinds = set(options.roles.split(","))
    run = os.environ.get(lock.RUN, "")
    only = set(options.only.split(",")) if options.only else None
    if options.verb == "look":
        work_dir = Path(host["work_dir"])
        # What a command that was killed had begun here goes on to its end, and is seen after that.
        records.wait_for_lock(work_dir / lock.FLOCK, 4 * host["grace_s"] + _ENDS_S)
        actions = needed.look(host, only)
        changes = unpack.differences(source, work_dir)
        return _print(
            {
                "actions": actions,
                "files": {k: what for k, what in changes.items() if k.startswith("bundle/")},
                "stale": sorted(changes) + start_stop.lost_folders(host),
                "good": unpack.is_good(source, work_dir),
                "lock": lock.holder(work_dir),
                "changes": lock.changes(work_dir),
                "place": lock.place(work_dir),
                "problems": needed.problems(host, actions),
                "lacks_weights": needed.lacks_weights(host, actions),
                "notes": needed.notes(host, actions),
                "reasons": needed.reasons(host, actions, source),
                "replaces": needed.replaces(host, actions),
                "fixed": needed.fixed(host),
                "images": needed.images(host),
            }
        )
    if options.verb == "clean":
        from hostkit.nodes import start_stop

        return _print(start_stop.clean({"work_dir": host["work_dir"], "run": run}))
    if options.verb == "facts":
        from hostkit.ranks import device_query

        return _print(device_query.facts_of(host))
    if options.verb == "status":
        names = [node["name"] for node in host["nodes"]]
        return _print({"nodes": [observe.observe(host, name) for name in names]})
    if options.verb == "wait":
        verdict, nodes = observe.wait(host, kinds, options.seconds, only)
        _print({"verdict": verdict, "time": time.time(), "nodes": nodes})
        return {"ready": 0, "failed": 1}.get(verdict, NOT_YET)
    work_dir = Path(host["work_dir"])
    if options.verb in ("lock", "finish"):  # by Ansible alone: no lock of its own
        if options.verb == "lock":
            lock.take(work_dir, "", options.what, wait_s=host["grace_s"])
            lock.copy(source, work_dir / lock.INCOMING)
        else:  # not proved by real requests: it is no good archive
            lock.audit(work_dir, records.user_name(), options.what, "started")
        return _print({"changed": False})
    with records.locked(work_dir / lock.FLOCK, options.verb, wait_s=host["grace_s"]):
        lock.check(work_dir, run)
        unpack.adopt(work_dir, source)
        if options.verb == "stop":
            done = start_stop.stop(host, only, remove=options.remove)
        elif options.verb == "boot":  # by systemd, of what lies here
            only = boot.ran(host)
            start_stop.containers_up(host, only)
            done = start_stop.up(host, kinds, only)
        else:
            unpack.unpack(source, work_dir)
            if options.verb == "containers":
                done = start_stop.containers_up(host, only)
            else:
                done = start_stop.up(host, kinds, only)
    result = {"done": done, "changed": any(what != "unchanged" for what in done.values())}
    if not options.wait:
        return _print(result)
    verdict, nodes = observe.wait(host, kinds, host["deadline_s"], only)
    _print({**result, "verdict": verdict, "time": time.time(), "nodes": nodes})
    return 0 if verdict == "ready" else 1


def _job(name: str) -> int:
    """Do one job with the parameters that come by standard input (omnikit.fleet.jobs.encode)."""
    from hostkit.agent import jobs

    job = jobs.find(name)
    try:
        parameters = json.loads(base64.b64decode(sys.stdin.read().strip(), validate=True))
    except ValueError as error:
        raise InputError(f"the parameters cannot be read: {error}.", where="--job") from error
    return _print(job(parameters))


def _own_source() -> Path:
    """The archive that this runs from, else the work directory that it was unpacked into."""
    here = Path(sys.argv[0]).resolve()
    return here if zipfile.is_zipfile(here) else here.parents[1]


def _print(result: dict[str, Any]) -> int:
    print(json.dumps(result))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python3 /data/omnikit/scripts/host_agent.py status")
    made.add_argument("verb", choices=VERBS)
    made.add_argument(
        "--job", default="", metavar="NAME", help="job: which one; see hostkit/agent/jobs.py"
    )
    made.add_argument("--host-file", type=Path, metavar="FILE", help="archive or host.json")
    made.add_argument(
        "--roles",
        default="prefill,decode,colocated,proxy",
        metavar="ROLE,…",
        help="up and wait: only nodes of these roles",
    )
    made.add_argument("--wait", action="store_true", help="up: and wait until they are ready")
    made.add_argument("--only", metavar="NODE,…", help="only these nodes")
    made.add_argument("--what", default="", help="what for")
    made.add_argument("--remove", action="store_true", help="stop: remove the containers as well")
    made.add_argument("--seconds", type=float, default=3.0, help="wait: how long at the most")
    os.umask(0o022)
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
