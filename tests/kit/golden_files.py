"""Whole rendered deployments, for a reviewer to read: tests/golden/<environment>/<host>/.

SHA256SUMS there holds every file of the environment; those of SHOWN stand beside it as text. In
JSON a list of plain values and a device of a rank table take one line each here. Of the proxy's
kinds proxy/<name>.diff shows what differs from the usual one, which stands in local.
Rewrite all with: python tests/kit/golden_files.py (from the project's folder, with
PYTHONPATH=scripts:tests/kit); then look at the difference before committing.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Mapping, Optional

import outside
import proxy_settings

from omnikit import proxy
from omnikit.config import config
from omnikit.config.layers import PROJECT
from omnikit.plan.types import HostPlan
from omnikit.prepare import ranktables
from omnikit.prepare.deployment import prepare
from omnikit.topology.topology import make_plan

GOLDEN = Path(__file__).parents[1] / "golden"
SUMS = "SHA256SUMS"
# Which hosts a reviewer reads; None for all, in the others what is there is more of the same.
SHOWN: Mapping[str, Optional[tuple[str, ...]]] = {
    "local": None,
    "colocated": None,
    "qwen2.5": None,
    "vllm-ascend-single": None,
    "vllm-ascend-pd": ("p1",),
    "vllm-ascend-a2-pd": (),
    "vllm-ascend-a5": (),
    "1p1d": (),
    "2p1d": None,
    "4p1d": (),
    "8p1d": (),
    "18p1d": ("p0", "d17"),
}
_FEW = 4  # hosts whose whole table is read
_LARGE = proxy_settings.LARGE
PROXIES = {
    "18p1d": replace(_LARGE, prefill=_LARGE.prefill[:2], decode=_LARGE.decode[:3]),
    "colocated": proxy_settings.COLOCATED,
}
NGINX = {"kind": "nginx-lua", "nginx": "/usr/sbin/nginx", "modules_dir": "/usr/lib/nginx/modules"}


def rendered(environment: str) -> dict[str, str]:
    """Every rendered file by <host>/<path>; what differs by machine is replaced by a word."""
    loaded = config.load(environment, environ={})
    plan = make_plan(loaded)
    tables: dict[str, dict[str, str]] = {}
    if ranktables.needed(loaded, plan):
        instances = ranktables.table_instances(plan.nodes)
        addresses = {
            host.name: {device: f"10.{number}.0.{device + 1}" for device in range(16)}
            for number, host in enumerate(plan.hosts)
        }
        made = ranktables.planned_files(ranktables.planned(instances, addresses), ranktables.GLOBAL)
        tables = {host: dict(own) for host, own in made.items()}
    local = all(host.settings.connection == "local" for host in plan.hosts)
    kind = NGINX if local else {"kind": "omni-nginx"}
    deployment = prepare(loaded, {}, kind, tables)
    return {
        f"{host.name}/{name}": _portable(text.replace(host.temp_dir, _run_dir(host)))
        for host in plan.hosts
        for name, text in deployment.files[host.name].items()
    }


def _run_dir(host: HostPlan) -> str:
    """This machine's is another for root than for others, and by where the project is."""
    local = host.settings.connection == "local"
    return "/var/lib/omnikit/HASH" if local else host.temp_dir


def _portable(text: str) -> str:
    if shlex.quote(str(PROJECT)) != str(PROJECT):  # it stands in quotes, but a plain one would not
        text = re.sub(f"'({re.escape(str(PROJECT))}[\\w./-]*)'", r"\1", text)
    text = text.replace(str(PROJECT), "/PROJECT")
    return re.sub(r'": "[0-9a-f]{64}"', '": "DIGEST"', text)


def golden(environment: str) -> dict[str, str]:
    """What tests/golden/<environment> has to hold, by path there."""
    files = rendered(environment)
    sums = (f"{hashlib.sha256(files[name].encode()).hexdigest()}  {name}" for name in sorted(files))
    hosts = SHOWN[environment]
    shown = {
        name: _readable(text) if name.endswith(".json") else text
        for name, text in files.items()
        if (hosts is None or name.partition("/")[0] in hosts) and not _seen(name, files)
    }
    return {SUMS: "".join(f"{line}\n" for line in sums), **shown}


def _seen(name: str, files: Mapping[str, str]) -> bool:
    """The cluster's table is the same on every host, and of many hosts more of the same."""
    host, _, path = name.partition("/")
    hosts = list(dict.fromkeys(one.partition("/")[0] for one in files))
    if not path.startswith(f"ranktable/{ranktables.GLOBAL}/"):
        return False
    return host != hosts[0] or len(hosts) > _FEW


def _readable(text: str) -> str:
    """JSON with each innermost list of values, and each device, on one line."""
    text = re.sub(r'\[(?:[^\[\]{}"]|"(?:[^"\\]|\\.)*")*\]', _one_line, text)
    return re.sub(r'\{\s*"device_id"[^{}]*\}', _one_line, text)


def _one_line(found: re.Match[str]) -> str:
    return re.sub(r"\s*\n\s*", " ", found.group()).replace("[ ", "[").replace(" ]", "]")


def stored(environment: str) -> dict[str, str]:
    """What is in tests/golden."""
    root = GOLDEN / environment
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in root.rglob("*")
        if path.is_file()
    }


def proxy_file(name: str) -> Path:
    """Where the difference of one of PROXIES stands."""
    return GOLDEN / "proxy" / f"{name}.diff"


def proxy_difference(name: str) -> str:
    """How the files of one of PROXIES differ from the usual ones: whole blocks of changed lines."""
    usual = proxy.files(proxy_settings.LOCAL, "x")
    lines: list[str] = []
    for file, text in proxy.files(PROXIES[name], "x").items():
        old, new = usual[file].splitlines(), text.splitlines()
        lines += difflib.unified_diff(old, new, f"usual/{file}", f"{name}/{file}", n=0, lineterm="")
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as site:
        outside.keep_out(site)
        write()


def write() -> None:
    for environment in SHOWN:
        shutil.rmtree(GOLDEN / environment, ignore_errors=True)
        for name, text in golden(environment).items():
            path = GOLDEN / environment / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in PROXIES:
        proxy_file(name).write_text(proxy_difference(name), encoding="utf-8")


if __name__ == "__main__":
    main()
