#!/usr/bin/env python3
"""Write an Ansible inventory and playbook of an environment, with omni-infer's documented names.

Runs on the control host, writes only below --out. The playbook imports the toolkit's own, so that
plain ansible-playbook does what `invoke deploy` does. Tags: run_docker, sync_code, pip_install,
ranktable, run_server, run_proxy; and only when asked for: stop_server, fetch_log, clean_up.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hostkit.base.log import give
from omnikit.front.options import add, add_config, chosen, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Render and write."""
    from omnikit.deploy import ansible_export
    from omnikit.prepare import local_setup, ranktables
    from omnikit.prepare.deployment import prepare
    from omnikit.topology.topology import make_plan
    from omnikit.yaml import redact

    config = load_config(options)
    plan = make_plan(config)
    found = local_setup.look(config, plan)
    tables = ranktables.remembered(plan.environment) if ranktables.needed(config, plan) else {}
    deployment = prepare(config, found.inputs, found.proxy, tables, plan)
    out = options.out or Path("build") / "ansible" / plan.environment
    if options.dry_run:
        for name, data in ansible_export.files(deployment, out, chosen(options)).items():
            if not name.startswith("archives/"):
                give(f"--- {out / name}\n{redact.text(data.decode())}", end="")
        return 0
    done = ansible_export.write(deployment, out, chosen(options))
    if options.json:
        print(json.dumps(done, indent=1))
    else:
        for name, what in done.items():
            print(f"{out / name}: {what}")
        inventory, playbook = ansible_export.INVENTORY, ansible_export.PLAYBOOK
        print(f"run it: cd {out} && ansible-playbook -i {inventory} {playbook}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--out", type=Path, metavar="DIR", help="default: build/ansible/<name>")
    add(made, dry_run="print what would be written", json="print what became of each file as JSON")


main = Script(__doc__, body, arguments, example="python scripts/export_ansible.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
