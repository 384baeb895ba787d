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
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.errors import InputError

NOT_YET = 3
# The archive of the last deployment that ended well, beside the one that came in last.
GOOD = "good.pyz"
VERBS = (
    *("look", "lock", "containers", "up", "wait", "status", "stop"),
    *("finish", "facts", "clean", "job"),
)


def read_host(source: Path) -> dict[str, Any]:
    """host.json from a shipped archive, a bundle folder's parent, or a file."""
    try:
        if source.is_file() and zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                data = archive.read("bundle/host.json")
        else:
            path = source / "bundle" / "host.json" if source.is_dir() else source
            data = path.read_bytes()
        host: dict[str, Any] = json.loads(data)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"no deployment is described here: {error}.",
            where=str(source),
            todo="deploy first, or give --host-file",
        ) from error
    return host


def body(options: argparse.Namespace) -> int:
    """One verb."""
    if options.verb == "job":
        return _job(options.job)
    from omnikit import host_lock, host_look, host_nodes, host_observe, host_records, host_unpack

    source = options.host_file or _own_source()
    host = read_host(source)
    kinds = set(options.roles.split(","))
    if options.verb == "finish":
        return _finish(options, host, source)
    only = set(options.only.split(",")) if options.only else None
    if options.verb == "look":
        actions = host_look.look(host, only)
        changes = host_unpack.differences(source, Path(host["work_dir"]))
        return _print(
            {
                "actions": actions,
                "files": changes,
                "problems": host_look.problems(host, actions),
                "reasons": host_look.reasons(host, actions, source),
                "replaces": host_look.replaces(host, actions),
                "images": host_look.images(host),
            }
        )
    if options.verb == "clean":
        from omnikit import host_clean

        return _print(host_clean.clean({"work_dir": host["work_dir"]}))
    if options.verb == "facts":
        from omnikit import host_facts

        return _print(host_facts.gather(host))
    if options.verb == "status":
        names = [node["name"] for node in host["nodes"]]
        return _print({"nodes": [host_observe.observe(host, name) for name in names]})
    if options.verb == "wait":
        verdict, nodes = host_observe.wait(host, kinds, options.seconds, only)
        _print({"verdict": verdict, "time": time.time(), "nodes": nodes})
        return {"ready": 0, "failed": 1}.get(verdict, NOT_YET)
    work_dir = Path(host["work_dir"])
    if options.owner and options.verb != "stop":
        host_lock.take(work_dir, options.owner, options.what)
    if options.verb == "lock":
        return _print({"changed": False})
    with host_records.locked(work_dir / "host.lock", options.verb, wait_s=host["grace_s"]):
        if options.verb == "stop":
            done = host_nodes.stop(host, only, remove=options.remove)
            if options.owner and done:
                host_lock.audit(work_dir, options.owner, options.what, "ok")
        else:
            host_unpack.unpack(source, work_dir)
            if options.verb == "containers":
                done = host_nodes.containers_up(host, only)
            else:
                done = host_nodes.up(host, kinds, only)
    result = {"done": done, "changed": any(what != "unchanged" for what in done.values())}
    if not options.wait:
        return _print(result)
    verdict, nodes = host_observe.wait(host, kinds, host["deadline_s"], only)
    _print({**result, "verdict": verdict, "time": time.time(), "nodes": nodes})
    return 0 if verdict == "ready" else 1


def _finish(options: argparse.Namespace, host: dict[str, Any], source: Path) -> int:
    """The end of a deployment: a line in the audit, the good archive kept, the lock given up."""
    from omnikit import host_lock

    work_dir = Path(host["work_dir"])
    host_lock.audit(work_dir, options.owner, options.what, options.result)
    if options.result == "ok" and zipfile.is_zipfile(source):
        beside = work_dir / f".{GOOD}.new"
        shutil.copyfile(source, beside)
        beside.replace(work_dir / GOOD)
    host_lock.release(work_dir, options.owner)
    return _print({"changed": False})


def _job(name: str) -> int:
    """Do one job with the parameters that come by standard input (omnikit.jobs.encode)."""
    from omnikit import host_jobs

    job = host_jobs.find(name)
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
    made.add_argument("--job", default="", metavar="NAME", help="job: which one; see host_jobs.py")
    made.add_argument("--host-file", type=Path, metavar="FILE", help="archive or host.json")
    made.add_argument(
        "--roles",
        default="prefill,decode,colocated,proxy",
        metavar="ROLE,…",
        help="up and wait: only nodes of these roles",
    )
    made.add_argument("--wait", action="store_true", help="up: and wait until they are ready")
    made.add_argument("--only", metavar="NODE,…", help="only these nodes")
    made.add_argument("--owner", default="", help="who does it, and holds the lock")
    made.add_argument("--what", default="", help="what for")
    made.add_argument("--result", default="ok", help="finish: how it ended")
    made.add_argument("--remove", action="store_true", help="stop: remove the containers as well")
    made.add_argument("--seconds", type=float, default=3.0, help="wait: how long at the most")
    os.umask(0o022)
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
