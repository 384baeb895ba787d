"""Whole rendered deployments, as they stand in tests/golden/<environment>/<host>/.

A reviewer reads a deployment there. Rewrite them with: python tests/golden_files.py (from the
project's folder, with PYTHONPATH=scripts:tests); then look at the difference before committing.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from omnikit import config, ranktable_plan, ranktables
from omnikit.deployment import prepare
from omnikit.layers import PROJECT
from omnikit.topology import make_plan

GOLDEN = Path(__file__).with_name("golden")
ENVIRONMENTS = (
    "local",
    "colocated",
    "qwen2.5",
    "1p1d",
    "2p1d",
    "4p1d",
    "8p1d",
    "18p1d",
)
NGINX = {"kind": "nginx-njs", "nginx": "/usr/sbin/nginx", "modules_dir": "/usr/lib/nginx/modules"}


def rendered(environment: str) -> dict[str, str]:
    """Every rendered file by <host>/<path>; what differs by machine is replaced by a word."""
    loaded = config.load(environment, environ={})
    plan = make_plan(loaded)
    tables: dict[str, dict[str, str]] = {}
    if ranktables.needed(loaded, plan):
        instances = ranktable_plan.instances(plan.nodes)
        addresses = {
            host.name: {device: f"10.{number}.0.{device + 1}" for device in range(16)}
            for number, host in enumerate(plan.hosts)
        }
        made = ranktable_plan.files(ranktable_plan.build(instances, addresses), ranktables.GLOBAL)
        tables = {host: dict(own) for host, own in made.items()}
    local = all(host.settings.connection == "local" for host in plan.hosts)
    kind = NGINX if local else {"kind": "omni-nginx"}
    deployment = prepare(loaded, {}, kind, tables)
    found = {}
    for number, host in enumerate(plan.hosts):
        for name, text in deployment.files[host.name].items():
            # The cluster's table is the same on every host: once is enough to read.
            if number and name.startswith(f"ranktable/{ranktables.GLOBAL}/"):
                continue
            found[f"{host.name}/{name}"] = _portable(text)
    return found


def _portable(text: str) -> str:
    text = text.replace(str(PROJECT), "/PROJECT")
    text = re.sub(r"/tmp/omnikit-[0-9a-f]{10}", "/tmp/omnikit-HASH", text)
    return re.sub(r'": "[0-9a-f]{64}"', '": "DIGEST"', text)


def stored(environment: str) -> dict[str, str]:
    """What is in tests/golden."""
    root = GOLDEN / environment
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in root.rglob("*")
        if path.is_file()
    }


def main() -> None:
    for environment in ENVIRONMENTS:
        shutil.rmtree(GOLDEN / environment, ignore_errors=True)
        for name, text in rendered(environment).items():
            path = GOLDEN / environment / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
